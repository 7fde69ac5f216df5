"""The images of a study, examined before any training."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uad.data import DataError, folder
from uad.data.listing import category_names
from uad.study.experiment import check_images, load_for
from uad.study.spec import RunSpec
from uad.training import effective_batch_size, smaller_batches


def categories(root: Path | None) -> list[str] | None:
    """The categories in an image folder; None without a folder.

    DataError if it cannot be read, or is itself a category.
    """
    if root is None:
        return None
    if not root.is_dir():
        raise DataError(f"--root {root}: no such folder")
    try:
        found = category_names(root)
    except OSError as error:
        raise DataError(f"--root {root}: cannot be read: {error.strerror or error}") from error
    if not found and (root / "train").is_dir():
        raise DataError(
            f"--root {root}: is a category itself; name the folder that contains it, and the "
            f"category {root.resolve().name!r} as normal_class"
        )
    return found


def examine(specs: Sequence[RunSpec], root: Path | None) -> None:
    """Load all images of these runs once, so that an error comes before any training.

    Prints what was found, and which batch sizes are too large for it. The classes of the other data
    sets come from the same files, so one of them stands for all.
    """
    groups: dict[tuple[Any, ...], list[RunSpec]] = {}
    for spec in specs:
        category = spec.normal_class if spec.dataset == folder.NAME else None
        images = (spec.dataset, category, spec.size, spec.fit, spec.bit_depth)
        groups.setdefault(images, []).append(spec)
    for group in groups.values():
        data = load_for(group[0], root)
        batch_sizes = dict.fromkeys(spec.batch_size for spec in group)
        smaller = (_smaller_batches(group[0], asked, len(data.train)) for asked in batch_sizes)
        for line in filter(None, (data.found, *data.notices, *smaller)):
            print(line, file=sys.stderr)
        for spec in group:
            check_images(spec, data)


def _smaller_batches(spec: RunSpec, asked: int, images: int) -> str:
    """A line if these images require smaller batches, otherwise ""."""
    used = effective_batch_size(images, asked)
    if used == asked:
        return ""
    name = spec.normal_class if spec.dataset == folder.NAME else spec.dataset
    return f"{name}: batch_size {smaller_batches(images, asked, used)}"
