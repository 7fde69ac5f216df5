"""The answer that a study's pages begin with: should amplification be on for these images?"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from uad.data import folder
from uad.options import ONE_CLASS
from uad.study.measures import primary
from uad.study.method import plural
from uad.study.questions import Comparison
from uad.study.setting import Setting
from uad.study.statistics import Difference, by_class
from uad.study.tables import limits, signed

NOT_ASKED = (
    "These runs cannot tell whether amplification should be on: none of them compare an amplified "
    "loss with its plain loss."
)
NAMED_CLASSES = 4
"""Up to this many categories are named."""

MANY_INTERVALS = 20
"""With this many 95% intervals, one is expected to miss 0 even if no loss differs."""

CONFIRM = "Before you rely on a gain, repeat it with other seeds."


@dataclass(frozen=True)
class Answer:
    """What to do, the comparisons that are the reason, and what else to know; all plain text."""

    verdict: str
    reasons: Sequence[str] = ()
    more: str = ""

    def markdown(self) -> str:
        """Paragraphs in Markdown."""
        reasons = "".join(f"- {reason}\n" for reason in self.reasons)
        paragraphs = (textwrap.fill(text, 100) + "\n" for text in (self.verdict, self.more) if text)
        first, *rest = paragraphs
        return "\n".join(filter(None, [first, reasons, *rest]))

    def html(self) -> str:
        """A box with the verdict, and a paragraph below it."""
        items = "".join(f"<li>{escape(reason)}</li>" for reason in self.reasons)
        listing = f"<ul>{items}</ul>" if items else ""
        more = f"<p>{escape(self.more)}</p>\n" if self.more else ""
        return f'<div class="verdict"><p>{escape(self.verdict)}</p>{listing}</div>\n{more}'


@dataclass(frozen=True)
class Finding:
    """An amplified against the plain loss, by the primary figure."""

    comparison: Comparison
    difference: Difference
    place: str
    """The setting, if there are several."""

    @property
    def verdict(self) -> str:
        """That of the difference, or "few" if there are too few pairs for one."""
        if self.comparison.identical or self.difference.bounded:
            return self.difference.verdict
        return "few"

    def __str__(self) -> str:
        found, name = self.difference, str(self.comparison.after).removeprefix("amplified ")
        rest = self.comparison.without_stuck(primary(self.comparison.setting.dataset))
        without = "; without runs that learned nothing, {} ({})"
        stuck = without.format(signed(rest.mean), limits(rest)) if rest else ""
        if found.all_stuck:
            stuck = "; every pair has a run that learned nothing"
        verdict = {"higher": "better", "lower": "worse"}[self.verdict]
        said = f"{signed(found.mean)} in image AUROC (95% interval {limits(found)}){stuck}"
        return f"{name}{self.place}: {verdict}, {said}."


def answer(groups: Mapping[Setting, Sequence[Comparison]]) -> Answer:
    """For readers who want to decide."""
    findings = _findings(groups)
    if not findings:
        return Answer(NOT_ASKED)
    by = {
        verdict: [each for each in findings if each.verdict == verdict]
        for verdict in ("higher", "lower", "open", "few")
    }
    question = f"Should you switch amplification on for {_subject(groups)}?"
    reasons = [*by["higher"], *by["lower"]]
    more = [_others(by["open"]) if reasons else ""]
    if len(by["few"]) < len(findings):
        more.append(_few(by["few"]))
    more += [_chance(findings), CONFIRM if by["higher"] else "", _meaning(findings)]
    verdict = f"{question} {_verdict(by)}"
    return Answer(verdict, list(map(str, reasons)), " ".join(filter(None, more)))


def _findings(groups: Mapping[Setting, Sequence[Comparison]]) -> list[Finding]:
    """Amplified against plain losses: with the defaults, or else with any options."""
    compared = [each for group in groups.values() for each in group]
    main = [each for each in compared if each.main]
    chosen = main or [each for each in compared if _switches_on(each)]
    found = ((each, each.difference(primary(each.setting.dataset))) for each in chosen)
    place = " ({})" if len({each.setting for each in chosen}) > 1 else ""
    return [
        Finding(each, difference, place.format(each.setting))
        for each, difference in found
        if difference is not None
    ]


def _switches_on(comparison: Comparison) -> bool:
    metric = comparison.metric
    return (comparison.before.loss, comparison.after.loss) == (metric, f"amplified-{metric}")


def _subject(groups: Mapping[Setting, Sequence[Comparison]]) -> str:
    """The categories, unless they are many or the images are not the reader's."""
    names = {
        str(run["normal_class"])
        for group in groups.values()
        for each in group
        for run in each.runs_after
    }
    if {setting.dataset for setting in groups} != {folder.NAME} or len(names) > NAMED_CLASSES:
        return "these images"
    *others, last = sorted(names)
    return f"{', '.join(others)} and {last}" if others else last


