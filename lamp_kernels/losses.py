"""From a spec and tensors to a backend and back: the path of every public function."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lamp_kernels import backends, gms, reduction, reference, weights
from lamp_kernels.backends import Backend
from lamp_kernels.spec import LossSpec, Reduction, Term
from lamp_kernels.tensors import (
    Images,
    being_traced,
    compute_dtype,
    in_dtype,
    with_dims_of,
    with_mask,
)
from lamp_kernels.validation import (
    check_channels_first,
    check_data_ranges,
    check_features,
    check_image_shape,
    check_mask,
    check_pair,
    check_weight,
)


class Prepared(NamedTuple):
    """A checked call: who computes it, what, and of which tensors."""

    backend: Backend
    spec: LossSpec
    images: Images


def loss(spec: LossSpec, images: Images, backend: str | None) -> Tensor:
    """Compute the loss of a checked spec: a scalar, (N,) or the map, in float32 or float64."""
    compute = loss_map if spec.reduction == "none" else reduced_loss
    first, *others = [prepare(part, images, backend) for part in spec.separated()]
    total = compute(*first)
    for call in others:
        total = total + compute(*call)
    return total


def prepare(spec: LossSpec, images: Images, backend: str | None) -> Prepared:
    """Check the tensors against the spec and choose the backend that computes the loss.

    In the result weight and mask have the images' dimensions, and the weight includes the mask. The
    mask of GMS is that of its positions; MSGMS keeps that of the pixels, for its scales, and its
    weight without it; that mask may be bool. The data range is (N,).

    spec: one of `LossSpec.separated`.
    """
    input, target, weight, mask, data_range = images
    check_pair(input, target)
    if spec.has_window:
        check_channels_first(input, warns=False, spatial_dims=spec.spatial_dims)
    check_weight(weight, input)
    check_mask(mask, input)
    if spec.has_cosine:
        check_features(images)
    dtype = compute_dtype(input.dtype, target.dtype)
    if weight is not None:
        images = images._replace(weight=with_dims_of(weight, input))
    if mask is not None:
        spec = spec.replace(masked=True)
    if data_range is not None:
        check_data_ranges(data_range, input)
        spec = spec.replace(range_per_image=True)
        images = images._replace(data_range=data_range.to(dtype).expand(input.shape[0]))
    chosen = backends.choose(backend, spec, input)
    if spec.has_window:
        check_image_shape(input, spec)
    if mask is not None:
        mask = with_dims_of(mask, input)
        if mask.dtype is not torch.bool or not spec.has_gms or being_traced():
            mask = in_dtype(mask, dtype)  # what GMS makes of its mask is quicker to make of bool
        if not spec.has_gms:
            images = with_mask(images, mask)
        elif spec.metrics == ("gms",):
            images = gms.with_mask_of_positions(images._replace(mask=mask), spec)
        else:
            images = images._replace(mask=mask)
    return Prepared(chosen, spec, images)


def reduced_loss(backend: Backend, spec: LossSpec, images: Images) -> Tensor:
    """Compute the loss of a prepared call: a scalar, or (N,) for reduction="image"."""
    if spec.metrics == ("msgms",):
        dtype = compute_dtype(images.input.dtype, images.target.dtype)
        return _loss_over_scales(backend, spec, weights.of_scales(images, spec)).to(dtype)
    input = images.input
    weight = images.weight
    if weight is None:
        shared = reduction.shared_factors(spec)
        scaled_sums = backend.image_losses(spec, images, shared, reduction.sums(spec))
        return reduction.finish(spec, scaled_sums, max(input.shape[0], 1))
    dtype = compute_dtype(input.dtype, images.target.dtype)
    grids = spec.grids(input.shape)
    weight, weight_sums, scale = weights.scaled(
        weight,
        dtype,
        reduction.mean_over(spec),
        lambda weight: [_weight_sums(weight, input.shape, grid) for grid in grids],
        # The last grid is the largest: only SSIM's, the first, may be smaller than the others.
        lambda weight: reference.on_grid(weight, input.shape, grids[-1]),
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
        images._replace(weight=weight),
        _columns(factors, input, dtype),
        reduction.sums(spec),
    )
    result = reduction.finish(spec, scaled_sums, nonempty_images)
    is_mean = reduction.mean_over(spec) != "nothing"  # from a mean the scale cancels out
    return result if scale is None or is_mean else result * scale.reshape(())


def loss_map(backend: Backend, spec: LossSpec, images: Images) -> Tensor:
    """Compute the map m A(L) of a prepared call, for several terms m times their weighted sum."""
    values = backend.loss_map(spec, images)
    if images.weight is None:
        return values
    weight = in_dtype(images.weight, values.dtype)
    return values * reference.on_grid(weight, images.input.shape, values.shape)


def _loss_over_scales(backend: Backend, spec: LossSpec, images: Images) -> Tensor:
    """The loss of MSGMS by the table in `lamp_kernels.gms`, in the dtype of the last scale."""
    coefficient, scales = spec.terms[0].coefficient, list(gms.scales(spec, images))
    if spec.amplify_over == "element":
        of_scale = spec.replace(terms=(Term("gms", coefficient / len(scales)),))
    else:
        over: Reduction = "image" if spec.amplify_over == "image" else "mean"
        of_scale = spec.plain.replace(
            terms=(Term("gms", 1.0 / len(scales)),), amplify_over="element", reduction=over
        )
    total = reduced_loss(backend, of_scale, scales[0])
    for scaled in scales[1:]:
        total = total + reduced_loss(backend, of_scale, scaled)
    nonempty: Tensor | int = max(images.input.shape[0], 1)
    if scales[0].weight is not None:
        seen = torch.stack([_seen(of_scale, scaled) for scaled in scales])
        nonempty = seen.any(0).sum().clamp(min=1)
        if of_scale.reduction != "image":  # one mean over the batch
            seen = seen.any(1)
        total = total * (len(scales) / seen.sum(0).clamp(min=1))
    if spec.amplify_over == "element":
        return total
    losses = reference.amplify(total, spec) * coefficient
    if spec.amplify_over == "batch" or spec.reduction == "image":
        return losses
    return losses.sum() / (nonempty if spec.reduction == "mean" else 1)


def _seen(spec: LossSpec, images: Images) -> Tensor:
    """Whether an image has a weight above 0 anywhere on the loss's grid, (N,)."""
    assert images.weight is not None
    shape = images.input.shape
    seen = reference.on_grid(images.weight, shape, spec.grids(shape)[0])
    return (seen > 0).flatten(1).any(dim=1).expand(shape[0])


