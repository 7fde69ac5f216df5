"""The results file of a study: one JSON object per line and run; it survives a killed study."""

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
    """An unusable results file. The message names the file and the line."""


def read_results(path: Path) -> list[dict[str, Any]]:
    """All complete lines; [] if there is no file. An incomplete last line is ignored."""
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
            raise ResultsError(
                f"{path}, line {number}: not the result of a run: {error}"
            ) from error
        results.append(result)
    return results


def spec_of(result: dict[str, Any]) -> RunSpec:
    """The run that produced a line of the results."""
    return RunSpec(**{field.name: result[field.name] for field in fields(RunSpec)})


class ResultsFile:
    """The results file, open for one study to append to; it is locked against other studies."""

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
            # An incomplete last line, left by a killed study, would corrupt the next one.
            self.file.truncate(path.read_bytes().rfind(b"\n") + 1)
        except BlockingIOError as error:
            self.file.close()
            raise ResultsError(f"{path}: another study is writing to it") from error
        except ResultsError:
            self.file.close()
            raise

    def append(self, result: dict[str, Any]) -> None:
        """Append a line and wait until it is on disk."""
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
        self.file.close()  # also releases the lock
