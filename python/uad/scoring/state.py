"""What score.py notes in its folder: that the results are its own, and how they were made."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from uad.checkpoint import atomic_write
from uad.wording import float32_text

STATE = "score-state.json"
FORMAT = 1
MARK = {"program": "score.py", "format": FORMAT}
"""The first entries of the file, by which it is recognized."""


@dataclass(frozen=True)
class State:
    """How the results in a folder were made. One table holds decisions of one kind only."""

    checkpoint_sha256: str
    threshold: float | None
    """None for scores without decisions."""
    full_scale: float | None
    """The map value at the upper end of the overlays' color scale; None if it is not known yet."""

    def write(self, folder: Path) -> None:
        """Write it to the folder, or replace what is there."""
        with atomic_write(folder / STATE) as file:
            file.write(json.dumps(MARK | asdict(self), indent=2).encode())

    def contradiction(self, now: State) -> str:
        """Why results made like `now` do not belong into the same table; "" if they do."""
        if self.checkpoint_sha256 != now.checkpoint_sha256:
            return "another checkpoint"
        if self.threshold != now.threshold:
            before, after = (_in_words(each.threshold) for each in (self, now))
            return f"{before}, not with {after}"
        return ""


def read_state(folder: Path) -> State | None:
    """The state in a folder; None if there is none that this program wrote."""
    try:
        content = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or {name: content.get(name) for name in MARK} != MARK:
        return None
    digest = content.get("checkpoint_sha256")
    numbers = [content.get(name, "") for name in ("threshold", "full_scale")]
    if not isinstance(digest, str) or not all(map(_number_or_none, numbers)):
        return None
    return State(digest, *numbers)


def _number_or_none(value: Any) -> bool:
    return value is None or (
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    )


def _in_words(threshold: float | None) -> str:
    return "no threshold" if threshold is None else f"threshold {float32_text(threshold)}"
