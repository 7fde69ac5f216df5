"""Image folders in the layout of MVTec AD.

<root>/<category>/train/good/*.png
<root>/<category>/test/good/*.png, test/<defect>/*.png       optional
<root>/<category>/ground_truth/<defect>/<stem>_mask.png      optional, for some images or for all

With train/good alone, a share of its images is held out and takes the place of test/good.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from uad.data.base import GOOD, AnomalyData, BadFilesError, DataError, Preparation, Problem
from uad.data.fit import mask_to_square, placement, to_square
from uad.data.images import (
    Picture,
    full_scale_of,
    read_image,
    read_picture,
    to_tensor,
)
from uad.data.listing import Entry, Listed, category_folders, list_category
from uad.data.words import form, note, notices
from uad.distributed import process_rank

NAME = "folder"
DEFAULT_SIZE = 256
HOLD_OUT = 0.2
"""Fraction of train/good that is held out where there is no test/good."""
MASK_THRESHOLD = 127  # pixels with a higher gray level are defective

ADVICE = "\nmend or remove them, or pass --skip-bad to leave them out"

Item = TypeVar("Item")
Value = TypeVar("Value")


def load(
    *,
    root: Path,
    category: Sequence[str] | None,
    size: int | None,
    channels: int | None,
    fit: str = "stretch",
    bit_depth: int | None = None,
    skip_bad: bool = False,
    hold_out: float | None = None,
    seed: int = 0,
) -> AnomalyData:
    """Load the data set; see `uad.data.load`.

    Raises BadFilesError, which lists every file that cannot be used, unless `skip_bad`.
    """
    size = DEFAULT_SIZE if size is None else size
    folders = category_folders(root, category)
    listed = Listed()
    for folder in folders:
        list_category(folder, f"{folder.name}/" if len(folders) > 1 else "", listed)

    problems = read_all([*listed.train, *listed.test], size, fit, bit_depth)
    scale = full_scale([*listed.train, *listed.test], bit_depth, problems)
    masks, outside = read_masks(listed.test, size, fit, problems)
    _drop(listed, problems, skip_bad)

    held_out = _hold_out(listed, hold_out, seed)
    entries = [*listed.train, *listed.test]
    pictures = [_read(entry) for entry in entries]
    if channels is None:
        gray = all(each.deep or each.image.mode == "L" for each in pictures)
        channels = 1 if gray else 3
    preparation = Preparation(
        size,
        channels,
        fit,
        scale,
        eight_bit=any(not each.deep for each in pictures),
    )
    tensors = torch.stack([to_tensor(each.eight_bit(scale), channels) for each in pictures])
    annotation = _annotation(listed.test, masks, size)
    listed.notices += notices(pictures, preparation, bit_depth, outside)
    subject = ", ".join(folder.resolve().name for folder in folders)
    return AnomalyData(
        name=NAME,
        title=f"{subject}, {size}x{size} pixels",
        note=note(annotation),
        train=tensors[: len(listed.train)],
        test=tensors[len(listed.train) :],
        kinds=tuple(entry.kind for entry in listed.test),
        masks=None if annotation is None else annotation[0],
        preparation=preparation,
        files=tuple(entry.name for entry in listed.test),
        annotated=None if annotation is None else annotation[1],
        subject=subject,
        form=form(entries, pictures, preparation, str(listed.skipped)),
        notices=tuple(listed.notices),
        held_out=held_out,
    )


# --- reading ------------------------------------------------------------------------------------


def _in_parallel(
    function: Callable[[Item], Value], items: Sequence[Item], what: str
) -> list[Value]:
    """function(item) for all items, in threads: decoding releases Python's lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(function, items)
        hidden = True if process_rank() else None  # None hides the bar without a terminal
        return list(tqdm(results, desc=what, total=len(items), leave=False, disable=hidden))


def read_all(entries: Sequence[Entry], size: int, fit: str, bit_depth: int | None) -> list[Problem]:
    """Read the images of all entries into squares; return the files that cannot be used."""

    def read(entry: Entry) -> Problem | None:
        try:
            whole = read_picture(entry.path, bit_depth)
        except DataError as error:
            return Problem(entry.path, str(error).removeprefix(f"{entry.path}: "))
        entry.size = whole.image.size
        entry.picture = replace(whole, image=to_square(whole.image, size, fit))
        return None

    return [problem for problem in _in_parallel(read, entries, "reading") if problem]


def _read(entry: Entry) -> Picture:
    if entry.picture is None:
        raise ValueError(f"{entry.path} has not been read")
    return entry.picture


def full_scale(
    entries: Sequence[Entry], bit_depth: int | None, problems: list[Problem]
) -> float | None:
    """The full scale of the 16-bit and floating-point files; None if there are none.

    Files that exceed `bit_depth` are added to `problems`.
    """
    deep = [entry for entry in entries if entry.picture and entry.picture.deep]
    if not deep:
        upper = any(entry.picture.deep_color for entry in entries if entry.picture)
        return float(2**16 - 1) if upper else None  # known from --bit-depth 16
    floating = {_read(entry).floating for entry in deep}
    if len(floating) > 1:
        names = [next(e for e in deep if _read(e).floating is each).path for each in (True, False)]
        raise DataError(
            f"{names[0]} has floating-point pixels, {names[1]} integers: convert them to one kind"
        )
    if bit_depth is None:
        return full_scale_of(max(_read(entry).peak for entry in deep), floating == {True})
    scale = 2.0**bit_depth - 1
    beyond = [entry for entry in deep if _read(entry).peak > scale]
    reasons = [
        f"levels up to {_read(entry).peak:g} exceed {scale:g}, the maximum of {bit_depth} bits"
        for entry in beyond
    ]
    if len(beyond) > len(deep) / 2:  # then the option is wrong, and not the files
        raise DataError(
            f"--bit-depth {bit_depth} is too small for {len(beyond)} of {len(deep)} files, such as "
            f"{beyond[0].path}: {reasons[0]}"
        )
    problems += [Problem(entry.path, text) for entry, text in zip(beyond, reasons, strict=True)]
    return scale


