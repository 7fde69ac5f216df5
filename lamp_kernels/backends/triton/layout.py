"""How tensors lie in memory, as far as a kernel's variant depends on it."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lamp_kernels import ops

NARROW = 2**31  # what 32 bits can count


def pointer_and_strides(tensor: Tensor) -> tuple[Any, ...]:
    """The five arguments that the kernels take for a tensor (N, C, H, W)."""
    return (tensor, *tensor.stride())


def is_dense(*images: Tensor) -> bool:
    """Whether columns are adjacent and 32 bits hold the stride of rows."""
    return all(image.stride(3) == 1 and image.stride(2) < NARROW for image in images)


def is_aligned(*tensors: Tensor) -> bool:
    """Whether columns are adjacent and every plane begins at a multiple of 16 bytes."""
    return is_dense(*tensors) and not any(
        tensor.data_ptr() % 16
        or any(
            size > 1 and stride * tensor.itemsize % 16
            for size, stride in zip(tensor.shape[:2], tensor.stride()[:2], strict=True)
        )
        for tensor in tensors
    )


def as_one_row(x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor] | None:
    """How to view an image as one row, if both images are dense in the same order; else None.

    The outputs have the memory format of an image, so they are dense in that order as well.
    """
    batch, *sizes = x.shape
    pixels = sizes[0] * sizes[1] * sizes[2]
    shape = (batch, 1, 1, pixels)
    if x.is_contiguous() and y.is_contiguous():
        return lambda image: image.view(shape)
    if ops.is_channels_last(x) and ops.is_channels_last(y):
        return lambda image: image.permute(0, 2, 3, 1).view(shape)
    return None
