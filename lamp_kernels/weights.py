"""Scaling of weights m that are too large or too small for float32: the kernels get m / s.

Dividing m by s does not change the mean, sum m L / sum m, and the sum is s times that of m / s.
Uniform weights of 1e37 have a sum above the largest float32, and for weights of 1e-45 the
reciprocal of the sum is; divided by s, both behave like any others. For ordinary weights s is
exactly 1, and nothing changes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lamp_kernels.reduction import MeanOver, mean_over
from lamp_kernels.reference import sum_images
from lamp_kernels.spec import LossSpec
from lamp_kernels.tensors import Images, compute_dtype, in_dtype, not_expanded, readable

# Weights between these are safe in every kernel, and so are sums of as many as fit in memory.
LEAST, GREATEST = 2.0**-64, 2.0**64
# Dtypes with values outside those limits; float16 and all integers lie between 6e-8 and 2e19.
WIDE_DTYPES = (torch.bfloat16, torch.float32, torch.float64)


def scaled(
    weight: Tensor,
    dtype: torch.dtype,
    over: MeanOver,
    sums_of: Callable[[Tensor], list[Tensor]],
    seen: Callable[[Tensor], Tensor],
) -> tuple[Tensor, list[Tensor], Tensor | None]:
    """Returns m / s in the compute type, its sums, and s, or None for s = 1.

    On the CPU the values tell whether s is 1 everywhere. On other devices, where looking would
    synchronize, and in a compiled graph, m is divided by s in any case.

    weight: m, with as many dimensions as the images.
    over: if each image has its own mean, each gets its own s.
    sums_of: computes the sums over each image's grid, (N,), one tensor per term.
    seen: selects the part of the weight that these sums cover.
    """
    mask = in_dtype(weight, dtype)
    if weight.dtype not in WIDE_DTYPES or weight.numel() == 0:
        return mask, sums_of(mask), None
    if readable(mask):
        sums = sums_of(mask)
        # 1e-60 in float64 is 0 in float32.
        zero_is_zero = weight.dtype == dtype or weight.dtype != torch.float64
        if all(_ordinary(each, zero_is_zero) for each in sums):
            return mask, sums, None
    weight = not_expanded(weight)  # otherwise the quotient would be materialized in full
    wide = weight.to(torch.promote_types(weight.dtype, dtype))
    scale = _scale(seen(wide), over)
    mask = (wide / scale).to(dtype)
    return mask, sums_of(mask), scale.to(dtype)


def of_scales(images: Images, spec: LossSpec) -> Images:
    """The images with a weight m / s for losses over several scales, all of which are means."""
    if images.weight is None or images.weight is images.mask:  # a mask is ordinary
        return images
    weight, _, _ = scaled(
        images.weight,
        compute_dtype(images.input.dtype, images.target.dtype),
        mean_over(spec),
        lambda weight: [sum_images(weight)],
        lambda weight: weight,
    )
    return images._replace(weight=weight)


def _scale(weight: Tensor, over: MeanOver) -> Tensor:
    """s, (N or 1, 1, ...) or (): 1 if the largest weight is ordinary or any is not finite."""
    dims = list(range(1 if over == "image" else 0, weight.dim()))
    peak = weight.abs().amax(dim=dims, keepdim=True) if dims else weight.abs()
    peak = peak.nan_to_num(
        nan=1.0, posinf=1.0
    )  # NaN and infinity must not reach s, and with it all
    least_normal = torch.finfo(weight.dtype).tiny  # instead of 0, by which one cannot divide
    return peak.clamp(min=least_normal) / peak.clamp(LEAST, GREATEST)


def _ordinary(sums: Tensor, zero_is_zero: bool) -> bool:
    if zero_is_zero:
        sums = sums.masked_fill(sums == 0.0, 1.0)
    if sums.numel() == 0:
        return True
    least, greatest = (extreme.item() for extreme in torch.aminmax(sums))
    return least >= LEAST and greatest <= GREATEST  # false for NaN
