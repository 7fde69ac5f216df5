"""Pictures of anomaly maps: the map in color over the original, with a contour at the threshold."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from uad.figures import MAP_COLORS, TRUTH_COLOR

LONG_SIDE, SHORTEST = 1024, 256
"""Limits of the long side in pixels. Smaller pictures are enlarged by a whole factor, so that the
contour does not hide them."""

OPACITY = 0.5
"""Of the color at the upper end of the scale, so that the defect stays visible. Opacity is
proportional to the map, so that normal regions look as in the original."""

CONTOUR_COLOR, EDGE_COLOR = (255, 255, 255), (0, 0, 0)
"""White with a black edge is visible on every picture and every color of the map."""

TRUTH = tuple(round(255 * part) for part in matplotlib.colors.to_rgb(TRUTH_COLOR))

NAME_LENGTH = 80


def full_scale(threshold: float) -> float:
    """The map value at the upper end of the color scale; any positive one suits a threshold of 0.

    Depends on nothing else, so pictures compare if they were made with the same threshold.
    """
    return 2 * threshold or 1.0


def display_size(width: int, height: int, limit: int = LONG_SIDE) -> tuple[int, int]:
    """The size (width, height) of the overlay of a picture of this size."""
    longest = max(width, height)
    if longest < SHORTEST:
        factor: float = -(-SHORTEST // longest)
    else:
        factor = min(1.0, limit / longest)
    return max(1, round(width * factor)), max(1, round(height * factor))


def resize_picture(picture: Image.Image, limit: int = LONG_SIDE) -> Image.Image:
    """The picture in its display size; enlarged pixels stay sharp. limit: of the long side."""
    size = display_size(*picture.size, limit)
    enlarged = size[0] > picture.width
    return picture.resize(size, Image.Resampling.NEAREST if enlarged else Image.Resampling.BILINEAR)


def overlay(
    picture: Image.Image,
    values: NDArray[np.float32],
    full: float,
    threshold: float | None,
    mask: NDArray[np.bool_] | None = None,
) -> Image.Image:
    """The map over the picture.

    picture: RGB. values: the map in the size of the picture, (H, W); NaN where there is none.
    full: value at the upper end of the color scale. threshold: outline the pixels above it.
    mask: (H, W), to outline where the image is defective.
    """
    strength = np.nan_to_num(values / full, nan=0.0).clip(0, 1)
    colors = matplotlib.colormaps[MAP_COLORS](strength)[..., :3] * 255
    opacity = OPACITY * strength[..., None]
    pixels = (1 - opacity) * np.asarray(picture) + opacity * colors
    levels = pixels.round().astype(np.uint8)
    width = 1 + max(values.shape) // 400
    if mask is not None:
        _draw_truth(levels, mask, width)
    if threshold is not None:
        _draw_contour(levels, np.nan_to_num(values, nan=-np.inf) > threshold, width)
    return Image.fromarray(levels)


def _draw_truth(levels: NDArray[np.uint8], mask: NDArray[np.bool_], width: int) -> None:
    """Draw a line just outside the mask, where a contour of the same region does not hide it."""
    grown = ndimage.binary_dilation(mask, np.ones((3, 3), dtype=bool), iterations=1 + width)
    levels[grown & ~mask] = TRUTH


def _draw_contour(levels: NDArray[np.uint8], inside: NDArray[np.bool_], width: int) -> None:
    """Draw a line of `width` pixels just inside the region, with an edge just outside."""
    square = np.ones((3, 3), dtype=bool)
    # Beyond the border of the picture counts as outside, so that every contour is closed.
    core = ndimage.binary_erosion(inside, square, iterations=width)
    edge = ndimage.binary_dilation(inside, square)
    levels[edge & ~inside] = EDGE_COLOR
    levels[inside & ~core] = CONTOUR_COLOR


def overlay_name(name: str) -> str:
    """The file name of the overlay of the image `name`, different for every image.

    The hash tells apart "a.png" and "a.jpg", "a/b.png" and "a_b.png", also where a file system
    ignores case.
    """
    stem = str(PurePosixPath(name).with_suffix(""))
    readable = re.sub(r"[^\w.-]+", "_", stem, flags=re.ASCII).strip("._")[-NAME_LENGTH:]
    digest = hashlib.blake2b(name.encode(), digest_size=6).hexdigest()
    return f"{readable or 'image'}-{digest}.jpg"
