"""A table, before it is rendered as text or Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Table:
    """A table with a title and an introduction."""

    title: str
    words: str
    head: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
