"""The results file of a study: one JSON object per line and run; it survives a killed study."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from uad.checkpoint import WriteError
from uad.lock import LockError, only_writer_of
from uad.study.spec import FIELDS, REQUIRED, RunSpec

NEEDED = ("seconds", "torch")
FIGURES_NEEDED = ("image_auroc", "error_normal", "error_anomalous")
"""Entries of each line besides the fields of RunSpec; a failed run has no figures."""

CIRCUMSTANCES = ("seconds", "date", "torch", "lamp_kernels")
"""Entries in which two lines of the same run may differ."""


class ResultsError(Exception):
    """An unusable results file. The message names the file and the line."""


def read_results(path: Path) -> list[dict[str, Any]]:
    """All complete lines; [] if there is no file. An incomplete last line is ignored.

    Lines from before a field of RunSpec existed get its default.
    """
    return [result for _, result in _numbered(path)]


def merge_results(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The lines of all files, each run once; ResultsError if two lines of a run contradict."""
    found: dict[tuple[Any, ...], tuple[str, dict[str, Any]]] = {}
    for path in paths:
        if not path.exists():
            raise ResultsError(f"{path}: no such file")
        for number, result in _numbered(path):
            place = f"{path}, line {number}"
            before, known = found.setdefault(spec_of(result).key, (place, result))
            differing = [name for name in (*known, *result) if _differ(name, known, result)]
            if differing:
                raise ResultsError(
                    f"{before} and {place}: the same run with different {differing[0]}; "
                    "leave out one of the files, or delete one of the lines"
                )
    return [result for _, result in found.values()]


def _differ(name: str, one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two lines of the same run have different results; its key is known to be equal."""
    if name in CIRCUMSTANCES or name in FIELDS:
        return False
    return bool(one.get(name) != other.get(name))


def _numbered(path: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read: {error.strerror or error}") from error
    results = []
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            results.append((number, _parse(line)))
        except (ValueError, TypeError) as error:
            raise ResultsError(
                f"{path}, line {number}: not the result of a run: {error}; delete the line to "
                "repeat its run"
            ) from error
    return results


def _parse(line: bytes) -> dict[str, Any]:
    """A line with all fields of RunSpec; ValueError or TypeError if it is damaged."""
    result = json.loads(line)
    if not isinstance(result, dict):
        raise ValueError("not a JSON object")
    figures = () if "failed" in result else FIGURES_NEEDED
    missing = [name for name in (*REQUIRED, *NEEDED, *figures) if name not in result]
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}")
    return asdict(spec_of(result)) | result


def spec_of(result: dict[str, Any]) -> RunSpec:
    """The run that produced a line of the results."""
    return RunSpec(**{name: result[name] for name in FIELDS if name in result})


class ResultsFile:
    """The results file, open for one study to append to; it is locked against other studies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with contextlib.ExitStack() as opened:
                opened.enter_context(only_writer_of(path))
                # Without a buffer, so that closing it on a full disk has nothing left to write.
                self.file = opened.enter_context(path.open("ab", buffering=0))
                self.results = read_results(path)
                # An incomplete last line, left by a killed study, would corrupt the next one.
                self.file.truncate(path.read_bytes().rfind(b"\n") + 1)
                self.opened = opened.pop_all()
        except (LockError, WriteError) as error:
            raise ResultsError(str(error)) from error
        except OSError as error:
            raise self._unwritable(error) from error

    def append(self, result: dict[str, Any]) -> None:
        """Append a line and wait until it is on disk; on a full disk, none of it stays."""
        line = json.dumps(result, allow_nan=False).encode() + b"\n"
        before = os.fstat(self.file.fileno()).st_size
        try:
            while line:
                line = line[self.file.write(line) or 0 :]
            os.fsync(self.file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self.file.truncate(before)
            raise self._unwritable(error) from error
        self.results.append(result)

    def _unwritable(self, error: OSError) -> ResultsError:
        return ResultsError(f"{self.path}: cannot be written: {error.strerror or error}")

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.opened.close()