def read_mask(
    path: Path, image_path: Path, image_size: tuple[int, int], size: int, fit: str = "stretch"
) -> Tensor:
    """bool (size, size), True wherever a defective pixel of the mask file falls.

    Raises DataError for a mask that does not fit its image.
    """
    mask = read_image(path).convert("L")
    if mask.size != image_size:
        raise DataError(
            f"{path}: the mask must have the size of its image {image_path}, "
            f"{image_size[0]}x{image_size[1]} pixels, got {mask.width}x{mask.height}"
        )
    levels = np.asarray(mask)
    if 0 < levels.max() <= MASK_THRESHOLD:
        raise DataError(
            f"{path}: defective pixels must have values above {MASK_THRESHOLD}, but the maximum "
            f"is {levels.max()}; use 0 and 255"
        )
    return torch.from_numpy(mask_to_square(levels > MASK_THRESHOLD, size, fit))


def read_masks(
    entries: Sequence[Entry], size: int, fit: str, problems: list[Problem]
) -> tuple[dict[str, Tensor], int]:
    """The masks of test images by name, and how many defects lie wholly outside the crop.

    Masks that cannot be used are added to `problems`.
    """
    wanted = [entry for entry in entries if entry.mask and entry.picture]

    def read(entry: Entry) -> Tensor | Problem:
        assert entry.mask is not None
        try:
            return read_mask(entry.mask, entry.path, entry.size, size, fit)
        except DataError as error:
            return Problem(entry.mask, str(error).removeprefix(f"{entry.mask}: "))

    masks, outside = {}, 0
    for entry, found in zip(wanted, _in_parallel(read, wanted, "reading masks"), strict=True):
        if isinstance(found, Problem):
            problems.append(found)
            continue
        masks[entry.name] = found
        cropped = placement(entry.size, size, fit).source != (0, 0, *entry.size)
        outside += cropped and not found.any()
    return masks, outside


# --- what is used -------------------------------------------------------------------------------


def _drop(listed: Listed, problems: Sequence[Problem], skip_bad: bool) -> None:
    """Leave out the files that cannot be used, or raise BadFilesError."""
    if not problems:
        return
    if not skip_bad:
        raise BadFilesError(problems, ADVICE if len(problems) > 1 else "")
    bad = {problem.path for problem in problems}
    masks = {entry.mask for entry in listed.test}
    for entry in listed.test:
        if entry.mask in bad:
            entry.mask = None
    listed.train = [entry for entry in listed.train if entry.path not in bad]
    listed.test = [entry for entry in listed.test if entry.path not in bad]
    for problem in problems:
        what = "the mask " if problem.path in masks else ""
        listed.notices.append(f"left out {what}{problem}")
    if not listed.train:
        raise BadFilesError(problems, "\nno training image is left")


def _hold_out(listed: Listed, share: float | None, seed: int) -> int:
    """Move a share of the training images to the test images where none of those is normal.

    Returns the number of images that were moved. Each category is looked at by itself.
    """
    tested = {entry.category for entry in listed.test if entry.kind == GOOD}
    missing = [
        name for name in dict.fromkeys(e.category for e in listed.train) if name not in tested
    ]
    if not missing and share is not None:
        listed.notices.append(
            f"--hold-out has no effect: there are normal test images in test/{GOOD}"
        )
    rng = np.random.default_rng(seed)
    held_out = []
    for category in missing:
        mine = [entry for entry in listed.train if entry.category == category]
        count = len(mine)
        if count < 2:
            raise DataError(
                f"{mine[0].path.parent}: contains one image, but without test/{GOOD} one has to be "
                "held out: add images"
            )
        number = min(count - 1, max(1, round((HOLD_OUT if share is None else share) * count)))
        chosen = set(rng.permutation(count)[:number].tolist())
        held_out += [entry for index, entry in enumerate(mine) if index in chosen]
        of = f"{mine[0].path.parents[2].name}/" if len(tested) + len(missing) > 1 else ""
        listed.notices.append(
            f"no normal images in {of}test/{GOOD}: {number} of the {count} in {of}train/{GOOD} are "
            "held out from training and take their place (--hold-out)"
        )
    names = {entry.name for entry in held_out}
    listed.train = [entry for entry in listed.train if entry.name not in names]
    listed.test = held_out + listed.test
    return len(held_out)


def _annotation(
    entries: Sequence[Entry], masks: dict[str, Tensor], size: int
) -> tuple[Tensor, Tensor] | None:
    """Masks (M, H, W) and which of them are known (M,); None if no defect has a mask."""
    if not masks:
        return None
    blank = torch.zeros(size, size, dtype=torch.bool)
    known = [entry.kind == GOOD or entry.name in masks for entry in entries]
    return torch.stack([masks.get(entry.name, blank) for entry in entries]), torch.tensor(known)
