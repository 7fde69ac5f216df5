"""Image data for anomaly detection: `load` returns every data set in the same form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from uad.data import fashion_mnist, folder, mnist, textures
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
from uad.options import BIT_DEPTHS, FITS, ONE_CLASS

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

NAMES = (textures.NAME, fashion_mnist.NAME, mnist.NAME, folder.NAME)
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
    fit: str = FITS[0],
    bit_depth: int | None = None,
    skip_bad: bool = False,
    hold_out: float | None = None,
) -> AnomalyData:
    """Load the data set `name`, one of `NAMES`, into memory.

    root: folder with the files; required for `folder`, optional for `fashion-mnist`.
    category: names of the categories to pool; for `textures` and `folder` only.
    size: side of the square images in pixels; None means the data set's default.
    channels: 1 or 3; None means as in the images.
    seed: determines the crops and defects of `textures`; the other data sets are fixed files.
    normal_class: the class (0 to 9) of `fashion-mnist` or `mnist` that counts as normal.

    For `folder` only:
    fit: how an image becomes square: "stretch", "pad" or "crop"; see `uad.data.fit`.
    bit_depth: bits of the pixels in 16-bit files, 8 to 16; None takes them from the highest level.
    skip_bad: leave out files that cannot be used, with a notice for each.
    hold_out: fraction of the training images to test with if the folder has no normal test images;
        None for 0.2. `seed` determines which.

    Raises DataError for an argument out of range, and BadFilesError, which lists all files that
    cannot be used.
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
    if fit not in FITS:
        raise DataError(f"fit must be one of {', '.join(FITS)}; got {fit!r}")
    if bit_depth is not None and bit_depth not in BIT_DEPTHS:
        raise DataError(f"bit_depth must be from 8 to 16, got {bit_depth}")
    if hold_out is not None and not 0 < hold_out < 1:
        raise DataError(f"hold_out must be between 0 and 1, got {hold_out}")
    given = {
        "fit": fit != FITS[0],
        "bit_depth": bit_depth,
        "skip_bad": skip_bad,
        "hold_out": hold_out,
    }
    for option, value in given.items():
        if value and name != folder.NAME:
            flag = "--" + option.replace("_", "-")
            raise DataError(f"{option} ({flag}) requires the data set folder, got {name}")
    if name == textures.NAME:
        if root is not None:
            raise DataError("textures are part of scikit-image: leave out root (--root)")
        return _complete(textures.load(category=category, size=size, channels=channels, seed=seed))
    if name in ONE_CLASS and category is not None:
        raise DataError(f"{name} has no categories: use normal_class (--normal-class) instead")
    if name == mnist.NAME:
        if root is not None:
            raise DataError(f"mnist is part of {mnist.PACKAGE}: leave out root (--root)")
        return _complete(mnist.load(size=size, channels=channels, normal_class=normal_class))
    if name == fashion_mnist.NAME:
        return _complete(
            fashion_mnist.load(root=root, size=size, channels=channels, normal_class=normal_class)
        )
    if root is None:
        raise DataError("folder requires root (--root), a folder in the layout of MVTec AD")
    return _complete(
        folder.load(
            root=root,
            category=category,
            size=size,
            channels=channels,
            fit=fit,
            bit_depth=bit_depth,
            skip_bad=skip_bad,
            hold_out=hold_out,
            seed=seed,
        )
    )


def _complete(data: AnomalyData) -> AnomalyData:
    """`data` with names, fingerprints, and a notice if test images were trained on."""
    fingerprints = tuple(map(fingerprint, data.train))
    files = data.files or _numbered(data.kinds)
    annotated = data.annotated
    if annotated is None and data.masks is not None:
        annotated = torch.ones(len(data.kinds), dtype=torch.bool)
    known = set(fingerprints)
    both = [
        name for name, image in zip(files, data.test, strict=True) if fingerprint(image) in known
    ]
    notices = data.notices
    if both:
        more = f" and {len(both) - 1} more" if len(both) > 1 else ""
        notices += (
            f"WARNING: {len(both)} of {len(files)} test images are equal to training images "
            f"({both[0]}{more}): their scores say nothing about new images",
        )
    return replace(
        data, files=files, annotated=annotated, fingerprints=fingerprints, notices=notices
    )


def _numbered(kinds: Sequence[str]) -> tuple[str, ...]:
    """Names for images that are not files, such as "good/0007"."""
    counts: Counter[str] = Counter()
    names = []
    for kind in kinds:
        names.append(f"{kind}/{counts[kind]:04}")
        counts[kind] += 1
    return tuple(names)


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
        # Runs of earlier versions lack these.
        fit=config.get("fit", FITS[0]),
        bit_depth=config.get("bit_depth"),
        skip_bad=config.get("skip_bad", False),
        hold_out=config.get("hold_out"),
    )