def _verdict(by: Mapping[str, Sequence[Finding]]) -> str:
    if by["higher"] and by["lower"]:
        return "It depends:"
    if by["higher"]:
        return "Yes, with this loss:" if len(by["higher"]) == 1 else "Yes, with these losses:"
    if by["lower"]:
        return "No:"
    if by["open"]:
        return f"These runs give no reason to: {_no_difference(by['open'])}"
    return (
        "Not known yet: with so few runs, chance may explain any difference between the amplified "
        f"and the plain losses (in image AUROC, {_range(by['few'])}). Add seeds to the grid; the "
        "text below says how many."
    )


def _no_difference(found: Sequence[Finding]) -> str:
    if all(each.comparison.identical for each in found):
        return "the runs are identical with and without it."
    which = f"in all {len(found)} comparisons" if len(found) > 1 else "in the only comparison"
    return (
        f"{which} of an amplified loss with the plain one, chance may explain the difference in "
        f"image AUROC ({_range(found)}). Stay with the plain loss, or add seeds to the grid to "
        "narrow the intervals."
    )


def _range(found: Sequence[Finding]) -> str:
    """The differences and their intervals in short."""
    means = [each.difference.mean for each in found]
    bounded = [each.difference for each in found if each.difference.bounded]
    said = signed(min(means))
    if len(found) > 1:
        said += f" to {signed(max(means))}"
    if not bounded:
        return said
    low, high = min(each.low for each in bounded), max(each.high for each in bounded)
    reach = "95% intervals within" if len(bounded) > 1 else "95% interval"
    return f"{said}; {reach} {signed(low)} to {signed(high)}"


def _others(found: Sequence[Finding]) -> str:
    if not found:
        return ""
    return f"In {plural(len(found), 'other comparison')}, no difference is shown."


def _few(found: Sequence[Finding]) -> str:
    if not found:
        return ""
    return f"In {plural(len(found), 'more comparison')}, there are too few pairs to tell."


def _chance(findings: Sequence[Finding]) -> str:
    count = sum(each.difference.bounded for each in findings)
    if count < MANY_INTERVALS:
        return ""
    chance = count / MANY_INTERVALS
    return f"Even if no loss differed, about {chance:.0f} of {count} such intervals would miss 0."


def _meaning(findings: Sequence[Finding]) -> str:
    """What image AUROC is, and how well the networks detect at all."""
    means = [
        float(np.mean([values.mean() for values in by_class(each.difference.pairs, side)]))
        for each in findings
        for side in ("before", "after")
    ]
    classes = any(each.comparison.setting.dataset in ONE_CLASS for each in findings)
    bad, good = ("anomalous", "normal") if classes else ("defective", "good")
    low, high = f"{min(means):.2f}", f"{max(means):.2f}"
    reached = f"{low} to {high}" if low != high else low
    return (
        f"Image AUROC is the probability that a {bad} image scores higher than a {good} one "
        f"(0.5 is guessing, 1 is perfect); these networks reach {reached}."
    ).replace("a anomalous", "an anomalous")
