"""Figures and lists in words that rounding cannot contradict."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np


def four_digits(value: float) -> str:
    """Like 0.1234; never "-0.0000"."""
    return f"{rounded(value):.4f}"


def rounded(value: float) -> float:
    """The value as `four_digits` shows it. Only rounded figures may be called equal or higher."""
    return round(value, 4) + 0.0  # -0.0 + 0.0 is 0.0


def percent(value: float) -> str:
    """Like 12.3% or 0.08%; 0 and 100% are exact, and nothing is rounded to them."""
    if value in (0, 1):
        return f"{value:.0%}"
    if value < 0.001:
        return f"{100 * value:.1g}%" if value > 1e-6 else "< 0.0001%"
    return "> 99.9%" if value > 0.999 else f"{value:.1%}"


def asked_percent(rate: float) -> str:
    """A rate that a person chose, with all of its digits, like 5% or 0.25%."""
    return f"{100 * rate:.6g}%"


def float32_text(value: float) -> str:
    """The shortest number that is the same float32, so that texts compare like the scores do."""
    return str(np.float32(value))


def counted(count: int, noun: str) -> str:
    """Like "1 image" or "1,200 images"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listing(items: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, (", ".join(items[:-1]), *items[-1:])))


def sentence(text: str) -> str:
    """A clause as a sentence."""
    return f"{text[:1].upper()}{text[1:]}."


def bold(text: str) -> str:
    """Plain text as bold HTML."""
    return f"<b>{escape(text)}</b>"
