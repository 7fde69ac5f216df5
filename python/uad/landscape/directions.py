"""Random directions in weight space, scaled filter by filter, and steps along them.

Doubling one layer's weights and halving the next one's leaves the network's function unchanged, so
a step of fixed length would say more about the scale of the weights than about the loss. Therefore
each filter of a direction has the norm of the network's filter. Source: H. Li, Z. Xu, G. Taylor,
C. Studer, T. Goldstein, Visualizing the loss landscape of neural nets, NeurIPS 2018.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Direction = dict[str, Tensor]
"""A tensor for each weight that moves, keyed by the name of the parameter."""

FILTER_DIMENSION = {nn.Conv2d: 0, nn.Linear: 0, nn.ConvTranspose2d: 1}
"""The dimension of a layer's weight that indexes its filters, one per output channel."""


def filter_weights(network: nn.Module) -> dict[str, tuple[Tensor, int]]:
    """The weights that consist of filters, each with the dimension that indexes them.

    Biases are not among them: they do not move. ValueError if there are no such weights.
    """
    found = {}
    for name, module in network.named_modules():
        dimension = FILTER_DIMENSION.get(type(module))
        if dimension is not None and isinstance(module.weight, Tensor):
            found[f"{name}.weight" if name else "weight"] = (module.weight, dimension)
    if not found:
        raise ValueError("the network has no layer with filters, so no direction can be scaled")
    return found


def random_direction(network: nn.Module, generator: torch.Generator) -> Direction:
    """Normally distributed numbers, each filter scaled to the norm of the network's filter."""
    direction = {}
    for name, (weight, dimension) in filter_weights(network).items():
        noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        others = [d for d in range(weight.dim()) if d != dimension]
        norms = [
            torch.linalg.vector_norm(tensor, dim=others, keepdim=True)
            for tensor in (weight.detach(), noise)
        ]
        direction[name] = noise * (norms[0] / norms[1])
    return direction


@contextmanager
def moved(
    network: nn.Module, directions: Sequence[Direction], steps: Sequence[float]
) -> Iterator[None]:
    """Move the network's weights by a step along each direction; move them back at the end."""
    parameters = dict(network.named_parameters())
    names = dict.fromkeys(name for direction in directions for name in direction)
    before = {name: parameters[name].detach().clone() for name in names}
    try:
        with torch.no_grad():
            for direction, step in zip(directions, steps, strict=True):
                for name, tensor in direction.items():
                    parameters[name].add_(tensor, alpha=step)
        yield
    finally:
        with torch.no_grad():
            for name, tensor in before.items():
                parameters[name].copy_(tensor)
