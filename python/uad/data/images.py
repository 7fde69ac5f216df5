"""Image files: finding them, reading them upright, and making network inputs of them.

8-bit files keep their levels. Files with 16-bit or floating-point pixels hold numbers whose meaning
depends on the camera: a 12-bit camera's white is 4095, whatever the file could hold. The level that
counts as white, the full scale, is therefore chosen for a whole data set, and stored with the
network.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError
from torch import Tensor

from uad.data.base import DataError, Preparation
from uad.data.fit import to_square

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".pgm", ".ppm",
)  # fmt: skip

Image.MAX_IMAGE_PIXELS = 2**29
"""Line-scan cameras exceed Pillow's default, which guards web services: it warns from 89 million
pixels on, and refuses twice as many."""

CAMERA_DEPTHS = (8, 10, 12, 14, 16)
"""Bits per pixel of cameras; without `bit_depth`, the least of them that holds the data's maximum
gives the full scale."""

GRAY_TOLERANCE = 2
"""Levels by which the channels of a gray pixel may differ."""

HIDDEN = ("thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found")
"""What operating systems leave in folders, in lower case, besides names that begin with a dot."""

# The exceptions that Pillow raises for damaged files and for files that are not images.
UNREADABLE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    IndexError,
    struct.error,
    Image.DecompressionBombError,
)


# --- finding ------------------------------------------------------------------------------------


@dataclass
class Skipped:
    """What lies beside the images in the folders."""

    suffixes: Counter[str] = field(default_factory=Counter)
    """Visible files that are not images, by suffix."""
    hidden_files: int = 0
    hidden_folders: int = 0
    folders: int = 0
    """Folders where images were expected."""

    def __str__(self) -> str:
        parts = [
            f"{count} {suffix or 'without suffix'}"
            for suffix, count in sorted(self.suffixes.items())
        ]
        for count, what in (
            (self.hidden_files, "hidden file"),
            (self.hidden_folders, "hidden folder"),
            (self.folders, "folder"),
        ):
            if count:
                parts.append(f"{count} {what}{'s' if count > 1 else ''}")
        return f"skipped {', '.join(parts)}" if parts else ""


@dataclass(frozen=True)
class Listing:
    """Image files with names that people know them by."""

    files: tuple[tuple[Path, str], ...]
    skipped: str


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is the operating system's or a tool's, not a user's."""
    return name.startswith(".") or name.lower() in HIDDEN


def images_in(folder: Path, skipped: Skipped) -> list[Path]:
    """The image files directly in a folder, in alphabetical order; the rest goes to `skipped`.

    DataError if there is no such folder or it cannot be read.
    """
    found = []
    try:
        entries = sorted(folder.iterdir())
    except NotADirectoryError as error:
        raise DataError(f"{folder}: not a folder") from error
    except FileNotFoundError as error:
        raise DataError(f"{folder}: no such folder") from error
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error
    for path in entries:
        if path.is_dir():
            if is_hidden(path.name):
                skipped.hidden_folders += 1
            else:
                skipped.folders += 1
        elif is_hidden(path.name):
            skipped.hidden_files += 1
        elif path.suffix.lower() in SUFFIXES:
            found.append(path)
        else:
            skipped.suffixes[path.suffix.lower()] += 1
    return found


def image_files(places: Sequence[Path]) -> Listing:
    """All image files among `places`, which are files and folders; folders with their subfolders.

    Names are relative to the place; with several places, they begin with the place itself.
    DataError for a place that does not exist, or if there are no images at all.
    """
    files: list[tuple[Path, str]] = []
    skipped = Skipped()
    for place in places:
        if not place.exists():
            raise DataError(f"{place}: no such file or folder")
        if place.is_file():
            files.append((place, place.name if len(places) == 1 else place.as_posix()))
            continue
        prefix = "" if len(places) == 1 else (place / "_").as_posix()[:-1]
        files += _images_below(place, prefix, skipped)
    if not files:
        where = ", ".join(map(str, places))
        raise DataError(f"{where}: contains no images ({', '.join(SUFFIXES)})")
    return Listing(tuple(files), str(skipped))


