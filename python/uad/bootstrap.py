"""Bootstrap confidence intervals that hold for few values too."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 10_000
CONFIDENCE = 0.95
LEAST_SIZE, LEAST_FREEDOM = 5, 6
"""Minimum size of each sample, and minimum degrees of freedom of all samples together. With fewer
values a bootstrap has too few different resamples."""


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
