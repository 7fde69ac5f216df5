"""The second derivative of the loss by products of its Hessian with vectors.

The kernels have no second derivative: the loss must be that of backend="reference".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from uad.landscape.directions import Direction
from uad.landscape.surface import LossFunction

Vector = list[Tensor]
Product = Callable[[Sequence[Tensor]], Vector]


def hessian_product(network: nn.Module, loss: LossFunction, images: Tensor) -> Product:
    """The map from v to H v, H the Hessian of the loss of the images in all parameters."""
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
) -> float:
    """The eigenvalue of the Hessian with the greatest absolute value, by power iteration.

    Ends when the value changes by less than `tolerance` of itself, or after so many iterations.
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
        if abs(value - before) <= tolerance * abs(value):
            break
    return value


def curvature_along(network: nn.Module, product: Product, direction: Direction) -> float:
    """The second derivative of the loss along a direction, d^T H d."""
    vector = [
        direction.get(name, torch.zeros_like(each))
        for name, each in network.named_parameters()
        if each.requires_grad
    ]
    return _dot(vector, product(vector))


def _dot(one: Vector, other: Vector) -> float:
    return torch.stack([(a * b).sum() for a, b in zip(one, other, strict=True)]).sum().item()
