"""Everything that is measured around one trained network."""

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
from uad.landscape.work import (
    FLOAT64_COST,
    MOST_CURVATURE_IMAGES,
    MOST_IMAGES,
    PRODUCT_COST,
    USUAL_PRODUCTS,
    Advance,
    ignore,
)
from uad.losses import LossSettings, build_loss


@dataclass(frozen=True)
class Options:
    """Where to measure the loss."""

    directions: int = 10
    reach: float = 0.5
    """Maximum distance from the weights, as a fraction of their norm."""
    points: int = 41
    """Points along a line; odd, so that the weights themselves are one of them."""
    plane_points: int = 21
    """Points along a side of the plane; odd, for the same reason."""
    images: int = MOST_IMAGES
    """Number of training images, taken from the first on."""
    curvature_images: int = MOST_CURVATURE_IMAGES
    """Number of these images that the maximum curvature uses."""
    seed: int = 0
    """Seed of the random directions."""


@dataclass(frozen=True)
class Landscape:
    """The loss around the weights of one network."""

    trained: str
    """The loss that the network was trained with."""
    steps: Array
    lines: dict[str, Array]
    """The plain and the amplified loss along lines, each (directions, steps)."""
    plane_steps: Array
    plane: Array
    """The loss that the network was trained with, (steps, steps)."""
    figures: dict[str, dict[str, Any]]
    """Steepness of each loss, ready for JSON."""


def counterparts(loss: str) -> tuple[str, str]:
    """The plain and the amplified loss of the same metric."""
    metric = loss.removeprefix("amplified-")
    return metric, f"amplified-{metric}"


def work(trained: str, count: int, options: Options) -> int:
    """The sum of what `measure` passes to `advance` for this many images."""
    directions = max(options.directions, 2)
    evaluations = directions * options.points + options.plane_points**2
    return evaluations + 3 * directions * FLOAT64_COST + 2 * _search(trained, count, options)


def _search(trained: str, count: int, options: Options) -> int:
    """The work that finding one maximum curvature counts as."""
    if not has_top_curvature(trained):
        return 0
    count = min(count, options.images)
    return USUAL_PRODUCTS * PRODUCT_COST * min(options.curvature_images, count) // count


def has_top_curvature(loss: str) -> bool:
    """Whether the Hessian shows the curvature; that of L1 lacks the kinks of |x|."""
    return "l1" not in loss


def measure(
    network: nn.Module, trained: str, images: Tensor, settings: LossSettings, options: Options,
    advance: Advance = ignore,
) -> Landscape:  # fmt: skip
    """Lines, plane and curvature of the plain and amplified loss around the network's weights.

    images: float32 (N, C, H, W) in [0, 1]. With the same seed, the directions of all networks are
    made from the same random numbers. advance: called as the work proceeds.
    """
    generator = torch.Generator().manual_seed(options.seed)
    directions = [random_direction(network, generator) for _ in range(max(options.directions, 2))]
    steps = np.linspace(-options.reach, options.reach, options.points)
    plane_steps = np.linspace(-options.reach, options.reach, options.plane_points)
    images = images[: options.images]
    names = counterparts(trained)
    losses = [build_loss(name, settings) for name in names]
    lines = np.array(
        [losses_on_line(network, losses, images, each, steps, advance) for each in directions]
    )  # (directions, losses, steps)
    # (directions, losses)
    curvature = curvature_along(network, losses, images, directions, advance)
    figures = {}
    for index, name in enumerate(names):
        figures[name] = steepness(steps, lines[:, index], curvature[:, index]) | {
            "curvature_step": CURVATURE_STEP,
            "top_curvature": None,
        }
        if has_top_curvature(name):
            search = _Budget(_search(trained, len(images), options), advance)
            product = hessian_product(
                network,
                build_loss(name, replace(settings, backend="reference")),
                images[: options.curvature_images],
            )
            start = torch.Generator().manual_seed(options.seed)
            figures[name]["top_curvature"] = top_curvature(
                network, product, start, advance=search.spend
            )
            search.end()
    own = losses[names.index(trained)]
    return Landscape(
        trained,
        steps,
        {name: lines[:, index] for index, name in enumerate(names)},
        plane_steps,
        loss_on_plane(network, own, images, directions[:2], plane_steps, advance),
        figures,
    )


class _Budget:
    """Progress of a search whose length is unknown, which counts as a given amount of work."""

    def __init__(self, amount: int, advance: Advance) -> None:
        self.amount, self.advance = amount, advance
        self.iterations, self.spent = 0, 0

    def spend(self, iterations: int) -> None:
        """Count iterations, until the amount is used up."""
        self.iterations += iterations
        self._reach(min(self.amount, self.amount * self.iterations // USUAL_PRODUCTS))

    def end(self) -> None:
        """Count whatever is left."""
        self._reach(self.amount)

    def _reach(self, spent: int) -> None:
        self.advance(spent - self.spent)
        self.spent = spent


def steepness(steps: Array, lines: Array, curvature: Array) -> dict[str, Any]:
    """Slopes and curvature, one value per direction, absolute and relative.

    lines: (directions, steps), where the middle step is 0. curvature: (directions,).

    Relative figures are divided by the loss at the weights, so they ignore a constant factor.
    Doubling a loss makes it twice as steep, but to an optimizer that adapts its steps the
    landscape is the same.
    """
    found = slopes(steps, lines)
    center = float(lines[0, len(steps) // 2])
    absolute = {
        "mean_slope": found.mean(axis=1),
        "max_slope": found.max(axis=1),
        "curvature": curvature,
    }
    relative = {f"relative_{name}": values / center for name, values in absolute.items()}
    return {"loss_at_weights": center} | {
        name: values.tolist() for name, values in (absolute | relative).items()
    }
