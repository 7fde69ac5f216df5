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
from scipy import stats

Result = dict[str, Any]
Measure = Callable[[Result], float | None]
"""Extracts a figure from a result; None if the result does not have it."""

RESAMPLES = 10_000
CONFIDENCE = 0.95
MANY_CLASSES = 5
LEAST_SIZE, LEAST_FREEDOM = 5, 6
"""Minimum size of each sample, and minimum degrees of freedom of all samples together. With fewer
values a bootstrap has too few different resamples."""

PAIRED_BY = (
    "dataset", "normal_class", "seed", "optimizer", "learning_rate", "epochs", "batch_size",
    "size", "width", "latent",
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
    def verdict(self) -> str:
        """Either "higher", "lower", or "open" if the interval contains 0 or is missing."""
        if self.low > 0:
            return "higher"
        return "lower" if self.high < 0 else "open"

    @property
    def classes_higher(self) -> tuple[int, int]:
        """The number of classes with a positive mean difference, and the number of classes."""
        means = [float(group.mean()) for group in by_class(self.pairs)]
        return sum(mean > 0 for mean in means), len(means)


def make_pairs(before: Sequence[Result], after: Sequence[Result], measure: Measure) -> list[Pair]:
    """Pair each run of `after` with its partner in `before`; leave out runs without a partner."""
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


def bootstrap_interval(samples: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """The 95% interval of the mean of the samples' means; NaN if there are too few values.

    A percentile bootstrap that resamples within each sample. With few values such intervals are
    too narrow: with ten, they contain the true value in 90% of all cases. So the confidence level
    is raised until the interval is as wide as a Student's t interval would be for normal values
    (the expanded percentile interval: T. Hesterberg, What teachers should know about the bootstrap,
    The American Statistician 69, 2015). Welch's degrees of freedom account for samples with
    different variances.
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
    """The mean of the samples' means; each sample counts the same, whatever its size."""
    means: NDArray[np.float64] = np.mean([sample.mean(axis=axis) for sample in samples], axis=0)
    return means
