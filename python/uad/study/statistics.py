"""Paired differences between two losses, with an interval.

Two runs make a pair if they differ in nothing but the loss: the same images, the same first
weights, the same batches. Classes differ far more from one another than losses do, so all that is
said here is said of differences within pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Result = dict[str, Any]
Measure = Callable[[Result], float | None]
"""A figure of a result, None where it has none."""

RESAMPLES = 10_000
CONFIDENCE = 0.95
MANY_CLASSES = 5
LEAST_SIZE, LEAST_FREEDOM = 5, 6
"""Of a sample, and of all together: with less a bootstrap has too few different resamples."""

PAIRED_BY = (
    "dataset", "normal_class", "seed", "optimizer", "learning_rate", "epochs", "batch_size",
    "size", "width", "latent",
)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """A figure of two runs that differ in the loss alone."""

    normal_class: int | str
    seed: int
    before: float
    after: float
    stuck: bool = False
    """Whether one of the two has learnt nothing, see uad.study.stuck."""

    @property
    def difference(self) -> float:
        """After less before."""
        return self.after - self.before


@dataclass(frozen=True)
class Difference:
    """What pairs say together."""

    pairs: list[Pair]
    mean: float
    """Mean over the classes of each class's mean."""
    low: float
    high: float
    """The 95 % interval of the mean; NaN where there are too few pairs for one."""

    @property
    def verdict(self) -> str:
        """In one word: "higher", "lower", or "open" where the interval holds 0 or is missing."""
        if self.low > 0:
            return "higher"
        return "lower" if self.high < 0 else "open"

    @property
    def classes_higher(self) -> tuple[int, int]:
        """How many classes have a positive mean difference, and how many there are."""
        means = [float(group.mean()) for group in by_class(self.pairs)]
        return sum(mean > 0 for mean in means), len(means)


def make_pairs(before: Sequence[Result], after: Sequence[Result], measure: Measure) -> list[Pair]:
    """Each run of `after` with its partner in `before`; those without one are left out."""
    partners = {tuple(result[name] for name in PAIRED_BY): result for result in before}
    pairs = []
    for result in after:
        partner = partners.get(tuple(result[name] for name in PAIRED_BY))
        if partner is None:
            continue
        one, other = measure(partner), measure(result)
        if one is not None and other is not None:
            stuck = partner.get("stuck", False) or result.get("stuck", False)
            pairs.append(Pair(result["normal_class"], result["seed"], one, other, stuck))
    return sorted(pairs, key=lambda pair: (str(pair.normal_class), pair.seed))


def by_class(pairs: Sequence[Pair], figure: str = "difference") -> list[NDArray[np.float64]]:
    """This figure of the pairs, one array a class."""
    classes = dict.fromkeys(pair.normal_class for pair in pairs)
    return [
        np.array([getattr(pair, figure) for pair in pairs if pair.normal_class == each])
        for each in classes
    ]


def compare(pairs: Sequence[Pair]) -> Difference:
    """Mean difference of at least one pair, with its bootstrap interval.

    Of many classes, whole ones are drawn anew, each with all its seeds: the runs of a class
    resemble one another, and the question is about classes in general. A few, such as the three
    textures, are no sample of anything: then the interval is about these few, and seeds are drawn
    anew within each. (A seed is new first weights, and of textures new crops and defects too.)
    """
    groups = by_class(pairs)
    mean = float(np.mean([group.mean() for group in groups]))
    if len(groups) >= MANY_CLASSES:
        samples = [np.array([group.mean() for group in groups])]
    else:
        samples = groups
    return Difference(list(pairs), mean, *bootstrap_interval(samples))


def bootstrap_interval(samples: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """The 95 % interval of the mean of the samples' means; NaN where there are too few values.

    A percentile bootstrap, each sample drawn anew from itself. From few values its intervals are
    too narrow: of ten, they hold the truth in 90 % of all cases. So it is taken at the confidence
    at which it is as wide as Student's t would make it for normal values (the expanded percentile
    interval: T. Hesterberg, What teachers should know about the bootstrap, The American
    Statistician 69, 2015), with Welch's degrees of freedom for samples that spread differently.
    """
    size = min(len(sample) for sample in samples)
    freedom = sum(len(sample) - 1 for sample in samples)
    if size < LEAST_SIZE or freedom < LEAST_FREEDOM:
        return math.nan, math.nan
    variances = np.array([sample.var(ddof=1) / len(sample) for sample in samples])
    if variances.sum() > 0.0:
        weights = [len(sample) - 1 for sample in samples]
        freedom = variances.sum() ** 2 / (variances**2 / weights).sum()
    quantile = math.sqrt(size / (size - 1)) * stats.t.ppf((1 + CONFIDENCE) / 2, freedom)
    low, high = stats.bootstrap(
        samples,
        mean_of_means,
        n_resamples=RESAMPLES,
        confidence_level=1 - 2 * stats.norm.sf(quantile),
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(low), float(high)


def mean_of_means(*samples: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    """Each sample counts the same, however large it is."""
    means: NDArray[np.float64] = np.mean([sample.mean(axis=axis) for sample in samples], axis=0)
    return means
