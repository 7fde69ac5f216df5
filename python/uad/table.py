"""Tables for the terminal, Markdown and HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from uad.html import html_table


@dataclass(frozen=True)
class Table:
    """Rows of plain text; the first column holds the headings of the rows."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """The table for the terminal, without the caption."""
        return align(self.heads, self.rows)

    def markdown(self) -> str:
        """The table in Markdown, with the caption as a paragraph above it."""
        lines = [self.heads, ["---", *["---:"] * (len(self.heads) - 1)], *self.rows]
        return f"{self.caption}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def html(self) -> str:
        """The table as an element of an HTML page."""
        return html_table(self.heads, self.rows, self.caption)


def align(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with minimal column widths, the first column left-aligned, the others right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        first, *others = (
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join((first, *others)).rstrip())
    return "\n".join(lines)
