"""A share of a study's runs, for arrays of jobs that work on one grid at the same time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uad.study.spec import RunSpec

MARK = re.compile(r"\.(\d+)-of-(\d+)$")


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count` parts, counted from 1."""

    index: int
    count: int

    @staticmethod
    def parse(text: str) -> Shard:
        """The shard written "I/N"; ValueError if it is none."""
        found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
        index, count = map(int, found.groups()) if found else (0, 0)
        if not 1 <= index <= count:
            raise ValueError(f"must be I/N with I from 1 to N, such as 1/4, got {text!r}")
        return Shard(index, count)

    def of(self, specs: Sequence[RunSpec]) -> list[RunSpec]:
        """Every N-th run, so that all shards have about as many runs of every block."""
        return list(specs[self.index - 1 :: self.count])

    def file(self, path: Path) -> Path:
        """The results file of this shard: study.1-of-4.jsonl for study.jsonl."""
        return path.with_name(f"{path.stem}.{self.index}-of-{self.count}{path.suffix}")


def missing_shards(paths: Sequence[Path]) -> list[Path]:
    """The results files of shards that belong with these but are not among them."""
    given = set(paths)
    expected = {
        Shard(index, int(mark[2])).file(path.with_name(MARK.sub("", path.stem) + path.suffix))
        for path in paths
        if (mark := MARK.search(path.stem))
        for index in range(1, int(mark[2]) + 1)
    }
    return sorted(expected - given)


def common_stem(paths: Sequence[Path]) -> str:
    """The name of the study to which results files belong, shards or not."""
    stems = {MARK.sub("", path.stem) for path in paths}
    return stems.pop() if len(stems) == 1 else "study"
