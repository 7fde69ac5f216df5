"""Whether a training loss has stopped falling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

NOTABLE_SLOPE = 0.01
"""Change of the loss per epoch that counts. At 1% per epoch, another 30 epochs, the default of
train.py, would still lower the loss by 1 - exp(-0.3) = 26%."""

LEAST_EPOCHS = 3
"""Fewest epochs that a slope is fitted to."""

ENOUGH_EPOCHS = 4 * LEAST_EPOCHS
"""From here on the last quarter of the epochs has `LEAST_EPOCHS`. In a shorter training, a flat
loss may just as well be the plateau on which many networks start."""


def trend(losses: Sequence[float]) -> float | None:
    """Relative change of the loss per epoch at the end of the training; negative if it falls.

    It is the least-squares slope of the logarithm of the loss over the last quarter of the epochs,
    at least `LEAST_EPOCHS`, converted to a relative change. None if there are fewer epochs, or if
    a loss is not positive.
    """
    count = epochs_used(len(losses))
    last = losses[-count:]
    if len(losses) < LEAST_EPOCHS or min(last) <= 0:
        return None
    slope, _ = np.polyfit(range(count), np.log(last), 1)
    return math.expm1(slope)


def epochs_used(count: int) -> int:
    """How many epochs at the end of `count` the slope is fitted to."""
    return max(LEAST_EPOCHS, math.ceil(count / 4))
