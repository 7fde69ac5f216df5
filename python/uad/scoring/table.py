"""scores.csv: a row per image, appended as soon as the image is scored."""

from __future__ import annotations

import csv
import io
import math
import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from uad.csv_text import csv_lines, unescaped
from uad.detector import Result
from uad.scoring.stamp import Stamp
from uad.threshold import decision
from uad.wording import float32_text

COLUMNS = ("file", "score", "threshold", "decision", "reason", "size", "modified")
ERROR, UNDECIDED = "error", ""


class TableError(Exception):
    """A file that is not a table of score.py. The message names it."""


@dataclass(frozen=True)
class Row:
    """What was decided about one image."""

    file: str
    score: float | None
    threshold: float | None
    decision: str
    """NORMAL, ANOMALOUS or ERROR; UNDECIDED for a score without a threshold."""
    reason: str = ""
    trained_on: bool = False
    """Whether it is a training image; not part of the table."""
    stamp: Stamp | None = None
    """Which content of the file it is about; None if there was no file."""

    @staticmethod
    def of(result: Result, threshold: float | None, stamp: Stamp | None = None) -> Row:
        """The decision about a result."""
        if result.error:
            reason = " ".join(result.error.split())
            return Row(result.name, None, threshold, ERROR, reason, stamp=stamp)
        decided = UNDECIDED if threshold is None else decision(result.score, threshold)
        return Row(
            result.name, result.score, threshold, decided, trained_on=result.trained_on, stamp=stamp
        )

    @property
    def cells(self) -> tuple[object, ...]:
        """The row of the table, in the order of COLUMNS."""
        size, modified = (None, None) if self.stamp is None else (self.stamp.size, self.stamp.time)
        return (
            self.file, _number(self.score), _number(self.threshold), self.decision, self.reason,
            size, modified,
        )  # fmt: skip


def printable(name: str) -> str:
    """A file name with escapes for control characters and for bytes that are not UTF-8.

    Backslashes are escaped too, so that different names stay different.
    """
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(
        letter.encode("unicode_escape").decode()
        if unicodedata.category(letter) in ("Cc", "Cs") or letter == "\\"
        else letter
        for letter in name
    )


class Table:
    """Appends rows to scores.csv; every row is in the file when `append` returns."""

    def __init__(self, path: Path) -> None:
        """Open the table for appending, and begin it with the names of the columns if it is new."""
        _drop_incomplete_line(path)
        new = not path.exists() or not path.stat().st_size
        self.file: IO[str] = path.open("a", encoding="utf-8", newline="")
        if new:
            self._write([COLUMNS])

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows and flush."""
        self._write(row.cells for row in rows)

    def _write(self, rows: Iterable[Sequence[object]]) -> None:
        self.file.write(csv_lines(rows))
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def read_table(path: Path) -> list[Row]:
    """The rows of scores.csv; TableError if it is something else.

    Ignores a last line that is incomplete, because the process that wrote it was killed.
    """
    try:
        return _parse(_complete(path.read_bytes()).decode("utf-8"))
    except (ValueError, OverflowError, csv.Error) as error:
        raise TableError(f"{path}: not a table of score.py: {error}") from error


def _complete(content: bytes) -> bytes:
    return content[: content.rfind(b"\n") + 1]


def _drop_incomplete_line(path: Path) -> None:
    if path.exists():
        content = path.read_bytes()
        os.truncate(path, len(_complete(content)))


def latest(rows: Sequence[Row]) -> list[Row]:
    """The last row of each file; --watch scores a file again if it has changed."""
    return list({row.file: row for row in rows}.values())


def _parse(text: str) -> list[Row]:
    reader = csv.reader(io.StringIO(text, newline=""))
    if tuple(next(reader, COLUMNS)) != COLUMNS:
        raise ValueError(f"the first line must be {','.join(COLUMNS)}")
    return [
        Row(
            unescaped(file), _value(score), _value(threshold), decided, unescaped(reason),
            stamp=Stamp.read(size, modified) if size else None,
        )
        for file, score, threshold, decided, reason, size, modified in reader
    ]  # fmt: skip


def _number(value: float | None) -> float | None:
    """The shortest number that is the same float32."""
    return None if value is None else float(float32_text(value))


def _value(cell: str) -> float | None:
    if not cell:
        return None
    value = float(cell)
    if not math.isfinite(value):
        raise ValueError(f"a number must be finite, got {cell}")
    return value
