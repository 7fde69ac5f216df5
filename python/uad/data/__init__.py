"""Image data for anomaly detection: `load` returns every data set in the same form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uad.data import fashion_mnist, folder, textures
from uad.data.base import (
    GOOD,
    AnomalyData,
    BadFilesError,
    DataError,
    Preparation,
    Problem,
    fingerprint,
    to_unit,
)

__all__ = [
    "GOOD",
    "NAMES",
    "AnomalyData",
    "BadFilesError",
    "DataError",
    "Preparation",
    "Problem",
    "fingerprint",
    "load",
    "load_from_config",
    "to_unit",
]

NAMES = (textures.NAME, fashion_mnist.NAME, folder.NAME)
MIN_SIZE = 16  # the smallest side that ConvAutoencoder supports


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

    root: folder with the files; required for `folder`, optional for `fashion-mnist`.
    category: names of the categories to pool; for `textures` and `folder` only.
    size: side of the square images in pixels; None means the data set's default.
    channels: 1 or 3; None means as in the images.
    seed: determines the crops and defects of `textures`; the other data sets are fixed files.
    normal_class: the class (0 to 9) of `fashion-mnist` that counts as normal.

    Raises DataError for an argument out of range and for every file that cannot be used.
    """
    if name not in NAMES:
        raise DataError(f"name must be one of {', '.join(NAMES)}; got {name!r}")
    if size is not None and size < MIN_SIZE:
        raise DataError(f"size must be at least {MIN_SIZE} pixels, got {size}")
    if channels not in (None, 1, 3):
        raise DataError(f"channels must be 1 or 3, got {channels}")
    if category is not None and not category:
        raise DataError(
            "category must name at least one category, or be left out; got an empty list"
        )
    if seed < 0:
        raise DataError(f"seed must be 0 or more, got {seed}")
    if name == textures.NAME:
        if root is not None:
            raise DataError("textures are part of scikit-image: leave out root (--root)")
        return textures.load(category=category, size=size, channels=channels, seed=seed)
    if name == fashion_mnist.NAME:
        if category is not None:
            raise DataError(
                "fashion-mnist has no categories: use normal_class (--normal-class) instead"
            )
        return fashion_mnist.load(
            root=root, size=size, channels=channels, normal_class=normal_class
        )
    if root is None:
        raise DataError("folder requires root (--root), a folder in the layout of MVTec AD")
    return folder.load(root=root, category=category, size=size, channels=channels)


def load_from_config(config: Mapping[str, Any]) -> AnomalyData:
    """Load the images of a run of train.py, given the "config" of its metrics.json.

    Raises DataError like `load`.
    """
    return load(
        config["data"],
        root=None if config["root"] is None else Path(config["root"]),
        category=config["category"],
        size=config["size"],
        channels=config["channels"],
        seed=config["seed"],
        normal_class=config["normal_class"] or 0,
    )
