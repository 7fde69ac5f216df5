"""Building blocks of self-contained HTML pages, which need no other file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

STYLE = Path(__file__).with_name("html.css")


def document(title: str, lead: str, sections: Mapping[str, str], style: str = "") -> str:
    """A whole page.

    title: plain text. lead: HTML. sections: HTML content by heading, which is HTML too; a section
    without content is left out. style: CSS to add to that of all pages.
    """
    body = "\n".join(
        f"<section>\n<h2>{name}</h2>\n{content}</section>"
        for name, content in sections.items()
        if content
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{STYLE.read_text(encoding="utf-8")}{style}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{lead}{body}
</body>
</html>
"""


def picture(content: bytes, subtype: str, alternative: str, caption: str, style: str = "") -> str:
    """A picture with its caption.

    subtype: "png", "jpeg" or "svg+xml". alternative: plain text for readers who do not see the
    picture. caption: HTML. style: a class of html.css, such as "large".
    """
    encoded = base64.b64encode(content).decode()
    return (
        f'<figure class="{style}"><div class="wide"><img alt="{escape(alternative)}" '
        f'src="data:image/{subtype};base64,{encoded}"></div>'
        f"<figcaption>{caption}</figcaption></figure>\n"
    )


def table(
    heads: Sequence[str], rows: Sequence[str], caption: str = "", apart: Sequence[str] = ()
) -> str:
    """A table.

    heads, caption: plain text. rows: the HTML of each row's cells. apart: more rows, below the
    others and set apart from them.
    """
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body, below = ("\n".join(f"<tr>{row}</tr>" for row in each) for each in (rows, apart))
    second = below and f'\n<tbody class="apart">{below}</tbody>'
    caption = caption and f"<caption>{escape(caption)}</caption>"
    return (
        f'<div class="wide"><table>{caption}<thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody>{second}</table></div>\n"
    )


def row_head(text: str, mark: str = "") -> str:
    """The first cell of a row. text: plain text. mark: HTML to put before it."""
    return f'<th scope="row">{mark}{escape(text)}</th>'


def cell(text: str | None) -> str:
    """A cell with plain text, or a dash for None."""
    return f"<td>{'-' if text is None else escape(text)}</td>"


def html_table(heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """A table of plain text whose first column holds the headings of the rows."""
    cells = [row_head(first) + "".join(map(cell, others)) for first, *others in rows]
    return table(heads, cells, caption)
