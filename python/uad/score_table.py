"""scores.csv: a row per image, appended as soon as the image is scored."""

from __future__ import annotations

import csv
import io
import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from uad.detector import Result

COLUMNS = ("file", "score", "threshold", "decision", "reason")
OK, ANOMALOUS, ERROR, UNDECIDED = "ok", "anomalous", "error", ""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet may run a cell that begins with one of these as a formula."""


class TableError(Exception):
    """A file that is not a table of score.py. The message names it."""


@dataclass(frozen=True)
class Row:
    """What was decided about one image."""

    file: str
    score: float | None
    threshold: float | None
    decision: str
    """OK, ANOMALOUS or ERROR; UNDECIDED for a score without a threshold."""
    reason: str = ""
    trained_on: bool = False
    """Whether it is a training image; not part of the table."""

    @staticmethod
    def of(result: Result, threshold: float | None) -> Row:
        """The decision about a result."""
        if result.error:
            reason = " ".join(result.error.split())
            return Row(result.name, None, threshold, ERROR, reason)
        decision = UNDECIDED
        if threshold is not None:
            decision = ANOMALOUS if result.score > threshold else OK
        return Row(result.name, result.score, threshold, decision, trained_on=result.trained_on)


def escape(text: str) -> str:
    """The text as a cell that no spreadsheet runs: with an apostrophe before a formula.

    Apostrophes before a formula count as a part of it, so that `unescape` restores every text.
    """
    return f"'{text}" if text.lstrip("'").startswith(FORMULA) else text


def unescape(cell: str) -> str:
    """The text that `escape` was given."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(FORMULA) else cell


def printable(name: str) -> str:
    """A file name with escapes for control characters and for bytes that are not UTF-8."""
    return "".join(
        letter.encode("unicode_escape").decode()
        if unicodedata.category(letter) in ("Cc", "Cs")
        else letter
        for letter in name
    )


class Table:
    """Appends rows to scores.csv; every row is in the file when `append` returns."""

    def __init__(self, path: Path) -> None:
        """Open the table for appending, and begin it with the names of the columns if it is new."""
        new = not path.exists() or not path.stat().st_size
        self.file: IO[str] = path.open("a", encoding="utf-8", newline="")
        self.writer = csv.writer(self.file, lineterminator="\n")
        if new:
            self.writer.writerow(COLUMNS)
            self.file.flush()

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows and flush."""
        for row in rows:
            self.writer.writerow(
                [
                    escape(row.file), _number(row.score), _number(row.threshold),
                    row.decision, escape(row.reason),
                ]
            )  # fmt: skip
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def read_table(path: Path) -> list[Row]:
    """The rows of scores.csv; TableError if it is something else.

    A last line that a killed process left incomplete is removed from the file.
    """
    try:
        content = path.read_bytes()
        complete = content[: content.rfind(b"\n") + 1]
        rows = _parse(complete.decode("utf-8"))
    except (ValueError, csv.Error) as error:
        raise TableError(f"{path}: not a table of score.py: {error}") from error
    if complete != content:
        path.write_bytes(complete)
    return rows


def latest(rows: Sequence[Row]) -> list[Row]:
    """The last row of each file; --watch scores a file again if it was incomplete before."""
    return list({row.file: row for row in rows}.values())


def _parse(text: str) -> list[Row]:
    reader = csv.reader(io.StringIO(text, newline=""))
    if tuple(next(reader, COLUMNS)) != COLUMNS:
        raise ValueError(f"the first line must be {','.join(COLUMNS)}")
    return [
        Row(unescape(file), _value(score), _value(threshold), decision, unescape(reason))
        for file, score, threshold, decision, reason in reader
    ]


def _number(value: float | None) -> str:
    # Nine digits distinguish all float32 values, so that no score looks equal to the threshold
    # that it exceeds.
    return "" if value is None else f"{value:.9g}"


def _value(cell: str) -> float | None:
    if not cell:
        return None
    value = float(cell)
    if not math.isfinite(value):
        raise ValueError(f"a number must be finite, got {cell}")
    return value
