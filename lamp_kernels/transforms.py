"""torch.func on the operators: vmap folds its dimension into N, grad records at its own level.

Transforms form a stack of levels. Each level in turn intercepts a call of an operator and passes
its own version of the call to the next level, down to the kernels. The operators support two:

**vmap** reshapes images (B, N, C, H, W) to (B N, C, H, W), calls the operator at the level below,
and unfolds the result. This is correct only if nothing is summed over N, so the rule requests one
loss per image and sums them here; a mean over the batch is divided by N images, not by B N. An
argument that is not batched is expanded. That copies nothing if N is 1, as in per-sample gradients.

**grad** applies the operator's `torch.autograd.Function` to the tensors of one level, as PyTorch's
built-in operators do. The documented way for a Function written in Python, `setup_context`, starts
before the dispatcher, where torch.compile would have to trace it; this one runs behind it.

The backward pass uses only the operators and PyTorch arithmetic, so both rules apply to it too.
Second derivatives raise in `block_double_backward` of `lamp_kernels.autograd`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad

from lamp_kernels.ops import Operators

Dim = int | None  # the batched dimension of a tensor, or None if it has none


active = torch._C._are_functorch_transforms_active
# A `torch.autograd.Function` of the current level. Under a transform it has to be allowed.
SingleLevelFunction = torch.autograd.function._SingleLevelFunction
single_level_allowed = enable_single_level_autograd_function


@contextmanager
def recording_below() -> Iterator[None]:
    """Record at the levels below: PyTorch disables recording while a Function's forward runs."""
    with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
        yield


def register(library: str, operators: Operators) -> None:
    """Register the vmap rules of the operators in `library`."""
    for name, rule in (
        ("image_losses", _rule_of_losses),
        ("loss_map", _rule_of_map),
        ("block_double_backward", _rule_of_block),
    ):
        torch.library.register_vmap(f"{library}::{name}", rule(getattr(operators, name)))


def _images(tensor: Tensor, dim: Dim) -> int:
    """N, the number of images per sample of vmap."""
    return tensor.shape[0] if dim is None else tensor.movedim(dim, 0).shape[1]


def _fold(tensor: Tensor, dim: Dim, count: int) -> Tensor:
    """(N, ...) beside the batched dimension `dim`, if it has one, as (count N, ...)."""
    whole = tensor.expand(count, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return whole.flatten(0, 1)


def _fold_weight(weight: Tensor, dim: Dim, count: int, images: int) -> Tensor:
    """As `_fold`, but a weight that all images share stays as it is."""
    if dim is None:
        return weight if weight.shape[0] == 1 else _fold(weight, None, count)
    weight = weight.movedim(dim, 0)
    return weight.expand(-1, images, *weight.shape[2:]).flatten(0, 1)


def _rule_of_losses(operator: Any) -> Callable[..., Any]:
    def rule(
        info: Any,
        in_dims: Sequence[Any],
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        mask: Tensor | None,
        data_ranges: Tensor | None,
        factors: Tensor | None,
        coefficients: Sequence[float],
        mean_over: str,
        sums: str,
        input_gradient: bool,
        target_gradient: bool,
        *spec: Any,
    ) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Dim, Dim, Dim]]:
        count = info.batch_size
        images = _images(input, in_dims[0])
        input, target = _fold(input, in_dims[0], count), _fold(target, in_dims[1], count)
        if weight is not None:
            weight = _fold_weight(weight, in_dims[2], count, images)
        if mask is not None:
            mask = _fold_weight(mask, in_dims[3], count, images)
        if data_ranges is not None:
            data_ranges = _fold(data_ranges, in_dims[4], count)
        if factors is not None:
            factors = _fold(factors, in_dims[5], count)
        elif mean_over == "batch":
            coefficients = [each / max(images, 1) for each in coefficients]
            mean_over = "image"
        # The caller could not see which gradients the levels below require.
        store = torch.is_grad_enabled() and sums != "terms"
        input_gradient = input_gradient or (store and input.requires_grad)
        target_gradient = target_gradient or (store and target.requires_grad)
        losses, *gradients = operator(
            input,
            target,
            weight,
            mask,
            data_ranges,
            factors,
            coefficients,
            mean_over,
            "images" if sums == "batch" else sums,
            input_gradient,
            target_gradient,
            *spec,
        )
        losses = losses.unflatten(0, (count, images))
        if sums == "batch":
            losses = losses.sum(1)
        first, second = (
            gradient.unflatten(0, (count, images)) if wanted else gradient
            for gradient, wanted in zip(gradients, (input_gradient, target_gradient), strict=True)
        )
        dims = (0, 0 if input_gradient else None, 0 if target_gradient else None)
        return (losses, first, second), dims

    return rule


def _rule_of_map(operator: Any) -> Callable[..., Any]:
    def rule(
        info: Any,
        in_dims: Sequence[Any],
        input: Tensor,
        target: Tensor,
        mask: Tensor | None,
        data_ranges: Tensor | None,
        coefficients: Tensor,
        *spec: Any,
    ) -> tuple[Tensor, Dim]:
        if in_dims[4] is not None:  # `KernelBackend.loss_map` passes the spec's coefficients
            raise RuntimeError("coefficients of loss_map must not be batched by vmap")
        count, images = info.batch_size, _images(input, in_dims[0])
        input, target = _fold(input, in_dims[0], count), _fold(target, in_dims[1], count)
        if mask is not None:
            mask = _fold_weight(mask, in_dims[2], count, images)
        if data_ranges is not None:
            data_ranges = _fold(data_ranges, in_dims[3], count)
        losses = operator(input, target, mask, data_ranges, coefficients, *spec)
        return losses.unflatten(0, (count, images)), 0

    return rule


def _rule_of_block(operator: Any) -> Callable[..., Any]:
    def rule(info: Any, in_dims: Sequence[Any], *tensors: Tensor) -> tuple[Tensor, Dim]:
        return operator(*tensors), in_dims[0]

    return rule
