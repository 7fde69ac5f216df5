"""Images at several scales, each half as large as the one before, for MS-SSIM and MSGMS.

All scales but the first are float64, on devices that have it. Losses depend on the differences of
images and of neighbors, and means of 2 x 2 pixels, rounded to float32, lose the digits of small
differences: where images are 1e-5 apart, gradients would be 3 % off. These scales have a third of
the pixels of the first.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lamp_kernels.tensors import (
    Images,
    being_traced,
    compute_dtype,
    in_dtype,
    in_torchscript,
    widest_dtype,
)


def at_image_size(images: Images) -> Images:
    """Images in the compute type, with a weight and a mask of the images' height and width.

    What is halved must have these sides, but not the images' channels. A weight that is the mask
    itself, as in a call without a weight, stays the mask itself.
    """
    dtype = compute_dtype(images.input.dtype, images.target.dtype)
    x, y, weight, mask, data_range = images
    only_mask = weight is mask
    if mask is not None:
        mask = mask.expand(*mask.shape[:2], *x.shape[2:])
    if only_mask:
        weight = mask
    elif weight is not None:
        weight = in_dtype(weight, dtype).expand(*weight.shape[:2], *x.shape[2:])
    return Images(x.to(dtype), y.to(dtype), weight, mask, data_range)


def halved_images(images: Images, halve: Callable[[Tensor], Tensor]) -> Images:
    """The next scale. With a mask m a pixel is the mean of m v over four, divided by that of m.

    halve: averages planes over 2 x 2 pixels, with a rule of its own along odd sides. The mask is
    halved to the share that it covers of what `halve` makes of ones, so that ones remain ones.
    """
    x, y, weight, mask, data_range = images
    only_mask = weight is mask
    if weight is not None and not only_mask:
        weight = halve(weight)
    if mask is None:
        x, y = halve(x), halve(y)
        return Images(x, y, weight, None, _in_dtype_of(x, data_range))
    covered = in_dtype(mask, x.dtype)
    share = halve(covered) / halve(torch.ones_like(covered[:1, :1]))
    if only_mask:
        weight = share
    inverse = share.masked_fill(share == 0, 1.0).reciprocal()
    x, y = (halve(_shown(v, mask)) * inverse for v in (x, y))
    return Images(x, y, weight, share, _in_dtype_of(x, data_range))


def _shown(values: Tensor, mask: Tensor) -> Tensor:
    """m v, and 0 where the mask is 0, whatever v is."""
    if mask.dtype is torch.bool:
        return torch.where(mask, values, 0.0)
    return torch.where(mask == 0, 0.0, values) * mask


def _in_dtype_of(x: Tensor, data_range: Tensor | None) -> Tensor | None:
    return None if data_range is None else data_range.to(x.dtype)


def halves(planes: Tensor) -> Tensor:
    """Means of 2 x 2 pixels, along even sides, in float64 where there is one."""
    dtype = widest_dtype(planes)
    if torch.compiler.is_exporting() or in_torchscript():  # ONNX Runtime pools only float32
        return torch.nn.functional.avg_pool2d(planes, kernel_size=2)
    if being_traced():  # the compiler fuses the conversion with the mean
        return torch.nn.functional.avg_pool2d(planes.to(dtype), kernel_size=2)
    means: Tensor = _Halves.apply(planes, dtype)  # type: ignore[no-untyped-call] # torch has no types
    return means


class _Halves(torch.autograd.Function):
    """`halves` without a copy of the planes in float64, which avg_pool2d would need."""

    generate_vmap_rule = True

    @staticmethod
    def forward(planes: Tensor, dtype: torch.dtype) -> Tensor:
        means = planes[..., ::2, ::2].to(dtype, copy=True)
        for row, column in ((0, 1), (1, 0), (1, 1)):
            means += planes[..., row::2, column::2]
        return means.mul_(0.25)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        planes, ctx.dtype = inputs
        ctx.dtype_of_planes = planes.dtype

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        quarter = (0.25 * gradients[0]).to(ctx.dtype_of_planes)
        *lead, height, width = quarter.shape
        each = quarter[..., :, None, :, None].expand(*lead, height, 2, width, 2)
        return each.reshape(*lead, 2 * height, 2 * width), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return halves(tangents[0])
