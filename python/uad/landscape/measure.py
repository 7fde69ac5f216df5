"""All that is measured around one trained network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uad.landscape.curvature import (
    CURVATURE_STEP,
    curvature_along,
    hessian_product,
    top_curvature,
)
from uad.landscape.directions import random_direction
from uad.landscape.surface import Array, loss_on_plane, losses_on_line, slopes
from uad.losses import LossOptions, build_loss


@dataclass(frozen=True)
class Options:
    """Where the loss is looked at."""

    directions: int = 10
    reach: float = 0.5
    """How far from the weights, 1 being as far as they are from zero."""
    points: int = 41
    """Steps on a line; odd, so that the weights themselves are one of them."""
    plane_points: int = 21
    images: int = 256
    """Training images, the first ones."""
    curvature_images: int = 64
    """Of the greatest curvature, the first ones."""
    seed: int = 0


@dataclass(frozen=True)
class Landscape:
    """Around the weights of one network."""

    trained: str
    """The loss that it was trained with."""
    steps: Array
    lines: dict[str, Array]
    """Loss (directions, steps), of the plain and of the amplified loss."""
    plane_steps: Array
    plane: Array
    """The loss that it was trained with, (steps, steps)."""
    figures: dict[str, dict[str, Any]]
    """Steepness by loss, ready for JSON."""


def counterparts(loss: str) -> tuple[str, str]:
    """The plain and the amplified loss of the same metric."""
    metric = loss.removeprefix("amplified-")
    return metric, f"amplified-{metric}"


def measure(
    network: nn.Module, trained: str, images: Tensor, loss: LossOptions, options: Options
) -> Landscape:
    """Lines, plane and curvature of both losses around the network's weights.

    images: float32 (N, C, H, W) in [0, 1]. The same seed gives every network the same random
    numbers for its directions.
    """
    generator = torch.Generator().manual_seed(options.seed)
    directions = [random_direction(network, generator) for _ in range(max(options.directions, 2))]
    steps = np.linspace(-options.reach, options.reach, options.points)
    plane_steps = np.linspace(-options.reach, options.reach, options.plane_points)
    images = images[: options.images]
    names = counterparts(trained)
    losses = [build_loss(name, loss) for name in names]
    lines = np.array(
        [losses_on_line(network, losses, images, each, steps) for each in directions]
    )  # (directions, losses, steps)
    curvature = curvature_along(network, losses, images, directions)  # (directions, losses)
    figures = {}
    for index, name in enumerate(names):
        figures[name] = steepness(steps, lines[:, index], curvature[:, index]) | {
            "curvature_step": CURVATURE_STEP,
            "top_curvature": None,
        }
        if "l1" not in name:  # its Hessian lacks the kinks of |x|
            product = hessian_product(
                network,
                build_loss(name, replace(loss, backend="reference")),
                images[: options.curvature_images],
            )
            start = torch.Generator().manual_seed(options.seed)
            figures[name]["top_curvature"] = top_curvature(network, product, start)
    own = losses[names.index(trained)]
    return Landscape(
        trained,
        steps,
        {name: lines[:, index] for index, name in enumerate(names)},
        plane_steps,
        loss_on_plane(network, own, images, directions[:2], plane_steps),
        figures,
    )


def steepness(steps: Array, lines: Array, curvature: Array) -> dict[str, Any]:
    """What the lines say, a value a direction; lines: (directions, steps), with 0 in the middle.

    relative: divided by the loss at the weights. A loss times 2 is twice as steep, and no other
    landscape to an optimiser that adapts its steps; the relative figures are blind to that.
    """
    found = slopes(steps, lines)
    centre = float(lines[0, len(steps) // 2])
    absolute = {
        "mean_slope": found.mean(axis=1),
        "max_slope": found.max(axis=1),
        "curvature": curvature,
    }
    relative = {f"relative_{name}": values / centre for name, values in absolute.items()}
    return {"loss_at_weights": centre} | {
        name: values.tolist() for name, values in (absolute | relative).items()
    }
