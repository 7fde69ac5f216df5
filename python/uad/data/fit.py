"""How an image of any shape becomes a square, and how its anomaly map is laid back over it.

stretch: both sides are resized to the square's; shapes are distorted.
pad: the image is resized to fit into the square, and its edge pixels are repeated around it.
crop: the largest square in the middle is used; what lies outside is never looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from uad.data.base import Preparation

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; right and bottom are outside."""


@dataclass(frozen=True)
class Placement:
    """Which part of an image lands in which part of the square."""

    source: Box
    target: Box

    @property
    def shape(self) -> tuple[int, int]:
        """Width and height of the part of the square."""
        left, top, right, bottom = self.target
        return right - left, bottom - top


def placement(image_size: tuple[int, int], size: int, fit: str) -> Placement:
    """The placement of an image of (width, height) in a square of side `size`."""
    width, height = image_size
    whole, square = (0, 0, width, height), (0, 0, size, size)
    if fit == "stretch":
        return Placement(whole, square)
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        return Placement((left, top, left + side, top + side), square)
    if fit == "pad":
        scale = size / max(width, height)
        inner = [max(1, round(side * scale)) for side in (width, height)]
        left, top = ((size - side) // 2 for side in inner)
        return Placement(whole, (left, top, left + inner[0], top + inner[1]))
    raise ValueError(f"fit must be stretch, pad or crop, got {fit!r}")


def to_square(image: Image.Image, size: int, fit: str) -> Image.Image:
    """The image in a square; when reducing, Pillow's bilinear filter averages."""
    return _place(image, size, fit, Image.Resampling.BILINEAR, "edge")


def mask_to_square(defective: NDArray[np.bool_], size: int, fit: str) -> NDArray[np.bool_]:
    """The mask (height, width) in a square, True wherever a defective pixel falls.

    Resized with the box filter, to which every source pixel contributes, so that a defect of a
    single pixel survives any reduction. No padding is defective.
    """
    image = Image.fromarray(defective.astype(np.float32))
    placed = np.asarray(_place(image, size, fit, Image.Resampling.BOX, "constant"))
    found: NDArray[np.bool_] = placed > 0
    return found


def _place(
    image: Image.Image, size: int, fit: str, filter: Image.Resampling, padding: str
) -> Image.Image:
    place = placement(image.size, size, fit)
    inner = image.resize(place.shape, filter, box=place.source)
    if inner.size == (size, size):
        return inner
    left, top, right, bottom = place.target
    pixels = np.asarray(inner)
    around = [(top, size - bottom), (left, size - right), *[(0, 0)] * (pixels.ndim - 2)]
    padded: Image.Image = Image.fromarray(
        np.pad(pixels, around, mode="edge" if padding == "edge" else "constant")
    )
    return padded


def restore(
    map: Tensor, preparation: Preparation, image_size: tuple[int, int]
) -> NDArray[np.float32]:
    """An anomaly map (S, S) laid over its image, float32 (height, width).

    image_size: width and height of the image. NaN where the image was cropped away.
    """
    place = placement(image_size, len(map), preparation.fit)
    left, top, right, bottom = place.target
    values = Image.fromarray(map.numpy().astype(np.float32)[top:bottom, left:right])
    first_column, first_row, last_column, last_row = place.source
    whole = np.full(image_size[::-1], np.nan, dtype=np.float32)
    whole[first_row:last_row, first_column:last_column] = values.resize(
        (last_column - first_column, last_row - first_row), Image.Resampling.BILINEAR
    )
    return whole
