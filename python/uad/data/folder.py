"""Image folders in the layout of MVTec AD.

<root>/<category>/train/good/*.png
<root>/<category>/test/good/*.png, test/<defect>/*.png       optional
<root>/<category>/ground_truth/<defect>/<stem>_mask.png      optional, for some images or for all

With train/good alone, a share of its images is held out and takes the place of test/good.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from uad.data.base import GOOD, AnomalyData, BadFilesError, DataError, Preparation, Problem
from uad.data.fit import mask_to_square, placement, to_square
from uad.data.images import (
    SUFFIXES,
    Picture,
    Skipped,
    depth_name,
    full_scale_of,
    images_in,
    is_hidden,
    read_image,
    read_picture,
    sizes_in_words,
    to_tensor,
)

NAME = "folder"
DEFAULT_SIZE = 256
HOLD_OUT = 0.2
"""Fraction of train/good that is held out where there is no test/good."""
MASK_THRESHOLD = 127  # pixels with a higher gray level are defective

ADVICE = "\nmend or remove them, or pass --skip-bad to leave them out"

Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass
class Entry:
    """An image file of the data set."""

    path: Path
    name: str
    """Unique in the data set, such as "dent/003.png"."""
    kind: str
    mask: Path | None = None
    picture: Picture | None = None
    """The image in its square, once it has been read."""
    size: tuple[int, int] = (0, 0)
    """Width and height of the file's image."""


@dataclass
class Listed:
    """The files of a data set, before any is opened."""

    train: list[Entry] = field(default_factory=list)
    test: list[Entry] = field(default_factory=list)
    skipped: Skipped = field(default_factory=Skipped)
    notices: list[str] = field(default_factory=list)


