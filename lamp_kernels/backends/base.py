"""The contract of a backend, and the code that the backends with kernels share."""

from typing import Protocol

import torch
from torch import Tensor

from lamp_kernels import autograd, ops, transforms
from lamp_kernels.reduction import Factors
from lamp_kernels.spec import LossSpec, Sums
from lamp_kernels.tensors import Images, compute_dtype, numbers_beside

WINDOW_SIZES = range(3, 16, 2)  # the window sizes that the kernels are compiled for


class Backend(Protocol):
    """An implementation of the losses.

    `backends` asks it what it supports, for selection, errors and the report; `losses` calls it.
    Each reason is a clause for an error message, without an initial capital or a final period.
    """

    name: str

    def unavailable_reason(self) -> str | None:
        """Why the backend is not available in this installation, or None if it is."""

    def unsupported_reason(self, spec: LossSpec, input: Tensor) -> str | None:
        """Why the available backend cannot compute this spec for tensors like `input`, or None.

        It reads the device, dtype and shape of `input`, but no values.
        """

    def unsupported_feature(self, spec: LossSpec, device_type: str) -> str | None:
        """Why it cannot compute this spec on any device of this type, or None.

        The part of `unsupported_reason` that depends neither on the machine nor the installation.
        """

    def auto_skip_reason(self, spec: LossSpec, input: Tensor) -> str | None:
        """Why the automatic choice skips it even if it supports the call, or None."""

    def configuration_error(self, input: Tensor) -> str | None:
        """An invalid setting that makes all calls with tensors like `input` raise, or None."""

    def details(self) -> list[str]:
        """What the report says about the backend if it is available, line by line."""

    def image_losses(
        self,
        spec: LossSpec,
        images: Images,
        factors: Factors,
        sums: Sums,
    ) -> Tensor:
        """Compute factors * S, summed as far as `sums` says.

        S is the sum over each image of m A(L) at element level, and of m L if a mean is amplified
        (`LossSpec.of_elements`).

        images: the weight m and the mask have the compute type and broadcast to the images, with
            as many dimensions. If there is a mask, m includes it. The mask is of pixels, for GMS
            and cosine of positions of the loss; values from where it is 0 may be NaN.
        factors: a tensor (N, T), all of whose rows are alike if `sums` is "batch", or shared.

        Returns (N, T), (N,) or (), float32 or float64, differentiable.
        """

    def loss_map(self, spec: LossSpec, images: Images) -> Tensor:
        """Compute the sum over the terms of coefficient * A(L) on their common grid, unweighted.

        Where the mask is 0, the value is finite and means nothing.
        """


class KernelBackend:
    """A backend with the two operators of `lamp_kernels.ops`."""

    operators: ops.Operators
    volume_operators: ops.Operators  # the same for `LossSpec.of_volumes`, where that is supported

    def register(self, library: str, scale: bool, volumes: str | None = None) -> None:
        """Register the operators in `library` with PyTorch.

        scale: `library` has `scale_`. volumes: the library of the operators of volumes, if any.
        """
        self.operators = _register(library, scale)
        if volumes is not None:
            self.volume_operators = _register(volumes, scale=False)

    def image_losses(
        self,
        spec: LossSpec,
        images: Images,
        factors: Factors,
        sums: Sums,
    ) -> Tensor:
        """See `Backend.image_losses`."""
        operators = self.volume_operators if spec.of_volumes else self.operators
        input, target, weight, mask, data_range = _as_kernels_take(images, spec)
        store = torch.is_grad_enabled() and sums != "terms"
        losses: Tensor = ops.call(
            operators.image_losses,
            input,
            target,
            weight,
            mask,
            data_range,
            *((factors, (), "nothing") if isinstance(factors, Tensor) else (None, *factors)),
            sums,
            store and input.requires_grad,
            store and target.requires_grad,
            *ops.FlatSpec.of(spec.of_elements),
        )[0]
        return losses

    def loss_map(self, spec: LossSpec, images: Images) -> Tensor:
        """See `Backend.loss_map`."""
        operators = self.volume_operators if spec.of_volumes else self.operators
        shape = images.input.shape
        input, target, _, mask, data_range = _as_kernels_take(images, spec)
        dtype = compute_dtype(input.dtype, target.dtype)
        losses: Tensor = ops.call(
            operators.loss_map,
            input,
            target,
            mask,
            data_range,
            numbers_beside(input, spec.coefficients, dtype),
            *ops.FlatSpec.of(spec),
        )
        return losses if losses.dim() == len(shape) else losses.view(spec.grids(shape)[0])


def _register(library: str, scale: bool) -> ops.Operators:
    operators = ops.register(library, scale)
    autograd.register(library, operators)
    transforms.register(library, operators)
    return operators


def unsupported_window(spec: LossSpec, *, volumes: bool = False) -> str | None:
    """Why the kernels cannot compute the window of this spec, or None.

    volumes: whether there are kernels of volumes.
    """
    if spec.of_volumes and not volumes:
        return "it supports windows in two dimensions, got spatial_dims=3"
    if spec.has_ssim and spec.window_size not in WINDOW_SIZES:
        least, greatest = WINDOW_SIZES[0], WINDOW_SIZES[-1]
        return (
            f"it supports odd window sizes from {least} to {greatest}, "
            f"got window_size={spec.window_size}"
        )
    return None


def _as_kernels_take(images: Images, spec: LossSpec) -> Images:
    """Images (N, ...) as (N, C, H, W), or volumes (N, C, D, H, W) as they are."""
    if spec.of_volumes:
        return images
    input, target, weight, mask, data_range = images
    kept = 2 if spec.has_cosine else 1  # N, and for features the channels
    return Images(
        _as_images(input, kept),
        _as_images(target, kept),
        None if weight is None else _weight_as_images(weight, input.shape, kept),
        None if mask is None else _weight_as_images(mask, input.shape, kept),
        data_range,
    )


def _as_images(tensor: Tensor, kept: int) -> Tensor:
    """(N, ...) as (N, C, H, W): too few dimensions are padded with size 1, too many flattened.

    kept: how many dimensions come before those that are added or flattened.
    """
    dims = tensor.dim()
    if dims == 4:
        return tensor
    if dims > 4:
        return tensor.flatten(kept, dims - 4 + kept)
    return tensor.reshape(*tensor.shape[:kept], *(1,) * (4 - dims), *tensor.shape[kept:])


def _weight_as_images(weight: Tensor, shape: torch.Size, kept: int) -> Tensor:
    """The weight reshaped to broadcast to `_as_images` of images of this shape."""
    if len(shape) > 4:
        joined = range(kept, len(shape) - 3 + kept)
        if any(weight.shape[dim] != 1 for dim in joined):
            sizes = [shape[dim] if dim in joined else -1 for dim in range(len(shape))]
            weight = weight.expand(sizes)
    return _as_images(weight, kept)
