"""A table for readers who ask of their own metric: should amplification be on?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from uad.losses import METRICS
from uad.study.measures import primary
from uad.study.questions import Comparison
from uad.study.setting import Arm, Setting
from uad.study.statistics import Difference
from uad.study.tables import interval, signed
from uad.table import Table

HEADS = ["metric", "setting", "effect", "95% interval", "without stuck runs", "advice"]

CAPTION = (
    "Should you switch amplification on? One row per metric and setting. The effect is the image "
    "AUROC with the amplified loss (defaults) minus that with the plain loss, under the primary "
    "score. Stuck runs are runs that learned nothing. The advice follows from the intervals alone: "
    '"on" where the interval of the effect is above 0, with what it depends on.'
)

AUTHOR = (
    " The first public form of the method's author, the mean of -log(1 - |e|) over the residuals "
    "e, is amplified L1."
)
"""From losses.py of the author's package white-box-layer, February 2022; a squared form followed.
The tangent above 1 - eps is ours."""

NONE_LEFT = "no pair left"
UNKNOWN = "not known: too few pairs"
OFF, HARM = "off: no gain shown", "off: harm shown"
ON = "on"
ON_IF_STUCK = "on if trainings get stuck; no other gain shown"
ON_UNLESS_LONGER = "on, or a higher learning rate: no gain over the control shown"


def switching_table(groups: Mapping[Setting, Sequence[Comparison]]) -> Table | None:
    """One row for each amplified loss with default options; None if no effect has an interval.

    Ordered by metric, since readers know their metric.
    """
    main = [each for group in groups.values() for each in group if each.main]
    measured = (each.difference(primary(each.setting.dataset)) for each in main)
    if not any(found and found.bounded for found in measured):
        return None
    main.sort(key=lambda each: METRICS.index(each.metric))
    caption = CAPTION + (AUTHOR if any(each.metric == "l1" for each in main) else "")
    return Table(caption, HEADS, [_row(each, groups[each.setting]) for each in main])


def _row(comparison: Comparison, group: Sequence[Comparison]) -> list[str]:
    measure = primary(comparison.setting.dataset)
    found, rest = comparison.difference(measure), comparison.without_stuck(measure)
    assert found is not None  # groups hold comparisons with pairs only
    learning = f"{signed(rest.mean)} ({interval(rest)})" if rest else "-"
    return [
        str(comparison.before),
        str(comparison.setting),
        signed(found.mean),
        interval(found),
        NONE_LEFT if found.all_stuck else learning,
        advice(comparison, found, rest, group),
    ]


def advice(
    comparison: Comparison,
    found: Difference,
    rest: Difference | None,
    group: Sequence[Comparison],
) -> str:
    """What the effect suggests.

    found, rest: the effect over all pairs, and over those without a stuck run if there are others.
    group: the comparisons of the same setting, the control among them.
    """
    if not found.bounded:
        return UNKNOWN
    if found.verdict != "higher":
        return HARM if found.verdict == "lower" else OFF
    if found.all_stuck or (rest is not None and rest.verdict != "higher"):
        return ON_IF_STUCK
    control = _against_control(comparison, group)
    if control is not None and control.verdict != "higher":
        return ON_UNLESS_LONGER
    return ON


def _against_control(comparison: Comparison, group: Sequence[Comparison]) -> Difference | None:
    """The amplified loss minus the plain loss with a longer gradient; None without such runs."""
    control = Arm(f"scaled-{comparison.metric}")
    for each in group:
        if (each.before, each.after) == (control, comparison.after):
            return each.difference(primary(each.setting.dataset))
    return None