def load(
    *,
    root: Path,
    category: Sequence[str] | None,
    size: int | None,
    channels: int | None,
    fit: str = "stretch",
    bit_depth: int | None = None,
    skip_bad: bool = False,
    hold_out: float = HOLD_OUT,
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
    listed.notices += _notices(pictures, preparation, bit_depth, outside)
    subject = ", ".join(folder.resolve().name for folder in folders)
    return AnomalyData(
        name=NAME,
        title=f"{subject}, {size}x{size} pixels",
        note=_note(annotation),
        train=tensors[: len(listed.train)],
        test=tensors[len(listed.train) :],
        kinds=tuple(entry.kind for entry in listed.test),
        masks=None if annotation is None else annotation[0],
        preparation=preparation,
        files=tuple(entry.name for entry in listed.test),
        annotated=None if annotation is None else annotation[1],
        subject=subject,
        form=_form(entries, pictures, preparation, str(listed.skipped)),
        notices=tuple(listed.notices),
        held_out=held_out,
    )


# --- listing ------------------------------------------------------------------------------------


def category_folders(root: Path, category: Sequence[str] | None) -> list[Path]:
    """The folders of the categories; the root itself without `category`."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    names = [path.name for path in _subfolders(root) if (path / "train").is_dir()]
    if category is None:
        if not (root / "train").is_dir():
            raise DataError(f"{root}: does not contain train/good{_advice(root, names)}")
        return [root]
    for unknown in (name for name in category if name not in names):
        choices = f"choose from {', '.join(names)}" if names else "no folder contains train/good"
        raise DataError(f"{root / unknown}: no such category; {choices}")
    return [root / name for name in dict.fromkeys(category)]


def _advice(root: Path, categories: Sequence[str]) -> str:
    if categories:
        return f"; choose a category: {', '.join(categories)}"
    if images_in(root, Skipped()):
        return f"; move images of good parts to {root / 'train' / GOOD}"
    return ""


def _subfolders(folder: Path) -> list[Path]:
    """The visible folders in a folder, in alphabetical order."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def list_category(folder: Path, prefix: str, listed: Listed) -> None:
    """Add the files of a category. prefix: what the names of its images begin with."""
    train, test = folder / "train", folder / "test"
    for path in _images(train / GOOD, listed.skipped):
        listed.train.append(Entry(path, f"{prefix}train/{GOOD}/{path.name}", GOOD))
    for other in _subfolders(train):
        if other.name != GOOD:
            listed.notices.append(f"{other} is not used: training uses {train / GOOD} only")
    masks = _Masks(folder / "ground_truth")
    hidden = [path for path in test.iterdir() if is_hidden(path.name)] if test.is_dir() else []
    listed.skipped.hidden_folders += sum(path.is_dir() for path in hidden)
    for kind in sorted(_subfolders(test), key=lambda path: (path.name != GOOD, path.name)):
        if kind.name == GOOD and not images_in(kind, Skipped()):
            continue  # as if there were no test/good
        for path in _images(kind, listed.skipped):
            mask = None if kind.name == GOOD else masks.take(kind.name, path)
            name = f"{prefix}{kind.name}/{path.name}"
            listed.test.append(Entry(path, name, kind.name, mask))
    listed.notices += masks.notices()


def _images(folder: Path, skipped: Skipped) -> list[Path]:
    found = images_in(folder, skipped)
    if not found:
        raise DataError(f"{folder}: contains no images ({', '.join(SUFFIXES)})")
    return found


class _Masks:
    """The mask files of a category, found by the names of their images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = {
            kind.name: {path.name: path for path in images_in(kind, Skipped())}
            for kind in _subfolders(folder)
            if kind.name != GOOD
        }
        self.used: set[Path] = set()

    def take(self, kind: str, image: Path) -> Path | None:
        """The mask of an image: <stem>_mask, or <stem>, with the suffix of any image format."""
        of_kind = self.files.get(kind, {})
        for stem in (f"{image.stem}_mask", image.stem):
            for name in of_kind:
                if Path(name).stem == stem:
                    self.used.add(of_kind[name])  # two images that differ in suffix share a mask
                    return of_kind[name]
        return None

    def notices(self) -> list[str]:
        """A line if masks belong to no image, which is often a misspelt name."""
        rest = [
            path
            for files in self.files.values()
            for path in files.values()
            if path not in self.used
        ]
        if not rest:
            return []
        more = f" and {len(rest) - 1} more" if len(rest) > 1 else ""
        return [f"{rest[0]}{more}: the mask of no test image"]


# --- reading ------------------------------------------------------------------------------------


def _in_parallel(
    function: Callable[[Item], Value], items: Sequence[Item], what: str
) -> list[Value]:
    """function(item) for all items, in threads: decoding releases Python's lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(function, items)
        return list(tqdm(results, desc=what, total=len(items), leave=False, disable=None))


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
        return None
    floating = {_read(entry).floating for entry in deep}
    if len(floating) > 1:
        names = [next(e for e in deep if _read(e).floating is each).path for each in (True, False)]
        raise DataError(
            f"{names[0]} has floating-point pixels, {names[1]} integers: convert them to one kind"
        )
    if bit_depth is None:
        return full_scale_of(max(_read(entry).peak for entry in deep), floating == {True})
    scale = 2.0**bit_depth - 1
    for entry in deep:
        peak = _read(entry).peak
        if peak > scale:
            reason = f"levels up to {peak:g} exceed {scale:g}, the maximum of {bit_depth} bits"
            problems.append(Problem(entry.path, reason))
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
    for entry in listed.test:
        if entry.mask in bad:
            entry.mask = None
    listed.train = [entry for entry in listed.train if entry.path not in bad]
    listed.test = [entry for entry in listed.test if entry.path not in bad]
    listed.notices += [f"left out {problem}" for problem in problems]
    if not listed.train:
        raise BadFilesError(problems, "\nno training image is left")


def _hold_out(listed: Listed, share: float, seed: int) -> int:
    """Move a share of the training images to the test images if none of those is normal."""
    if any(entry.kind == GOOD for entry in listed.test):
        return 0
    count = len(listed.train)
    if count < 2:
        raise DataError(
            f"{listed.train[0].path.parent}: contains one image, but without test/{GOOD} one has "
            "to be held out: add images"
        )
    number = min(count - 1, max(1, round(share * count)))
    chosen = set(np.random.default_rng(seed).permutation(count)[:number].tolist())
    held_out = [entry for index, entry in enumerate(listed.train) if index in chosen]
    listed.train = [entry for index, entry in enumerate(listed.train) if index not in chosen]
    listed.test = held_out + listed.test
    listed.notices.append(
        f"no normal images in test/{GOOD}: {number} of the {count} in train/{GOOD} are held out "
        "from training and take their place (--hold-out)"
    )
    return number


def _annotation(
    entries: Sequence[Entry], masks: dict[str, Tensor], size: int
) -> tuple[Tensor, Tensor] | None:
    """Masks (M, H, W) and which of them are known (M,); None if no defect has a mask."""
    if not masks:
        return None
    blank = torch.zeros(size, size, dtype=torch.bool)
    known = [entry.kind == GOOD or entry.name in masks for entry in entries]
    return torch.stack([masks.get(entry.name, blank) for entry in entries]), torch.tensor(known)


# --- in words -----------------------------------------------------------------------------------


def _note(annotation: tuple[Tensor, Tensor] | None) -> str:
    note = "Images from the user's folder; training used its normal images only. "
    if annotation is None:
        return note + "It has no ground-truth masks."
    if annotation[1].all():
        return note + "Its masks are the ground truth."
    return note + "Its masks are the ground truth of those images that have one."


def _form(
    entries: Sequence[Entry], pictures: Sequence[Picture], preparation: Preparation, skipped: str
) -> str:
    """What was skipped, and what the images are like."""
    color = "gray" if preparation.channels == 1 else "color"
    depths = ["8-bit"] if preparation.eight_bit else []
    if preparation.full_scale is not None:
        depths.append(depth_name(preparation.full_scale))
    suffixes = Counter(entry.path.suffix.lower() for entry in entries)
    sizes = {entry.size for entry in entries}
    square = f"{preparation.size}x{preparation.size}"
    verb = {"stretch": "stretched", "pad": "padded", "crop": "cropped"}[preparation.fit]
    fitted = "" if sizes == {(preparation.size,) * 2} else f", {verb} to {square}"
    formats = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common())
    form = f"{formats}; {' and '.join(depths)} {color}, {sizes_in_words(sizes)}{fitted}"
    return f"{skipped}; {form}" if skipped else form


def _notices(
    pictures: Sequence[Picture], preparation: Preparation, bit_depth: int | None, outside: int
) -> list[str]:
    notices = []
    deep = [picture for picture in pictures if picture.deep]
    scale = preparation.full_scale
    if deep and scale is not None and bit_depth is None:
        peak = max(picture.peak for picture in deep)
        name = "floating-point pixels" if deep[0].floating else "16-bit files"
        notices.append(
            f"{name} with levels up to {peak:g}: {scale:g} is taken as white"
            + (f" ({depth_name(scale)}); --bit-depth sets it" if scale != 1 else "")
        )
    if deep and preparation.eight_bit:
        notices.append(
            f"{len(deep)} of {len(pictures)} images have 16-bit or floating-point pixels, the "
            "others 8 bits; make sure that equal brightness means the same in both"
        )
    frames = sum(picture.frames > 1 for picture in pictures)
    if frames:
        notices.append(f"{frames} files have several frames; only the first of each is used")
    if outside:
        notices.append(
            f"the defects of {outside} images lie wholly outside the cropped square; use another "
            "--fit"
        )
    return notices
