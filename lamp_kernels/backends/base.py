"""The contract of a backend, and what the backends with kernels have in common."""

from typing import Protocol

import torch
from torch import Tensor

from lamp_kernels import autograd, ops, transforms
from lamp_kernels.reduction import Factors
from lamp_kernels.spec import LossSpec, Sums
from lamp_kernels.tensors import compute_dtype, numbers_beside

WINDOW_SIZES = range(3, 16, 2)  # that the kernels are compiled for


class Backend(Protocol):
    """What computes a loss. Selection, errors and the report ask it; `losses` calls it.

    Each reason is a clause for an error message, without an initial capital or a final period.
    """

    name: str

    def unavailable_reason(self) -> str | None:
        """Why this installation lacks the backend, or None if it has it."""

    def unsupported_reason(self, spec: LossSpec, input: Tensor) -> str | None:
        """Why the available backend cannot compute this spec of tensors like `input`, or None.

        The values of `input` are not read.
        """

    def auto_skip_reason(self, spec: LossSpec, input: Tensor) -> str | None:
        """Why it has to be requested by name though it might compute this, or None."""

    def configuration_error(self, input: Tensor) -> str | None:
        """An invalid setting that makes every call with tensors like `input` raise, or None."""

    def details(self) -> list[str]:
        """Lines of the report on the available backend."""

    def image_losses(
        self,
        spec: LossSpec,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        factors: Factors,
        sums: Sums,
    ) -> Tensor:
        """Factors times S, the sum over each image of m L or m A(L), added up as `sums` says.

        Of A(L) at element level, of L where a mean is amplified (`LossSpec.of_elements`).

        weight: m in the compute type, with as many dimensions as the images, broadcasting to them.
        factors: known before any pixel is read; (N, T), unless `sums` is "batch", or shared.

        Returns (N, T), (N,) or (), float32 or float64, differentiable.
        """

    def loss_map(self, spec: LossSpec, input: Tensor, target: Tensor) -> Tensor:
        """The sum over the terms of coefficient times A(L), on their common grid; no weight."""


class KernelBackend:
    """A backend with two operators of the schema in `lamp_kernels.ops`."""

    operators: ops.Operators

    def register(self, library: str, scale: bool) -> None:
        """Make the operators in `library` known to PyTorch; scale: whether it has `scale_`."""
        self.operators = ops.register(library, scale)
        autograd.register(library, self.operators)
        transforms.register(library, self.operators)

    def image_losses(
        self,
        spec: LossSpec,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        factors: Factors,
        sums: Sums,
    ) -> Tensor:
        """See `Backend.image_losses`."""
        store = torch.is_grad_enabled() and sums != "terms"
        losses: Tensor = ops.call(
            self.operators.image_losses,
            _as_images(input),
            _as_images(target),
            None if weight is None else _weight_as_images(weight, input.shape),
            *((factors, (), "nothing") if isinstance(factors, Tensor) else (None, *factors)),
            sums,
            store and input.requires_grad,
            store and target.requires_grad,
            *ops.FlatSpec.of(spec.of_elements),
        )[0]
        return losses

    def loss_map(self, spec: LossSpec, input: Tensor, target: Tensor) -> Tensor:
        """See `Backend.loss_map`."""
        dtype = compute_dtype(input.dtype, target.dtype)
        losses: Tensor = ops.call(
            self.operators.loss_map,
            _as_images(input),
            _as_images(target),
            numbers_beside(input, spec.coefficients, dtype),
            *ops.FlatSpec.of(spec),
        )
        return losses if losses.dim() == input.dim() else losses.view(input.shape)


def unsupported_window(spec: LossSpec) -> str | None:
    """Why the kernels cannot compute the window of this spec, or None."""
    if spec.has_ssim and spec.window_size not in WINDOW_SIZES:
        least, greatest = WINDOW_SIZES[0], WINDOW_SIZES[-1]
        return (
            f"it supports odd window sizes from {least} to {greatest}, "
            f"got window_size={spec.window_size}"
        )
    return None


def _as_images(tensor: Tensor) -> Tensor:
    """(N, ...) as (N, C, H, W): dimensions of size 1 in front of few, one dimension for many."""
    dims = tensor.dim()
    if dims == 4:
        return tensor
    if dims > 4:
        return tensor.flatten(1, dims - 3)
    return tensor.reshape(tensor.shape[0], *(1,) * (4 - dims), *tensor.shape[1:])


def _weight_as_images(weight: Tensor, shape: torch.Size) -> Tensor:
    """The weight as it broadcasts to `_as_images` of its images; it has as many dimensions."""
    if len(shape) > 4:
        joined = range(1, len(shape) - 2)
        if any(weight.shape[dim] != 1 for dim in joined):
            sizes = [shape[dim] if dim in joined else -1 for dim in range(len(shape))]
            weight = weight.expand(sizes)
    return _as_images(weight)
