"""From checked arguments to a backend and back: the one way that every public function takes."""

import math
from functools import partial
from types import ModuleType

import torch
from torch import Tensor

from lamp_kernels import backends, levels, native, reference, triton, weights
from lamp_kernels.options import Level, LossOptions, Metric, Reduction, Terms
from lamp_kernels.tensors import (
    as_many_dimensions,
    check_image_shape,
    check_pair,
    check_weight,
    compute_dtype,
    in_dtype,
)

# What `backends.resolve` names: modules with the functions `image_losses` and `loss_map`.
IMPLEMENTATIONS: dict[str, ModuleType] = {
    "native": native,
    "triton": triton,
    "reference": reference,
}


def reduced_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    terms: Terms,
    options: LossOptions,
    amplify_over: Level,
    reduction: Reduction,
    backend: str | None,
) -> Tensor:
    """The loss as a scalar, or (N,) for reduction="image"; float32, or float64 for float64."""
    implementation = _prepare(input, target, weight, terms, options, backend)
    dtype = compute_dtype(input.dtype, target.dtype)
    mask, scale = None, None
    factors: Tensor | levels.SharedFactors
    counted: Tensor | int = max(input.shape[0], 1)
    if weight is None:
        factors = levels.shared_factors(terms, amplify_over, reduction)
    else:
        grids = [_grid(input.shape, metric, options) for metric in terms]
        largest = grids[-1]  # SSIM comes first, and has the only one that may be smaller
        mask, sums, scale = weights.scaled(
            as_many_dimensions(weight, input),
            dtype,
            levels.mean_over(amplify_over, reduction),
            lambda mask: [_weight_sums(mask, input.shape, grid) for grid in grids],
            lambda mask: reference.on_grid(mask, input.shape, largest),
        )
        own_factors = []
        for each, coefficient in zip(sums, terms.values(), strict=True):
            own, total = levels.nonzero(each), levels.nonzero(each.sum(0))
            own_factors.append(levels.factor(own, total, coefficient, amplify_over, reduction))
        factors = _columns(own_factors, input, dtype)
        if amplify_over == "image" and reduction == "mean":
            counted = torch.stack([(each > 0).sum(0).clamp(min=1) for each in sums])
    shares = implementation.image_losses(
        tuple(terms),
        input,
        target,
        mask,
        factors,
        options,
        amplified=amplify_over == "element",
        sums=levels.sums(amplify_over, reduction, terms, shared=mask is None),
    )
    amplify = partial(reference.amplify, amplification=options.amplification, eps=options.eps)
    coefficients = list(terms.values())
    loss = levels.finish(shares, coefficients, counted, amplify, amplify_over, reduction)
    divided = levels.mean_over(amplify_over, reduction) != "nothing"
    return loss if scale is None or divided else loss * scale.reshape(())


def loss_map(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    terms: Terms,
    options: LossOptions,
    backend: str | None,
) -> Tensor:
    """The map m A(L) on the loss grid; several terms are multiplied and added, pixel by pixel."""
    if len(terms) > 1 and options.padding == "valid":
        raise ValueError(
            "reduction='none' with padding='valid' needs a single term: the map of SSIM is "
            "smaller than those of the pointwise losses"
        )
    implementation = _prepare(input, target, weight, terms, options, backend)
    values: Tensor = implementation.loss_map(terms, input, target, options)
    if weight is None:
        return values
    mask = _mask(weight, input, values.dtype)
    return values * reference.on_grid(mask, input.shape, values.shape)


def on_tangent(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    terms: Terms,
    options: LossOptions,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    """How many elements of the terms have L > 1 - eps, and how many there are of weight > 0."""
    check_pair(input, target)
    check_weight(weight, input)
    plain = options._replace(amplification="none")
    on, counted = input.new_zeros((), dtype=torch.int64), input.new_zeros((), dtype=torch.int64)
    for metric in terms:
        losses = loss_map(input, target, None, {metric: 1.0}, plain, backend)
        found = losses > 1.0 - options.eps
        counts = torch.ones_like(found)
        if weight is not None:
            mask = as_many_dimensions(weight, input) > 0
            counts = counts & reference.on_grid(mask, input.shape, losses.shape)
        on, counted = on + (found & counts).sum(), counted + counts.sum()
    return on, counted


def _prepare(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    terms: Terms,
    options: LossOptions,
    backend: str | None,
) -> ModuleType:
    """Check the tensors and choose the implementation that will serve them."""
    check_pair(input, target)
    if "ssim" in terms:
        check_image_shape(input, options)
    check_weight(weight, input)
    window_size = options.window_size if "ssim" in terms else None
    return IMPLEMENTATIONS[backends.resolve(backend, input, window_size=window_size)]


def _grid(shape: torch.Size, metric: Metric, options: LossOptions) -> torch.Size:
    """The shape of the loss map: that of the images but for SSIM under "valid"."""
    if metric != "ssim" or options.padding != "valid":
        return shape
    lost = options.window_size - 1
    return torch.Size((*shape[:-2], shape[-2] - lost, shape[-1] - lost))


def _mask(weight: Tensor, input: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight in the type computed in, with as many dimensions as the images."""
    return in_dtype(as_many_dimensions(weight, input), dtype)


def _weight_sums(mask: Tensor, shape: torch.Size, grid: torch.Size) -> Tensor:
    """The sum of the weight over each image's loss grid, (N,)."""
    seen = reference.on_grid(mask, shape, grid)
    repeats = math.prod(grid[1:]) // max(math.prod(seen.shape[1:]), 1)
    return (reference.sum_images(seen) * repeats).expand(grid[0])


def _columns(factors: list[Tensor | float], input: Tensor, dtype: torch.dtype) -> Tensor:
    """Factors (N, T), of one number or (N,) numbers a term."""
    batch = input.shape[0]
    columns = [
        factor.expand(batch)
        if isinstance(factor, Tensor)
        else input.new_full((batch,), factor, dtype=dtype)
        for factor in factors
    ]
    return columns[0].unsqueeze(1) if len(columns) == 1 else torch.stack(columns, dim=1)
