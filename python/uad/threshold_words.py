"""A threshold in words: the same clauses on the terminal and in every report."""

from __future__ import annotations

from uad.threshold import Threshold, normal_images
from uad.wording import asked_percent, counted, float32_text, percent


def value(limit: Threshold) -> str:
    """The threshold with the digits that decide."""
    return float32_text(limit.value)


def expected_rate(limit: Threshold) -> str:
    """What the threshold promises."""
    return (
        f"expect {percent(limit.rate)} of new normal images, taken under the same conditions, to "
        "exceed it"
    )


def interval(limit: Threshold) -> str:
    """How uncertain that is, for parentheses."""
    return f"95% interval {percent(limit.low)} to {percent(limit.high)}"


def uncertainty(limit: Threshold) -> str:
    """How uncertain that is, and why."""
    return (
        f"because only {counted(limit.count, 'image')} set it, the actual rate may be anywhere "
        f"from {percent(limit.low)} to {percent(limit.high)} (95% interval)"
    )


def one_line(limit: Threshold, source: str = "") -> str:
    """The threshold and what it promises. source: where the normal images come from."""
    return (
        f"{value(limit)}, from {counted(limit.count, 'normal image')}"
        f"{f' ({source})' if source else ''}; expected false-positive rate {percent(limit.rate)}, "
        f"{interval(limit)}"
    )


def too_few_images(limit: Threshold) -> str:
    """What to say if there are too few normal images for the rate asked for; "" if not."""
    if limit.met:
        return ""
    are = "is" if limit.count == 1 else "are"
    return (
        f"{counted(limit.count, 'normal image')} {are} too few for a false-positive rate of "
        f"{asked_percent(limit.asked)}, which requires at least {normal_images(limit.asked):,}: "
        f"the threshold is their highest score, and the rate to expect is {percent(limit.rate)}"
    )
