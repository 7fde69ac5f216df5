"""Which images are in which batch, and how many are in each."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

MAX_DROPPED = 0.25
"""Fraction of the training images that may drop out of every epoch with the last batch."""


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """Indices of the images in each complete batch; they depend on the seed and epoch only.

    Images left over at the end are skipped; the next epoch has a different order.
    """
    order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(count))
    return list(torch.split(order[: count - count % batch_size], batch_size))


def effective_batch_size(images: int, asked: int, processes: int = 1) -> int:
    """The batch size asked for, or a smaller one if that would waste too many images.

    An incomplete last batch is dropped from every epoch. If more than `MAX_DROPPED` of the images
    would drop out, they are spread evenly over as many batches as the size asked for requires,
    counting the incomplete one. The result is a multiple of the number of processes, 0 if there
    are fewer images than processes.
    """
    if asked <= images and images % asked <= MAX_DROPPED * images:
        return asked
    batches = math.ceil(images / asked)
    return images // batches // processes * processes


def smaller_batches(images: int, asked: int, used: int) -> str:
    """Why the effective batch size `used` is smaller than the one asked for."""
    dropped = images % asked
    reason = (
        f"would drop {dropped} of the {images} training images from every epoch"
        if asked <= images
        else f"is larger than the training set of {images} images"
    )
    return f"{asked} {reason}: using {used}"
