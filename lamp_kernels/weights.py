"""The scale of weights: what is too large or too small for float32 is taken as a multiple of s.

A mean, sum m L / sum m, is that of m / s too, and a sum is s times that of m / s. Uniform weights
of 1e37 have a sum beyond float32, those of 1e-45 one whose reciprocal is: with s they do as others.
Where the weights are ordinary s is exactly 1, and nothing changes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lamp_kernels.reduction import MeanOver
from lamp_kernels.tensors import being_traced, in_dtype, not_expanded

# Weights within these, and the sums of as many as memory holds, go through every kernel.
LEAST, GREATEST = 2.0**-64, 2.0**64
# float16 and all integers are within 6e-8 to 2e19.
WIDE_DTYPES = (torch.bfloat16, torch.float32, torch.float64)


def scaled(
    weight: Tensor,
    dtype: torch.dtype,
    over: MeanOver,
    sums_of: Callable[[Tensor], list[Tensor]],
    seen: Callable[[Tensor], Tensor],
) -> tuple[Tensor, list[Tensor], Tensor | None]:
    """m / s in the type computed in, the sums of that, and s; None for s = 1.

    Whether s is 1 everywhere is looked up on the CPU, where that waits for nothing; elsewhere, and
    in a compiled graph, m is divided by it in any case.

    weight: as many dimensions as the images.
    over: each image has an s of its own where each has a mean of its own.
    sums_of: for each term the sums over each image's grid, (N,).
    seen: the part of the weight that any of these sees.
    """
    mask = in_dtype(weight, dtype)
    if weight.dtype not in WIDE_DTYPES or weight.numel() == 0:
        return mask, sums_of(mask), None
    if _readable(mask):
        sums = sums_of(mask)
        # 1e-60 in float64 is 0 in float32.
        zero_is_zero = weight.dtype == dtype or weight.dtype != torch.float64
        if all(_ordinary(each, zero_is_zero) for each in sums):
            return mask, sums, None
    weight = not_expanded(weight)  # the quotient is written out in full
    wide = weight.to(torch.promote_types(weight.dtype, dtype))
    scale = _scale(seen(wide), over)
    mask = (wide / scale).to(dtype)
    return mask, sums_of(mask), scale.to(dtype)


def _scale(weight: Tensor, over: MeanOver) -> Tensor:
    """s, 1 where the greatest weight is ordinary, or one is not finite; (N or 1, 1, ...), or ()."""
    dims = list(range(1 if over == "image" else 0, weight.dim()))
    peak = weight.abs().amax(dim=dims, keepdim=True) if dims else weight.abs()
    peak = peak.nan_to_num(nan=1.0, posinf=1.0)  # goes on as it is, and is not spread by s
    least_normal = torch.finfo(weight.dtype).tiny  # in the place of 0, which divides nothing
    return peak.clamp(min=least_normal) / peak.clamp(LEAST, GREATEST)


def _readable(tensor: Tensor) -> bool:
    """Whether its values can be looked at without waiting for a device or breaking a graph."""
    return (
        type(tensor) is Tensor
        and tensor.device.type == "cpu"
        and not being_traced()
        and not torch._C._are_functorch_transforms_active()
    )


def _ordinary(sums: Tensor, zero_is_zero: bool) -> bool:
    if zero_is_zero:
        sums = sums.masked_fill(sums == 0.0, 1.0)
    if sums.numel() == 0:
        return True
    least, greatest = (extreme.item() for extreme in torch.aminmax(sums))
    return least >= LEAST and greatest <= GREATEST  # of NaN neither
