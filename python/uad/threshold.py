"""The score above which an image is called anomalous, chosen from the scores of normal images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uad.options import DEFAULT_RATE as DEFAULT_RATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFIDENCE = 0.95

MARGIN = 1e-5
"""Relative distance of a threshold from the score that it admits. The same image scores differently
by some 1e-6 in another batch, on another device, or in an exported file."""


NORMAL, ANOMALOUS = "normal", "anomalous"


def decision(score: float, threshold: float) -> str:
    """ANOMALOUS if the score exceeds the threshold, NORMAL otherwise."""
    return ANOMALOUS if score > threshold else NORMAL


@dataclass(frozen=True)
class Threshold:
    """A threshold and what it promises."""

    value: float
    rate: float
    """False-positive rate: the expected fraction of new normal images above `value`. It is at most
    the rate asked for, unless there are too few normal images for that."""
    low: float
    """Limits of the 95% interval of the rate. The rate of one particular threshold depends on which
    normal images it was chosen from."""
    high: float
    count: int
    """Number of normal images."""
    asked: float

    @property
    def met(self) -> bool:
        """Whether there are enough normal images for the rate asked for."""
        return self.rate <= self.asked + 1e-9


def choose_threshold(normal_scores: Sequence[float] | NDArray[Any], rate: float) -> Threshold:
    """The lowest threshold that meets the false-positive rate, as in split conformal prediction.

    It is the k-th smallest of n scores, k = ceil((n + 1) (1 - rate)): a new normal image, drawn
    like those n, scores above it with probability 1 - k / (n + 1), on average over the choice of
    the n images. For one particular choice, the false-positive rate has the distribution
    Beta(n + 1 - k, k). If n is too small for the rate, k is n: the maximum of the scores.

    The threshold lies above that score by `MARGIN`, but at most halfway to the next higher score.
    It is a float32 number, as scores are, so a table with the digits of float32 decides the same.

    ValueError without scores, for a score that is not finite, or for a rate not between 0 and 1.
    """
    # Imported here because help texts use this module, and --help works without the extras.
    import numpy as np
    from scipy import stats

    if not 0 < rate < 1:
        raise ValueError(f"the false-positive rate must be between 0 and 1, got {rate:g}")
    scores = np.sort(np.asarray(normal_scores, dtype=np.float64))
    if not len(scores) or not np.isfinite(scores).all():
        raise ValueError("a threshold requires at least one normal image, with a finite score")
    count = len(scores)
    place = min(count, math.ceil((count + 1) * (1 - rate) - 1e-9))  # 1000 * (1 - 0.059) > 941
    spread = stats.beta(count + 1 - place, place)
    low, high = spread.interval(CONFIDENCE)
    admitted, higher = scores[place - 1], scores[scores > scores[place - 1]]
    value = np.float32(admitted + MARGIN * abs(admitted))
    if len(higher):
        value = min(value, np.float32((admitted + higher[0]) / 2))
        if not admitted <= value < higher[0]:  # rounded to one of two neighboring numbers
            value = np.float32(admitted)
    return Threshold(float(value), 1 - place / (count + 1), float(low), float(high), count, rate)


def normal_images(rate: float) -> int:
    """How many normal images a threshold with this false-positive rate requires."""
    return math.ceil(1 / rate - 1 - 1e-9)
