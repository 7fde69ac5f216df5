"""The images of a study, examined before any training."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uad.data import DataError, folder
from uad.study.experiment import check_images, load_for
from uad.study.spec import RunSpec


def categories(root: Path | None) -> list[str] | None:
    """The categories in an image folder; None without a folder.

    DataError if it cannot be read, or is itself a category.
    """
    if root is None:
        return None
    try:
        found = [path.name for path in root.iterdir() if (path / "train").is_dir()]
    except OSError as error:
        raise DataError(f"--root {root}: cannot be read: {error.strerror or error}") from error
    if not found and (root / "train").is_dir():
        raise DataError(
            f"--root {root}: is a category itself; name the folder that contains it, and the "
            f"category {root.resolve().name!r} as normal_class"
        )
    return sorted(name for name in found if not name.startswith("."))


def examine(specs: Sequence[RunSpec], root: Path | None) -> None:
    """Load all images of these runs once, so that an error comes before any training.

    Prints what was found. The classes of the other data sets come from the same files, so one of
    them stands for all.
    """
    groups: dict[tuple[Any, ...], list[RunSpec]] = {}
    for spec in specs:
        category = spec.normal_class if spec.dataset == folder.NAME else None
        images = (spec.dataset, category, spec.size, spec.fit, spec.bit_depth)
        groups.setdefault(images, []).append(spec)
    for group in groups.values():
        data = load_for(group[0], root)
        print(data.found, flush=True)
        for notice in data.notices:
            print(notice, file=sys.stderr)
        for spec in group:
            check_images(spec, data)
