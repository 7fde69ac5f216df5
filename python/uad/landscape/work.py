"""How much there is to compute around a network, and how many images that allows for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

PIXELS = 1 << 20
"""Pixels of the default number of images: about a minute of work for the default network on two
cores, whatever the size of the images."""
MOST_IMAGES = 256
CURVATURE_PIXELS = PIXELS // 4
MOST_CURVATURE_IMAGES = 64
"""The same for the maximum curvature, which costs several times as much per image."""

FLOAT64_COST = 5.0
"""Time of an evaluation in float64, in evaluations in float32."""
PRODUCT_COST = 12.0
"""Time of a product with the Hessian, in evaluations of the same images."""
USUAL_PRODUCTS = 20
"""Most power iterations end before."""

Advance = Callable[[float], object]
"""Told the work done since the last call, in evaluations of the loss for all images."""


def ignore(cost: float) -> None:
    """An Advance that nobody looks at."""


@dataclass(frozen=True)
class ImageCount:
    """How many images to use."""

    images: int
    curvature_images: int


def default_count(pixels: int) -> ImageCount:
    """The number of images to use if one has this many pixels; at least 1."""

    def within(budget: int, most: int) -> int:
        return max(1, min(most, budget // pixels))

    return ImageCount(within(PIXELS, MOST_IMAGES), within(CURVATURE_PIXELS, MOST_CURVATURE_IMAGES))
