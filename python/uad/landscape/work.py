"""How much there is to compute around a network, and how many images that allows for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

PIXELS = 1 << 19
"""Pixels of the default number of images: 1 to 1.5 minutes of work for the default network on two
cores, whatever the size of the images."""
MOST_IMAGES = 256
CURVATURE_PIXELS = PIXELS // 4
MOST_CURVATURE_IMAGES = 64
"""The same for the maximum curvature, which costs several times as much per image."""

FLOAT64_COST = 3
"""Time of an evaluation in float64, in evaluations in float32."""
PRODUCT_COST = 6
"""Time of a product with the Hessian, in evaluations of the same images."""
USUAL_PRODUCTS = 20
"""Most power iterations need fewer."""

Advance = Callable[[int], object]
"""Called with the work done since the last call, in evaluations of the loss for all images."""


def ignore(cost: int) -> None:
    """An Advance without a progress bar behind it."""


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
