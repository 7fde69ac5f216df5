"""From a spec and tensors to a backend and back: the path of every public function."""

import math

import torch
from torch import Tensor

from lamp_kernels import backends, reduction, reference, weights
from lamp_kernels.backends import Backend
from lamp_kernels.spec import LossSpec
from lamp_kernels.tensors import compute_dtype, in_dtype, with_dims_of
from lamp_kernels.validation import (
    check_channels_first,
    check_image_shape,
    check_pair,
    check_weight,
)


def loss(
    spec: LossSpec, input: Tensor, target: Tensor, weight: Tensor | None, backend: str | None
) -> Tensor:
    """Compute the loss of a checked spec: a scalar, (N,) or the map, in float32 or float64."""
    chosen = prepare(spec, input, target, weight, backend)
    if spec.reduction == "none":
        return loss_map(chosen, spec, input, target, weight)
    return reduced_loss(chosen, spec, input, target, weight)


def prepare(
    spec: LossSpec, input: Tensor, target: Tensor, weight: Tensor | None, backend: str | None
) -> Backend:
    """Check the tensors against the spec and choose the backend that computes the loss."""
    check_pair(input, target)
    if spec.has_ssim:
        check_channels_first(input, warns=False)
    check_weight(weight, input)
    chosen = backends.choose(backend, spec, input)
    if spec.has_ssim:
        check_image_shape(input, spec)
    return chosen


def reduced_loss(
    backend: Backend, spec: LossSpec, input: Tensor, target: Tensor, weight: Tensor | None
) -> Tensor:
    """Compute the loss of checked tensors: a scalar, or (N,) for reduction="image"."""
    if weight is None:
        scaled_sums = backend.image_losses(
            spec,
            input,
            target,
            None,
            reduction.shared_factors(spec),
            reduction.sums(spec, shared=True),
        )
        return reduction.finish(spec, scaled_sums, max(input.shape[0], 1))
    dtype = compute_dtype(input.dtype, target.dtype)
    grids = spec.grids(input.shape)
    mask, weight_sums, scale = weights.scaled(
        with_dims_of(weight, input),
        dtype,
        reduction.mean_over(spec),
        lambda mask: [_weight_sums(mask, input.shape, grid) for grid in grids],
        # The last grid is the largest: only SSIM's, the first, may be smaller than the others.
        lambda mask: reference.on_grid(mask, input.shape, grids[-1]),
    )
    factors = [
        reduction.term_factor(
            spec, term, reduction.nonzero(image_weight), reduction.nonzero(image_weight.sum(0))
        )
        for term, image_weight in enumerate(weight_sums)
    ]
    nonempty_images: Tensor | int = max(input.shape[0], 1)
    if spec.amplify_over == "image" and spec.reduction == "mean":
        nonempty_images = torch.stack([(each > 0).sum(0).clamp(min=1) for each in weight_sums])
    scaled_sums = backend.image_losses(
        spec,
        input,
        target,
        mask,
        _columns(factors, input, dtype),
        reduction.sums(spec, shared=False),
    )
    result = reduction.finish(spec, scaled_sums, nonempty_images)
    is_mean = reduction.mean_over(spec) != "nothing"  # from a mean the scale cancels out
    return result if scale is None or is_mean else result * scale.reshape(())


def loss_map(
    backend: Backend, spec: LossSpec, input: Tensor, target: Tensor, weight: Tensor | None
) -> Tensor:
    """Compute the map m A(L) of checked tensors, for several terms m times their weighted sum."""
    values = backend.loss_map(spec, input, target)
    if weight is None:
        return values
    mask = in_dtype(with_dims_of(weight, input), values.dtype)
    return values * reference.on_grid(mask, input.shape, values.shape)


def count_on_tangent(
    backend: Backend, spec: LossSpec, input: Tensor, target: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Count over all terms the elements of weight > 0 with L > 1 - eps, and those of weight > 0."""
    on_tangent, elements = input.new_zeros((2,), dtype=torch.int64).unbind()
    for term in spec.terms:
        single = spec.plain.replace(terms=(term._replace(coefficient=1.0),))
        losses = loss_map(backend, single, input, target, None)
        counts = torch.ones_like(losses, dtype=torch.bool)
        if weight is not None:
            mask = with_dims_of(weight, input) > 0
            counts = counts & reference.on_grid(mask, input.shape, losses.shape)
        on_tangent = on_tangent + ((losses > 1.0 - spec.eps) & counts).sum()
        elements = elements + counts.sum()
    return on_tangent, elements


def _weight_sums(mask: Tensor, shape: torch.Size, grid: torch.Size) -> Tensor:
    """The sum of the weight over each image's loss grid, (N,)."""
    seen = reference.on_grid(mask, shape, grid)
    repeats = math.prod(grid[1:]) // max(math.prod(seen.shape[1:]), 1)
    return (reference.sum_images(seen) * repeats).expand(grid[0])


def _columns(factors: list[Tensor | float], input: Tensor, dtype: torch.dtype) -> Tensor:
    """The factors as a tensor (N, T), given one number or a tensor (N,) per term."""
    batch = input.shape[0]
    columns = [
        factor.expand(batch)
        if isinstance(factor, Tensor)
        else input.new_full((batch,), factor, dtype=dtype)
        for factor in factors
    ]
    return columns[0].unsqueeze(1) if len(columns) == 1 else torch.stack(columns, dim=1)
