"""The results file of a study: one JSON object a line, appended run by run, whole after a kill."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any

from uad.study.grid import RunSpec


class ResultsError(Exception):
    """A results file that cannot be used. The message names file and line."""


def read_results(path: Path) -> list[dict[str, Any]]:
    """All whole lines; [] where there is no file. What a kill left of a last line is ignored."""
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read: {error}") from error
    results = []
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            result = json.loads(line)
            spec_of(result)
        except (ValueError, TypeError, KeyError) as error:
            raise ResultsError(f"{path}, line {number}: not a result of a run: {error}") from error
        results.append(result)
    return results


def spec_of(result: dict[str, Any]) -> RunSpec:
    """The run that a line is the result of."""
    return RunSpec(**{field.name: result[field.name] for field in fields(RunSpec)})


class ResultsFile:
    """The file open for adding results, for one study at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = path.open("ab")
        except OSError as error:
            raise ResultsError(f"{path}: cannot be written: {error}") from error
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.results = read_results(path)
            # what a kill left of a last line would spoil the next one
            self.file.truncate(path.read_bytes().rfind(b"\n") + 1)
        except BlockingIOError as error:
            self.file.close()
            raise ResultsError(f"{path}: another study is writing it") from error
        except ResultsError:
            self.file.close()
            raise

    def append(self, result: dict[str, Any]) -> None:
        """Add a line and wait until it is on the disk."""
        self.results.append(result)
        self.file.write(json.dumps(result, allow_nan=False).encode() + b"\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.file.close()  # and with it the lock
