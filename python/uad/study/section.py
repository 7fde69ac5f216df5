"""Sections of what a study publishes, each for both Markdown and HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from uad import html
from uad.table import Table


@dataclass(frozen=True)
class Picture:
    """A PNG file next to the results, with plain text about it."""

    name: str
    content: bytes
    alternative: str
    """Text for readers who do not see the picture."""
    caption: str
    """Only the HTML page has captions."""
    style: str = ""
    """A class of html.css."""

    def markdown(self) -> str:
        """A link to the file."""
        return f"![{self.alternative}]({self.name})\n"

    def html(self) -> str:
        """The picture itself, with its caption."""
        return html.picture(self.content, "png", self.alternative, escape(self.caption), self.style)


@dataclass(frozen=True)
class Section:
    """A heading with statements, a picture and tables below it; all of it plain text."""

    heading: str
    introduction: str
    statements: Sequence[str]
    picture: Picture | None
    tables: Sequence[Table]

    def markdown(self) -> str:
        """The section in Markdown."""
        parts = [f"## {self.heading}\n"]
        if self.introduction:
            parts.append(f"{self.introduction}\n")
        if self.statements:
            parts.append("".join(f"- {text}\n" for text in self.statements))
        if self.picture:
            parts.append(self.picture.markdown())
        return "\n".join([*parts, *(table.markdown() for table in self.tables)])

    def html(self) -> str:
        """The section in HTML, without its heading."""
        content = f"<p>{escape(self.introduction)}</p>\n" if self.introduction else ""
        if self.statements:
            items = "".join(f"<li>{escape(text)}</li>" for text in self.statements)
            content += f"<ul>{items}</ul>\n"
        if self.picture:
            content += self.picture.html()
        return content + "".join(table.html() for table in self.tables)
