"""Reconstruction by inpainting: the network sees an image with squares missing, and fills them in.

Zavrtanik, Kristan, Skocaj, Reconstruction by inpainting for visual anomaly detection (RIAD),
Pattern Recognition 112, 2021. The image is a grid of squares, which are split at random into `SETS`
disjoint sets of equal size. A step of training hides one set, as zeros. A test image is inpainted
once with each set hidden, and the hidden parts together are its reconstruction: every pixel is
inferred from others, so the network cannot simply copy a defect.

RIAD averages the anomaly maps of several sizes of squares; here all squares have one size.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

SETS = 3
"""Number of sets, as in RIAD."""


def random_sets(count: int, size: int, square: int, rng: np.random.Generator) -> Tensor:
    """The set, from 0 to SETS - 1, to which each pixel of `count` images belongs; (N, 1, S, S).

    size: side S of the images. square: side of the squares in pixels; where it does not divide
    `size`, the last squares of a row and of a column are cut off.
    """
    across = math.ceil(size / square)
    order = torch.from_numpy(rng.random((count, across**2)).argsort(axis=1))
    sets = (order % SETS).reshape(count, 1, across, across)  # of equal size, give or take a square
    place = torch.arange(size) // square
    return sets[:, :, place][:, :, :, place]


def epoch_stream(seed: int, epoch: int) -> np.random.Generator:
    """The random numbers for the squares of one epoch.

    Apart from PyTorch's global ones: runs that differ only in the loss hide the same squares,
    and a resumed training continues with those of its next epoch.
    """
    return np.random.default_rng([seed, epoch, 1])  # the order of the images has [seed, epoch]


def hidden_squares(count: int, size: int, square: int, rng: np.random.Generator) -> Tensor:
    """The pixels of one step to hide: bool (N, 1, S, S), one set of each image."""
    return random_sets(count, size, square, rng) == 0


class InpaintingNetwork(nn.Module):
    """A trained network that reconstructs each image by inpainting all of its squares."""

    def __init__(self, network: nn.Module, square: int, size: int) -> None:
        """square: side of the squares. size: side of the images."""
        super().__init__()
        self.network = network
        # Always the same sets, so that an image has only one score.
        sets = random_sets(1, size, square, np.random.default_rng(0))
        self.sets: Tensor
        self.register_buffer("sets", sets, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions of images (N, C, S, S), each pixel from the pass that hid it."""
        reconstruction = torch.zeros_like(images)
        for number in range(SETS):
            hidden = self.sets == number
            inpainted = self.network(images.masked_fill(hidden, 0))
            reconstruction = torch.where(hidden, inpainted, reconstruction)
        return reconstruction


def scoring_network(network: nn.Module, inpaint: int | None, size: int) -> nn.Module:
    """The module that reconstructs test images: the network itself unless it was made to inpaint.

    inpaint: side of the squares, None without inpainting. size: side of the images.
    """
    if inpaint is None:
        return network
    device = next(network.parameters()).device
    return InpaintingNetwork(network, inpaint, size).to(device)
