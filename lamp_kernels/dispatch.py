"""From checked arguments to a backend and back: the one way that every public function takes."""

from collections.abc import Mapping
from functools import partial
from types import ModuleType

import torch
from torch import Tensor

from lamp_kernels import backends, levels, reference
from lamp_kernels.options import Level, LossOptions, Metric, Reduction
from lamp_kernels.tensors import check_image_shape, check_pair, check_weight, compute_dtype

# What `backends.resolve` names: modules with the functions `image_sums` and `loss_map`.
IMPLEMENTATIONS: dict[str, ModuleType] = {"reference": reference}

Terms = Mapping[Metric, float]  # metric -> coefficient, all positive, at least one


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
    sums, weights = [], []
    for metric in terms:
        grid = _grid(input.shape, metric, options)
        mask = _on_grid(weight, input, target, grid)
        total = implementation.image_sums(
            metric, input, target, mask, options, amplified=amplify_over == "element"
        )
        sums.append(total)
        weights.append(_weight_sums(mask, grid, total))
    coefficients = sums[0].new_tensor(list(terms.values()))
    image_weights = torch.stack(weights, dim=1)
    shares = torch.stack(sums, dim=1) * levels.factors(
        image_weights, coefficients, amplify_over, reduction
    )
    amplify = partial(reference.amplify, amplification=options.amplification, eps=options.eps)
    return levels.finish(shares, image_weights, coefficients, amplify, amplify_over, reduction)


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
    total: Tensor | None = None
    for metric, coefficient in terms.items():
        values = implementation.loss_map(metric, input, target, options, amplified=True)
        mask = _on_grid(weight, input, target, _grid(input.shape, metric, options))
        if mask is not None:
            values = values * mask
        if coefficient != 1.0:
            values = values * coefficient
        total = values if total is None else total + values
    assert total is not None  # there is always a term
    return total


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
    return IMPLEMENTATIONS[backends.resolve(backend, input, window_size=options.window_size)]


def _grid(shape: torch.Size, metric: Metric, options: LossOptions) -> torch.Size:
    """The shape of the loss map: that of the images but for SSIM under "valid"."""
    if metric != "ssim" or options.padding != "valid":
        return shape
    lost = options.window_size - 1
    return torch.Size((*shape[:-2], shape[-2] - lost, shape[-1] - lost))


def _on_grid(
    weight: Tensor | None, input: Tensor, target: Tensor, grid: torch.Size
) -> Tensor | None:
    """The weight as it broadcasts to the loss grid: for "valid" its value at window centres.

    Its own size is kept: a mask of one channel is never written out for every channel.
    """
    if weight is None:
        return None
    mask = weight.to(compute_dtype(input.dtype, target.dtype))
    mask = mask.reshape((1,) * (input.dim() - mask.dim()) + mask.shape)
    for dim in range(mask.dim()):
        lost = input.shape[dim] - grid[dim]
        if lost and mask.shape[dim] != 1:
            mask = mask.narrow(dim, lost // 2, grid[dim])
    return mask


def _weight_sums(mask: Tensor | None, grid: torch.Size, like: Tensor) -> Tensor:
    """The sum of the weight over each image's loss grid, (N,), of the dtype of `like`."""
    if mask is None:
        return like.new_full((grid[0],), grid[1:].numel())
    repeats = grid[1:].numel() // max(mask.shape[1:].numel(), 1)
    return (reference.sum_images(mask) * repeats).expand(grid[0])
