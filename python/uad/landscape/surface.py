"""The loss along a line and on a plane through the weights, and its slopes there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from uad.landscape.directions import Direction, moved
from uad.landscape.work import Advance, ignore

BATCH_PIXELS = 1 << 18
"""Pixels that pass through the network at a time. Larger batches do not fit the caches: 16 images
of 256x256 pixels take twice as long at once as four at a time."""

Array = NDArray[np.float64]
LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Called as loss(reconstruction, image)."""


def losses_on_line(
    network: nn.Module,
    losses: Sequence[LossFunction],
    images: Tensor,
    direction: Direction,
    steps: Array,
    advance: Advance = ignore,
    cost: int = 1,
) -> Array:
    """The losses for images (N, C, H, W) in [0, 1] at each step, (losses, steps).

    advance: called with `cost` after each step.
    """
    values = []
    for step in steps:
        values.append(_at(network, losses, images, [direction], [step]))
        advance(cost)
    found: Array = np.array(values).transpose()
    return found


def loss_on_plane(
    network: nn.Module,
    loss: LossFunction,
    images: Tensor,
    plane: Sequence[Direction],
    steps: Array,
    advance: Advance = ignore,
) -> Array:
    """The loss at each pair of steps along two directions, (steps, steps).

    The first direction runs down the rows, the second along the columns. advance: called
    with 1 after each pair.
    """
    values = np.empty((len(steps), len(steps)))
    for row, down in enumerate(steps):
        for column, right in enumerate(steps):
            (values[row, column],) = _at(network, [loss], images, plane, [down, right])
            advance(1)
    return values


def _at(
    network: nn.Module,
    losses: Sequence[LossFunction],
    images: Tensor,
    directions: Sequence[Direction],
    steps: Sequence[float],
) -> list[float]:
    with moved(network, directions, steps), torch.no_grad():
        reconstruction = reconstruct(network, images)
        return [loss(reconstruction, images).item() for loss in losses]


def reconstruct(network: nn.Module, images: Tensor) -> Tensor:
    """The network's output for images (N, C, H, W), computed in batches.

    The loss is computed for all images at once, because amplify_over="batch" does not allow parts.
    """
    batch = max(1, BATCH_PIXELS // images[0, 0].numel())
    return torch.cat([network(part) for part in images.split(batch)])


def slopes(steps: Array, values: Array) -> Array:
    """Absolute slopes between neighboring steps; values: (..., steps)."""
    found: Array = np.abs(np.diff(values) / np.diff(steps))
    return found