def _images_below(place: Path, prefix: str, skipped: Skipped) -> Iterator[tuple[Path, str]]:
    """The images in a folder and its subfolders, with the names that follow `prefix`.

    Follows links, except to a folder that contains the link. Quick enough to be repeated every
    second with many files: asks the system about folders and links only.
    """
    left: list[tuple[str, str, frozenset[tuple[int, int]]]] = [(str(place), prefix, frozenset())]
    while left:
        folder, start, above = left.pop()
        try:
            status = os.stat(folder)
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{folder}: cannot be read: {error.strerror}") from error
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            continue
        subfolders = []
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1].lower()
            if entry.is_dir():
                if is_hidden(entry.name):
                    skipped.hidden_folders += 1
                else:
                    subfolders.append((entry.path, f"{start}{entry.name}/", above | {identity}))
            elif is_hidden(entry.name):
                skipped.hidden_files += 1
            elif suffix in SUFFIXES:
                yield Path(entry.path), f"{start}{entry.name}"
            else:
                skipped.suffixes[suffix] += 1
        left += reversed(subfolders)


# --- reading ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """The content of an image file, upright."""

    path: Path
    image: Image.Image
    """Mode "L" or "RGB" with 8 bits; "F" with the levels of a 16-bit or floating-point file."""
    peak: float
    """The highest level in the file. (Resizing averages, so `image` may be left with less.)"""
    floating: bool
    """Whether the file has floating-point pixels."""
    frames: int
    """Number of frames in the file, of which this is the first."""
    deep_color: bool = False
    """Whether only the upper 8 of 16 bits were read; `image` then has 8 bits."""

    @property
    def deep(self) -> bool:
        """Whether the levels need a full scale."""
        return self.image.mode == "F"

    def eight_bit(self, full_scale: float | None = None) -> Image.Image:
        """The picture with 8 bits, mode "L" or "RGB"; DataError for levels above the full scale.

        full_scale: the level that becomes 255; None takes it from this picture alone.
        """
        if not self.deep:
            return self.image
        if full_scale is None:
            full_scale = full_scale_of(self.peak, self.floating)
        if self.peak > full_scale:
            raise DataError(
                f"{self.path}: levels up to {self.peak:g} exceed the full scale of "
                f"{full_scale:g}; see --bit-depth"
            )
        return to_eight_bit(self.image, full_scale)


def to_eight_bit(image: Image.Image, full_scale: float) -> Image.Image:
    """A picture in mode "L" from levels in mode "F"; `full_scale` becomes 255."""
    levels = np.rint(np.asarray(image) * (255 / full_scale)).clip(0, 255)
    return Image.fromarray(levels.astype(np.uint8))


def full_scale_of(maximum: float, floating: bool) -> float:
    """The full scale of files whose highest level is `maximum`, at most 65535.

    2^b - 1 for the least b that admits the maximum: of `CAMERA_DEPTHS` for integers, from 1 on for
    floating-point files, so that no more than half of the range is left unused.
    """
    depths = range(1, 17) if floating else CAMERA_DEPTHS
    return float(next(2**bits - 1 for bits in depths if maximum <= 2**bits - 1))


def read_picture(path: Path, bit_depth: int | None = None) -> Picture:
    """The picture in a file, turned as its EXIF orientation says; DataError if it cannot be used.

    bit_depth: of 16-bit files; only needed for 16-bit color, which Pillow reduces to its upper 8
    bits: right for 16 bits, but 12-bit color would be left with 16 levels.
    """
    try:
        with Image.open(path) as file:
            deep_color, white = _deep_color(file), _header_white(file)
            if deep_color and bit_depth != 16:
                raise DataError(
                    f"{path}: 16-bit color, of which only the upper 8 bits can be read; save it "
                    "with 8 bits per channel, or pass --bit-depth 16 if its levels fill 16 bits"
                )
            file.load()
            upright = ImageOps.exif_transpose(file)
            frames = getattr(file, "n_frames", 1)
            if upright.mode == "F" or upright.mode.startswith("I"):
                levels = np.asarray(upright).astype(np.float32)
                if white is not None:
                    levels = np.rint(levels * (white / (2**16 - 1)))
                _check_levels(path, levels)
                floating = upright.mode == "F"
                return Picture(path, Image.fromarray(levels), float(levels.max()), floating, frames)
            mode = "L" if upright.mode in ("1", "L", "LA") else "RGB"
            image = _gray_if_gray(upright.convert(mode))
            return Picture(path, image, 255.0, False, frames, deep_color)
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not a readable image: the content has no known format") from error
    except UNREADABLE as error:
        raise DataError(f"{path}: not a readable image: {error}") from error


def _deep_color(file: Image.Image) -> bool:
    """Whether the decoder will drop the lower 8 of 16 bits; asked before the pixels are loaded."""
    for tile in getattr(file, "tile", ()):
        form = tile[3][0] if isinstance(tile[3], tuple) else tile[3]
        if isinstance(form, str) and form.partition(";")[2].startswith("16"):
            return file.mode in ("RGB", "RGBA", "RGBX", "LA", "CMYK")
    return False


