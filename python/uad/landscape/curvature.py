"""The second derivative of the loss: along a direction, and the maximum over all directions.

The first is computed from finite differences, the second from Hessian-vector products.

Absolute errors have kinks. Automatic differentiation takes the second derivative of |x| to be 0,
which loses the combined effect of many elements' kinks: nearly all of the curvature of such a loss.
Differences over a finite step see it, as they see the kinks of the network's ReLUs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from uad.landscape.directions import Direction
from uad.landscape.surface import Array, LossFunction, losses_on_line
from uad.landscape.work import FLOAT64_COST, Advance, ignore

CURVATURE_STEP = 0.01
"""Step of a second difference, as a fraction of the norm of the weights."""

Vector = list[Tensor]
Product = Callable[[Sequence[Tensor]], Vector]


def curvature_along(
    network: nn.Module,
    losses: Sequence[LossFunction],
    images: Tensor,
    directions: Sequence[Direction],
    advance: Advance = ignore,
) -> Array:
    """Second differences (l(-h) - 2 l(0) + l(h)) / h^2, h = CURVATURE_STEP, (directions, losses).

    Computed in float64, because rounding errors of the loss are divided by h^2.
    """
    network, images = copy.deepcopy(network).double(), images.double()
    steps = CURVATURE_STEP * np.array([-1.0, 0.0, 1.0])
    lines = np.array(
        [
            losses_on_line(network, losses, images, each, steps, advance, FLOAT64_COST)
            for each in directions
        ]
    )
    found: Array = np.diff(lines, n=2)[..., 0] / CURVATURE_STEP**2
    return found


def hessian_product(network: nn.Module, loss: LossFunction, images: Tensor) -> Product:
    """The map from v to H v, where H is the Hessian of the images' loss over all parameters.

    The loss must use backend="reference", because the kernels have no second derivative.
    """
    parameters = [each for each in network.parameters() if each.requires_grad]
    gradient = torch.autograd.grad(loss(network(images), images), parameters, create_graph=True)

    def product(vector: Sequence[Tensor]) -> Vector:
        return list(torch.autograd.grad(gradient, parameters, vector, retain_graph=True))

    return product


def top_curvature(
    network: nn.Module,
    product: Product,
    generator: torch.Generator,
    *,
    tolerance: float = 1e-3,
    iterations: int = 100,
    advance: Advance = ignore,
) -> float:
    """The eigenvalue of the Hessian with the largest absolute value, by power iteration.

    Stops when the relative change is at most `tolerance`, or after `iterations` iterations.
    advance: called with 1 after each iteration.
    """
    vector: Vector = [
        torch.randn(each.shape, generator=generator, dtype=each.dtype)
        for each in network.parameters()
        if each.requires_grad
    ]
    value = 0.0
    for _ in range(iterations):
        norm = _dot(vector, vector) ** 0.5
        if norm == 0.0:
            return 0.0  # the Hessian is 0 here
        unit = [each / norm for each in vector]
        vector = product(unit)
        before, value = value, _dot(unit, vector)
        advance(1)
        if abs(value - before) <= tolerance * abs(value):
            break
    return value


def _dot(one: Vector, other: Vector) -> float:
    return torch.stack([(a * b).sum() for a, b in zip(one, other, strict=True)]).sum().item()
