"""Paired differences between two losses, with confidence intervals.

Two runs form a pair if only the loss differs: same images, same initial weights, same batches.
Classes differ from one another far more than losses do, so all statements are about differences
within pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uad.bootstrap import bootstrap_interval

Result = dict[str, Any]
Measure = Callable[[Result], float | None]
"""Extracts a figure from a result; None if the result does not have it."""

MANY_CLASSES = 5
"""With at least this many classes, intervals resample classes rather than seeds."""

PAIRED_BY = (
    "dataset", "normal_class", "seed", "optimizer", "learning_rate", "epochs", "batch_size",
    "size", "width", "latent", "fit", "bit_depth", "inpaint", "inpaint_loss",
)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """The values of one figure for two runs that differ only in the loss."""

    normal_class: int | str
    seed: int
    before: float
    after: float
    stuck: bool = False
    """Whether at least one of the two runs learned nothing; see uad.study.stuck."""

    @property
    def difference(self) -> float:
        """`after` minus `before`."""
        return self.after - self.before


@dataclass(frozen=True)
class Difference:
    """The mean difference of several pairs, with its interval."""

    pairs: list[Pair]
    mean: float
    """Mean over the classes of each class's mean."""
    low: float
    high: float
    """The 95% interval of the mean; NaN if there are too few pairs for one."""

    @property
    def bounded(self) -> bool:
        """Whether there are enough pairs for an interval."""
        return not math.isnan(self.low)

    @property
    def verdict(self) -> str:
        """Either "higher", "lower", or "open" if the interval contains 0 or is missing."""
        if self.low > 0:
            return "higher"
        return "lower" if self.high < 0 else "open"

    @property
    def all_stuck(self) -> bool:
        """Whether every pair has a stuck run, so that nothing is left without them."""
        return all(pair.stuck for pair in self.pairs)

    @property
    def classes_higher(self) -> tuple[int, int]:
        """The number of classes with a positive mean difference, and the number of classes."""
        means = [float(group.mean()) for group in by_class(self.pairs)]
        return sum(mean > 0 for mean in means), len(means)


def make_pairs(before: Sequence[Result], after: Sequence[Result], measure: Measure) -> list[Pair]:
    """Pair each run of `after` with its partner in `before`; leave out runs without a partner."""
    partners = {_paired_by(result): result for result in before}
    pairs = []
    for result in after:
        partner = partners.get(_paired_by(result))
        if partner is None:
            continue
        one, other = measure(partner), measure(result)
        if one is not None and other is not None:
            stuck = partner.get("stuck", False) or result.get("stuck", False)
            pairs.append(Pair(result["normal_class"], result["seed"], one, other, stuck))
    return sorted(pairs, key=lambda pair: (str(pair.normal_class), pair.seed))


def _paired_by(result: Result) -> tuple[Any, ...]:
    """Equal for runs that form a pair. A line has an effective batch size only if it was reduced,
    which earlier versions did not do.
    """
    return (*(result[name] for name in PAIRED_BY), result.get("effective_batch_size"))


def by_class(pairs: Sequence[Pair], figure: str = "difference") -> list[NDArray[np.float64]]:
    """An attribute of the pairs, "difference", "before" or "after", as one array per class."""
    classes = dict.fromkeys(pair.normal_class for pair in pairs)
    return [
        np.array([getattr(pair, figure) for pair in pairs if pair.normal_class == each])
        for each in classes
    ]


def compare(pairs: Sequence[Pair]) -> Difference:
    """The mean difference of at least one pair, with its bootstrap interval.

    With many classes, whole classes are resampled, each with all its seeds: runs of the same class
    are similar, and the question is about classes in general. A few classes, such as the three
    textures, are not a sample of anything: then seeds are resampled within each class, and the
    interval is about these classes only. (A seed determines the initial weights, and for textures
    also the crops and defects.)
    """
    groups = by_class(pairs)
    mean = float(np.mean([group.mean() for group in groups]))
    if len(groups) >= MANY_CLASSES:
        samples = [np.array([group.mean() for group in groups])]
    else:
        samples = groups
    return Difference(list(pairs), mean, *bootstrap_interval(samples))
