"""What a study found, in words: a sentence for each comparison."""

from __future__ import annotations

from collections.abc import Sequence

from uad.batches import MAX_DROPPED
from uad.study.measures import primary
from uad.study.method import plural
from uad.study.questions import Comparison, Contrast
from uad.study.setting import Setting
from uad.study.statistics import Difference
from uad.study.tables import interval, limits, signed


def sentence(comparison: Comparison, found: Difference) -> str:
    """A comparison in words, with its interval if it has one."""
    count, of = found.classes_higher
    names = f"{comparison.after} against {comparison.before}"
    if comparison.identical:
        return f"{names}: {comparison.identical} ({plural(len(found.pairs), 'pair')})."
    where = f"{plural(len(found.pairs), 'pair')}, higher in {count} of {classes(of)}"
    if not found.bounded:
        return f"{names}: {signed(found.mean)} ({where})."
    verdicts = {
        "higher": "better",
        "lower": "worse",
        "open": "no difference shown",
    }
    return f"{names}: {verdicts[found.verdict]}, {signed(found.mean)} ({interval(found)}; {where})."


def sentences(group: Sequence[Comparison]) -> list[str]:
    """All comparisons in a setting in words."""
    said = []
    for comparison in group:
        measure = primary(comparison.setting.dataset)
        found, rest = comparison.difference(measure), comparison.without_stuck(measure)
        if found:
            said.append(sentence(comparison, found))
        if found and found.all_stuck:
            said[-1] += " Every pair has a stuck run."
        if rest:
            said[-1] += f" Without stuck runs: {signed(rest.mean)} ({limits(rest)})."
    return said


def contrast_sentence(contrast: Contrast) -> str:
    """How much more amplification changes with the wide code, in words."""
    measure = primary(contrast.wide.setting.dataset)
    found, rest = contrast.difference(measure), contrast.without_stuck(measure)
    if found is None:
        raise ValueError(f"{contrast}: has no pairs")
    verdicts = {"higher": "does more, ", "lower": "does less, ", "open": "no difference shown, "}
    verdict = verdicts[found.verdict] if found.bounded else ""
    said = f"{contrast}: {verdict}{_with_interval(found)}."
    return said + (f" Without stuck runs: {_with_interval(rest)}." if rest else "")


def _with_interval(found: Difference) -> str:
    pairs = plural(len(found.pairs), "pair")
    if not found.bounded:
        return f"{signed(found.mean)} ({pairs})"
    return f"{signed(found.mean)} ({interval(found)}; {pairs})"


def classes(count: int) -> str:
    """The number of classes in words."""
    return "1 class" if count == 1 else f"{count} classes"


def describe(setting: Setting, group: Sequence[Comparison]) -> str:
    """How the runs in a setting were made."""
    runs = [run for each in group for run in (*each.runs_before, *each.runs_after)]
    used = sorted({run["effective_batch_size"] for run in runs if "effective_batch_size" in run})
    reduced = (
        f" (reduced to {' or '.join(map(str, used))} where more than {MAX_DROPPED:.0%} of the "
        "training images would be left out of every epoch)"
        if used
        else ""
    )
    return (
        f"Network of width {setting.width} with {setting.latent} channels in its code, "
        f"{setting.epochs} epochs, batch size {setting.batch_size}{reduced}."
    )
