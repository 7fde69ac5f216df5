"""The shifts: constants close to d = x - y and s = x + y, about which a plane's moments are taken.

Rounding grows with the distance from the shift. It costs a window's variance of d about
(d - shift_d)^2 of what is rounded, and the gradient (d - shift_d): much where the images are nearly
equal, little where they differ. So shift_d is a mean in which a pixel counts by 1/d^2. A defect in
otherwise equal images does not move it, whether the defect covers a hundredth of the plane or most
of it; and where all pixels differ by the same offset in brightness, it is that offset. shift_s is
the mean.

Under a mask only unmasked pixels count, and the variance of s has two shifts of its own: the means
of the pixels below and above the mean (masked_moments.py).
"""

import triton
import triton.language as tl

from lamp_kernels.backends.triton.formulas import reciprocal
from lamp_kernels.backends.triton.jit import kernel
from lamp_kernels.backends.triton.memory import image_scale

EQUAL = tl.constexpr(1e-6)  # in units of data_range; all differences below it count alike
HUGE = tl.constexpr(1e18)  # the squares of larger numbers come close to infinity


@triton.jit
def shift_terms(
    row, column, x_plane, x_row, x_column, y_plane, y_row, y_column,
    weight_plane, weight_row, weight_column, scale, weighted: tl.constexpr,
    compute_dtype: tl.constexpr,
):  # fmt: skip
    """1/d^2, d/d^2, s and 1 of each pixel, all 0 where the pixel does not count.

    A pixel that is not finite, or huge, does not count, so that it stays in its windows; nor does
    one of weight 0.
    """
    x = tl.load(x_plane + row * x_row + column * x_column).to(compute_dtype) * scale
    y = tl.load(y_plane + row * y_row + column * y_column).to(compute_dtype) * scale
    d = x - y
    s = x + y
    counts = (tl.abs(d) < HUGE) & (tl.abs(s) < HUGE)
    if weighted:
        counts &= tl.load(weight_plane + row * weight_row + column * weight_column) != 0.0
    d = tl.where(counts, d, 0.0)
    closeness = tl.where(counts, reciprocal(d * d + EQUAL * EQUAL), 0.0)
    return closeness, closeness * d, tl.where(counts, s, 0.0), counts.to(compute_dtype)


@kernel
def plane_shifts(
    x_ptr, x_batch: tl.int64, x_channel: tl.int64, x_row: tl.int64, x_column: tl.int64,
    y_ptr, y_batch: tl.int64, y_channel: tl.int64, y_row: tl.int64, y_column: tl.int64,
    weight_ptr, weight_batch: tl.int64, weight_channel: tl.int64, weight_row: tl.int64,
    weight_column: tl.int64, weight_offset: tl.int64,
    scales_ptr,  # (N,), 1/data_range of each image, or None: then all images share `scale`
    shifts_ptr,  # (planes, 2): of d and s, in units of data_range; if masked (planes, 4): the tones
    channels: tl.int64, first: tl.int64, height: tl.int64, width: tl.int64,
    scale: tl.float64,
    weighted: tl.constexpr, masked: tl.constexpr, samples: tl.constexpr,
    compute_dtype: tl.constexpr,
):  # fmt: skip
    """The shifts of each plane, from a sample of its pixels: those of nonzero weight, if any.

    masked: the weight is the mask. Then no other pixel counts: if none of the sample does, each
    lane searches a share of the plane for one that does.

    The pixels are the points (i / g, i / g^2) modulo 1, g^3 = g + 1 (Roberts' R2 sequence, in units
    of 2^-32): evenly spread, and out of step with any repeating texture. They are taken from
    `height` rows and `width` columns, starting at row and column `first`.
    """
    plane = tl.program_id(0).to(tl.int64)
    image = plane // channels
    channel = plane % channels
    x_plane = x_ptr + image * x_batch + channel * x_channel
    y_plane = y_ptr + image * y_batch + channel * y_channel
    weight_plane = weight_ptr + image * weight_batch + channel * weight_channel + weight_offset
    scale = image_scale(scale, scales_ptr, image, compute_dtype)
    i = tl.arange(0, samples).to(tl.int64)
    row = first + (((i * 3242174889) & 0xFFFFFFFF) * height >> 32)
    column = first + (((i * 2447445414) & 0xFFFFFFFF) * width >> 32)
    closeness, d, s, count = shift_terms(
        row, column, x_plane, x_row, x_column, y_plane, y_row, y_column,
        weight_plane, weight_row, weight_column, scale, weighted, compute_dtype,
    )  # fmt: skip
    if masked:
        pixels = tl.where(tl.sum(count, 0) == 0.0, height * width, 0)
        for start in range(0, pixels, samples):
            pixel = start + tl.arange(0, samples).to(tl.int64)
            new_closeness, new_d, new_s, new_count = shift_terms(
                tl.minimum(pixel // width, height - 1), pixel % width,
                x_plane, x_row, x_column, y_plane, y_row, y_column,
                weight_plane, weight_row, weight_column, scale, True, compute_dtype,
            )  # fmt: skip
            is_first = (pixel < pixels) & (count == 0.0)
            closeness = tl.where(is_first, new_closeness, closeness)
            d = tl.where(is_first, new_d, d)
            s = tl.where(is_first, new_s, s)
            count = tl.where(is_first, new_count, count)
    elif weighted:  # noqa: SIM102 - one condition is a constant, the other depends on the data
        if tl.sum(count, 0) == 0.0:
            closeness, d, s, count = shift_terms(
                row, column, x_plane, x_row, x_column, y_plane, y_row, y_column,
                weight_plane, weight_row, weight_column, scale, False, compute_dtype,
            )  # fmt: skip
    # Where all differences are so large that 1/d^2 is 0, the shift is 0.
    total = tl.sum(closeness, 0)
    shift_d = tl.where(total > 0.0, tl.sum(d, 0) / tl.where(total > 0.0, total, 1.0), 0.0)
    total_s = tl.sum(s, 0)
    counted = tl.sum(count, 0)
    shift_s = total_s / tl.maximum(counted, 1.0)
    shifts = shifts_ptr + (4 if masked else 2) * plane
    tl.store(shifts, shift_d)
    tl.store(shifts + 1, shift_s)
    if masked:
        bright = tl.where((count > 0.0) & (s > shift_s), 1.0, 0.0).to(compute_dtype)
        brighter = tl.sum(bright, 0)
        total_bright = tl.sum(bright * s, 0)
        darker = counted - brighter
        tl.store(shifts + 2, (total_s - total_bright) / tl.maximum(darker, 1.0))
        tl.store(shifts + 3, total_bright / tl.maximum(brighter, 1.0))
