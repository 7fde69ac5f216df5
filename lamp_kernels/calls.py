"""From what `dispatch` asks of a backend to its two operators, for every backend with kernels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lamp_kernels import ops
from lamp_kernels.levels import SharedFactors
from lamp_kernels.options import LossOptions, Metric, Sums, Terms
from lamp_kernels.tensors import compute_dtype, numbers_beside


def image_losses(
    operators: ops.Operators,
    metrics: Sequence[Metric],
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    factors: Tensor | SharedFactors,
    options: LossOptions,
    *,
    amplified: bool,
    sums: Sums,
) -> Tensor:
    """As `reference.image_losses`."""
    shape = input.shape
    store = torch.is_grad_enabled() and sums != "terms"
    losses: Tensor = _call(
        operators.image_losses,
        _as_images(input),
        _as_images(target),
        None if weight is None else _weight_as_images(weight, shape),
        *((factors, (), "nothing") if isinstance(factors, Tensor) else (None, *factors)),
        *_options(metrics, options, amplified),
        sums,
        store and input.requires_grad,
        store and target.requires_grad,
    )[0]
    return losses


def loss_map(
    operators: ops.Operators, terms: Terms, input: Tensor, target: Tensor, options: LossOptions
) -> Tensor:
    """As `reference.loss_map`."""
    dtype = compute_dtype(input.dtype, target.dtype)
    losses: Tensor = _call(
        operators.loss_map,
        _as_images(input),
        _as_images(target),
        numbers_beside(input, list(terms.values()), dtype),
        *_options(tuple(terms), options, amplified=True),
    )
    return losses if losses.dim() == input.dim() else losses.view(input.shape)


def _call(operator: Any, *arguments: Any) -> Any:
    """A graph holds the operator alone."""
    if torch.compiler.is_compiling():
        return operator(*arguments)
    return ops.call(operator, *arguments)


def _options(metrics: Sequence[Metric], options: LossOptions, amplified: bool) -> ops.Options:
    return ops.Options(
        "ssim" in metrics,
        "mse" in metrics,
        "l1" in metrics,
        options.data_range,
        options.window_size,
        options.sigma,
        options.k1,
        options.k2,
        options.padding,
        0.5 if options.dissimilarity == "half" else 1.0,
        amplified and options.amplification == "log",
        options.eps,
    )


def _as_images(tensor: Tensor) -> Tensor:
    """(N, ...) as (N, C, H, W): dimensions of size 1 in front of few, one dimension for many."""
    dims = tensor.dim()
    if dims == 4:
        return tensor
    if dims > 4:
        return tensor.flatten(1, dims - 3)
    return tensor.reshape(tensor.shape[0], *(1,) * (4 - dims), *tensor.shape[1:])


def _weight_as_images(weight: Tensor, shape: torch.Size) -> Tensor:
    """The weight as it broadcasts to `_as_images` of its images; as many dimensions as they."""
    if len(shape) > 4:
        joined = range(1, len(shape) - 2)
        if any(weight.shape[dim] != 1 for dim in joined):
            sizes = [shape[dim] if dim in joined else -1 for dim in range(len(shape))]
            weight = weight.expand(sizes)
    return _as_images(weight)
