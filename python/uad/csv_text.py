"""Tables as CSV that a spreadsheet shows as they are."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_text(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A header and rows as CSV, lines ended by a newline."""
    return csv_lines([heads, *rows])


def csv_lines(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV, lines ended by a newline.

    Text is escaped. Numbers must be passed as numbers, so that -1.5 stays a number; None becomes an
    empty cell.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(
        [escaped(value) if isinstance(value, str) else value for value in row] for row in rows
    )
    return text.getvalue()


def escaped(text: str) -> str:
    """The text with an apostrophe in front if a spreadsheet would run it as a formula.

    Anyone can name a file "=HYPERLINK(...)"; the apostrophe makes it plain text. Apostrophes in
    front of a formula count as part of it, so that `unescaped` restores every text.
    """
    return f"'{text}" if text.lstrip("'").startswith(FORMULA_STARTS) else text


def unescaped(cell: str) -> str:
    """The text that `escaped` was given."""
    return cell[1:] if cell.startswith("'") and escaped(cell) != cell else cell
