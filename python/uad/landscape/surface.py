"""The loss along a line and on a plane through the weights, and its slopes there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from uad.landscape.directions import Direction, moved

Array = NDArray[np.float64]
LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Called as loss(reconstruction, image)."""


def losses_on_line(
    network: nn.Module,
    losses: Sequence[LossFunction],
    images: Tensor,
    direction: Direction,
    steps: Array,
) -> Array:
    """The losses for images (N, C, H, W) in [0, 1] at each step, (losses, steps)."""
    values = [_at(network, losses, images, [direction], [step]) for step in steps]
    found: Array = np.array(values).transpose()
    return found


def loss_on_plane(
    network: nn.Module, loss: LossFunction, images: Tensor, plane: Sequence[Direction], steps: Array
) -> Array:
    """The loss at each pair of steps along two directions, (steps, steps).

    The first direction runs down the rows, the second along the columns.
    """
    return np.array(
        [
            [_at(network, [loss], images, plane, [down, right])[0] for right in steps]
            for down in steps
        ]
    )


def _at(
    network: nn.Module,
    losses: Sequence[LossFunction],
    images: Tensor,
    directions: Sequence[Direction],
    steps: Sequence[float],
) -> list[float]:
    with moved(network, directions, steps), torch.no_grad():
        reconstruction = network(images)
        return [loss(reconstruction, images).item() for loss in losses]


def slopes(steps: Array, values: Array) -> Array:
    """Absolute slopes between neighboring steps; values: (..., steps)."""
    found: Array = np.abs(np.diff(values) / np.diff(steps))
    return found
