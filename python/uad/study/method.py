"""How a study's figures came about, in sentences about the runs that it holds."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from uad.bootstrap import LEAST_FREEDOM, LEAST_SIZE
from uad.data import folder, textures
from uad.study.measures import primary, primary_score
from uad.study.questions import Comparison
from uad.study.setting import Setting
from uad.study.statistics import MANY_CLASSES, Difference, Result, by_class

SAME = (
    "Two runs form a pair if only the loss differs: same images, same initial weights, same "
    "batches in the same order, same number of steps. Every network is judged by the same scores, "
    "whatever its training loss."
)
PRIMARY = {
    "mse mean": 'the mean of its squared errors ("mse mean")',
    "mse top 1 %": 'the mean of the largest 1% of its smoothed squared errors ("mse top 1%")',
}
BOOTSTRAP = "The 95% interval is a percentile bootstrap, widened like Student's t for few values."
NEEDED = (
    f"at least {LEAST_SIZE} seeds per class (with one class, {LEAST_FREEDOM + 1}), or, from "
    f"{MANY_CLASSES} classes on, at least {LEAST_FREEDOM + 1} classes"
)
OF_TRAINING = (
    "The intervals cover chance in training, but not which parts happened to be photographed for "
    "the test."
)
CONTROL = (
    'The control, "scaled", is the plain loss times the mean slope of the amplified one. All '
    "elements count the same in that mean, while those with large errors contribute most to the "
    "gradient, so the control has only part of the effect of a larger learning rate."
)


def method(groups: Mapping[Setting, Sequence[Comparison]]) -> str:
    """A paragraph on pairs, averages, intervals and the control, as far as they occur."""
    compared = [each for group in groups.values() for each in group]
    differences = [
        found
        for each in compared
        if (found := each.difference(primary(each.setting.dataset))) is not None
    ]
    datasets = {setting.dataset for setting in groups}
    arms = {arm.loss for each in compared for arm in (each.before, each.after)}
    bounded = any(each.bounded for each in differences)
    sentences = [
        SAME,
        _primary(datasets),
        _classes(datasets),
        _average(differences),
        *_intervals(differences),
        OF_TRAINING if folder.NAME in datasets and bounded else "",
        CONTROL if any(loss.startswith("scaled-") for loss in arms) else "",
    ]
    return textwrap.fill(" ".join(filter(None, sentences)), 100) + "\n"


def _primary(datasets: Iterable[str]) -> str:
    """What the primary score of an image is."""
    scores = dict.fromkeys(map(primary_score, sorted(datasets)))
    return f"The primary score of an image is {' or '.join(PRIMARY[each] for each in scores)}."


def _classes(datasets: Iterable[str]) -> str:
    """What counts as a class where the word is not the data set's."""
    names = {textures.NAME: "texture", folder.NAME: "category"}
    found = [names[each] for each in sorted(datasets, reverse=True) if each in names]
    return f"Each {' and each '.join(found)} counts as a class." if found else ""


def _average(differences: Sequence[Difference]) -> str:
    groups = [by_class(each.pairs) for each in differences]
    seeds = any(len(group) > 1 for each in groups for group in each)
    classes = any(len(each) > 1 for each in groups)
    if seeds and classes:
        return "A difference is averaged over the seeds of each class, and then over the classes."
    if seeds or classes:
        return f"A difference is averaged over the {'seeds' if seeds else 'classes'}."
    return "Each comparison has a single pair of runs."


def _intervals(differences: Sequence[Difference]) -> list[str]:
    bounded = [each for each in differences if each.bounded]
    if not bounded:
        return [
            f"These pairs are too few for 95% intervals, which require {NEEDED}. Chance may "
            "explain any difference on this page."
        ]
    many = [len(by_class(each.pairs)) >= MANY_CLASSES for each in bounded]
    whole = "resamples whole classes, each with all its seeds"
    within = "resamples the seeds within each class"
    if all(many):
        said = [BOOTSTRAP, f"It {whole}."]
    elif not any(many):
        said = [BOOTSTRAP, f"It {within}, so it applies to these classes only."]
    else:
        said = [
            BOOTSTRAP,
            f"With {MANY_CLASSES} or more classes, it {whole}.",
            f"With fewer, it {within}, and then it applies to these classes only.",
        ]
    if len(bounded) < len(differences):
        said.append(
            f"An interval requires {NEEDED}. A difference without one may be due to chance."
        )
    chance = "One in twenty such intervals misses 0 even if the losses do not differ"
    if len(bounded) > 1:
        chance += f", so one of these {len(bounded)} that is close to 0 proves nothing"
    return [*said, f"{chance}."]


def made_of(results: Sequence[Result]) -> str:
    """A summary of the results in two sentences."""
    failed = Counter(
        f"{each['dataset']} {each['normal_class']} {each['loss']}"
        for each in results
        if "failed" in each
    )
    versions = sorted({result["torch"] for result in results})
    summary = (
        f"{plural(len(results), 'run')}, {duration(sum(each['seconds'] for each in results))} in "
        f"total, PyTorch {', '.join(versions)}. "
    )
    if not failed:
        return summary + "None diverged."
    listing = ", ".join(
        name if count == 1 else f"{name} ({count} runs)" for name, count in failed.items()
    )
    verb = "is" if failed.total() == 1 else "are"
    return summary + f"{failed.total()} of them diverged and {verb} left out: {listing}."


def duration(seconds: float) -> str:
    """In seconds up to two minutes, then in minutes."""
    return plural(round(seconds), "second") if seconds < 120 else f"{seconds / 60:.0f} minutes"


def plural(count: int, noun: str) -> str:
    """The count with the noun, such as "1 pair" and "2 pairs"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