def count_on_tangent(backend: Backend, spec: LossSpec, images: Images) -> tuple[Tensor, Tensor]:
    """Count over all terms the elements of weight > 0 with L > 1 - eps, and those of weight > 0."""
    on_tangent, elements = images.input.new_zeros((2,), dtype=torch.int64).unbind()
    if spec.metrics == ("msgms",):
        of_scale = spec.replace(terms=(Term("gms"),))
        for scaled in gms.scales(spec, images):
            found, counted = count_on_tangent(backend, of_scale, scaled)
            on_tangent, elements = on_tangent + found, elements + counted
        return on_tangent, elements
    shape, weight = images.input.shape, images.weight
    for term in spec.terms:
        single = spec.plain.replace(terms=(term._replace(coefficient=1.0),))
        losses = backend.loss_map(single, images)
        counts = torch.ones_like(losses, dtype=torch.bool)
        if weight is not None:
            counts = counts & reference.on_grid(weight > 0, shape, losses.shape)
        on_tangent = on_tangent + ((losses > 1.0 - spec.eps) & counts).sum()
        elements = elements + counts.sum()
    return on_tangent, elements


def _weight_sums(weight: Tensor, shape: torch.Size, grid: torch.Size) -> Tensor:
    """The sum of the weight over each image's loss grid, (N,)."""
    seen = reference.on_grid(weight, shape, grid)
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
