"""Image data for anomaly detection: `load` returns any of the data sets in one form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from uad.data import fashion_mnist, folder, textures
from uad.data.base import GOOD, AnomalyData, DataError, to_unit

__all__ = ["GOOD", "NAMES", "AnomalyData", "DataError", "load", "to_unit"]

NAMES = (textures.NAME, fashion_mnist.NAME, folder.NAME)
MIN_SIZE = 16  # the smallest side that ConvAutoencoder takes


def load(
    name: str,
    *,
    root: Path | None = None,
    category: Sequence[str] | None = None,
    size: int | None = None,
    channels: int | None = None,
    seed: int = 0,
    normal_class: int = 0,
) -> AnomalyData:
    """Load the data set `name`, one of `NAMES`, into memory.

    root: where the files are; `folder` needs it, `fashion-mnist` may take it.
    category: names of the categories to pool; of `textures` and `folder` only.
    size: side of the square images in pixels; None means the data set's own default.
    channels: 1 or 3; None means what the data has.
    seed: decides the crops and the defects of `textures`; the other data are fixed files.
    normal_class: the class (0 to 9) of `fashion-mnist` that counts as normal.

    Raises DataError for an argument out of range and for every file that cannot be used.
    """
    if name not in NAMES:
        raise DataError(f"unknown data set {name!r}: choose one of {', '.join(NAMES)}")
    if size is not None and size < MIN_SIZE:
        raise DataError(f"size is {size}: it must be at least {MIN_SIZE} pixels")
    if channels not in (None, 1, 3):
        raise DataError(f"channels is {channels}: it must be 1 or 3")
    if category is not None and not category:
        raise DataError("category is empty: name at least one, or leave it out")
    if seed < 0:
        raise DataError(f"seed is {seed}: it must not be negative")
    if name == textures.NAME:
        if root is not None:
            raise DataError("textures come with scikit-image and take no root")
        return textures.load(category=category, size=size, channels=channels, seed=seed)
    if name == fashion_mnist.NAME:
        if category is not None:
            raise DataError("fashion-mnist has no categories: choose its normal class instead")
        return fashion_mnist.load(
            root=root, size=size, channels=channels, normal_class=normal_class
        )
    if root is None:
        raise DataError("folder needs a root (--root): a folder in the layout of MVTec AD")
    return folder.load(root=root, category=category, size=size, channels=channels)