def _header_white(file: Image.Image) -> int | None:
    """The level that a PGM file calls white, if it has more than 8 bits; Pillow makes it 65535."""
    for tile in getattr(file, "tile", ()):
        if tile[0] in ("ppm", "ppm_plain") and file.mode == "I":
            return int(tile[3][1])
    return None


def _gray_if_gray(image: Image.Image) -> Image.Image:
    """The picture in mode "L" if all its pixels are gray, as in many JPEG and WebP files.

    A sample decides quickly about most pictures in color.
    """
    sample = image.resize((32, 32), Image.Resampling.NEAREST)
    gray = image.mode == "RGB" and _is_gray(sample) and _is_gray(image)
    return image.convert("L") if gray else image


def _is_gray(image: Image.Image) -> bool:
    """Whether the channels are equal, but for the rounding of lossy formats."""
    red, green, blue = image.split()
    for pair in ((red, green), (green, blue), (blue, red)):
        _, highest = cast("tuple[int, int]", ImageChops.difference(*pair).getextrema())
        if highest > GRAY_TOLERANCE:
            return False
    return True


def _check_levels(path: Path, levels: NDArray[np.float32]) -> None:
    if not np.isfinite(levels).all():
        raise DataError(f"{path}: has pixels that are not finite")
    if levels.min() < 0:
        raise DataError(f"{path}: levels must be at least 0, got {levels.min():g}")
    if levels.max() > 2**16 - 1:
        raise DataError(f"{path}: levels must be at most 65535, got {levels.max():g}")


def read_image(path: Path, full_scale: float | None = None) -> Image.Image:
    """The picture in `path` with 8 bits, mode "L" (gray) or "RGB"; DataError if it is unusable.

    full_scale: as in `Picture.eight_bit`.
    """
    return read_picture(path).eight_bit(full_scale)


# --- preparing ----------------------------------------------------------------------------------


def prepare(path: Path, preparation: Preparation) -> Tensor:
    """The input of a network made from a file, uint8 (C, size, size).

    DataError if the file cannot be read, or its pixels are not of the kind that the network was
    trained on.
    """
    return _input(_suitable(path, preparation), preparation)


def prepare_and_display(path: Path, preparation: Preparation) -> tuple[Tensor, Image.Image]:
    """What `prepare` returns, and the whole picture for people, from reading the file once.

    The picture has 8 bits, mode "L" or "RGB". DataError as in `prepare`.
    """
    picture = _suitable(path, preparation)
    return _input(picture, preparation), picture.eight_bit(preparation.full_scale)


def _input(picture: Picture, preparation: Preparation) -> Tensor:
    # Resized before it is rounded to 8 bits, as in training.
    square = replace(picture, image=to_square(picture.image, preparation.size, preparation.fit))
    return to_tensor(square.eight_bit(preparation.full_scale), preparation.channels)


def _suitable(path: Path, preparation: Preparation) -> Picture:
    scale = preparation.full_scale
    picture = read_picture(path, 16 if scale == 2**16 - 1 else None)
    trained = "8-bit" if scale is None else depth_name(scale)
    if picture.deep and scale is None:
        kind = "floating-point" if picture.floating else "16-bit"
        raise DataError(f"{path}: a {kind} file, but the network was trained on 8-bit images")
    if not picture.deep and not preparation.eight_bit:
        raise DataError(f"{path}: an 8-bit file, but the network was trained on {trained} images")
    if picture.deep and scale is not None and picture.peak > scale:
        raise DataError(
            f"{path}: levels up to {picture.peak:g}, but the network was trained on {trained} "
            f"images, whose white is {scale:g}"
        )
    return picture


def depth_name(full_scale: float) -> str:
    """Like "12-bit" for 4095, or "floating-point" for 1."""
    if full_scale == 1:
        return "floating-point"
    return f"{int(full_scale).bit_length()}-bit"


def to_tensor(image: Image.Image, channels: int) -> Tensor:
    """uint8 (channels, H, W) of a picture with 8 bits."""
    pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
    return torch.from_numpy(pixels).reshape(image.height, image.width, channels).permute(2, 0, 1)


def sizes_in_words(sizes: Iterable[tuple[int, int]]) -> str:
    """Like "600x400", or "412x412 to 600x400" from the smallest to the largest area."""
    ordered = sorted(set(sizes), key=lambda size: (size[0] * size[1], size))
    if not ordered:
        return ""
    names = [f"{width}x{height}" for width, height in (ordered[0], ordered[-1])]
    return names[0] if names[0] == names[1] else " to ".join(names)
