"""What a folder's images are like, in the words that the commands and the report use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import Tensor

from uad.data.base import Preparation
from uad.data.images import Picture, depth_name, sizes_in_words
from uad.data.listing import Entry


def note(annotation: tuple[Tensor, Tensor] | None) -> str:
    """Where the images come from, and what is known about their defects."""
    origin = "Images from the user's folder; training used its normal images only. "
    if annotation is None:
        return origin + "It has no ground-truth masks."
    if annotation[1].all():
        return origin + "Its masks are the ground truth."
    return origin + "Its masks are the ground truth of those images that have one."


def form(
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
    found = f"{formats}; {' and '.join(depths)} {color}, {sizes_in_words(sizes)}{fitted}"
    return f"{skipped}; {found}" if skipped else found


def notices(
    pictures: Sequence[Picture], preparation: Preparation, bit_depth: int | None, outside: int
) -> list[str]:
    """What the user must know about the images."""
    texts = []
    deep = [picture for picture in pictures if picture.deep]
    scale = preparation.full_scale
    if deep and scale is not None and bit_depth is None:
        peak = max(picture.peak for picture in deep)
        name = "floating-point pixels" if deep[0].floating else "16-bit files"
        texts.append(
            f"{name} with levels up to {peak:g}: {scale:g} is taken as white"
            + (f" ({depth_name(scale)}); --bit-depth sets it" if scale != 1 else "")
        )
    if bit_depth is not None and not deep and scale is None:
        texts.append(f"--bit-depth {bit_depth} has no effect: all files have 8 bits per pixel")
    if deep and preparation.eight_bit:
        texts.append(
            f"{len(deep)} of {len(pictures)} images have 16-bit or floating-point pixels, the "
            "others 8 bits; make sure that equal brightness means the same in both"
        )
    frames = sum(picture.frames > 1 for picture in pictures)
    if frames:
        texts.append(f"{frames} files have several frames; only the first of each is used")
    if outside:
        texts.append(
            f"the defects of {outside} images lie wholly outside the cropped square; use another "
            "--fit"
        )
    return texts
