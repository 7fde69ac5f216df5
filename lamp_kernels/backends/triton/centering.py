"""What d = x - y and s = x + y of a plane are taken about: rounding grows with the distance to it.

It costs a window's variance of d about (d - level)^2 of what is rounded, and the gradient
(d - level): much where the images are nearly equal, little where they differ. So the level of d is
a mean in which a pixel counts by 1/d^2. A defect beside which the images are equal does not move
it, whether it covers a hundredth of the plane or most of it; and where all pixels differ by the
same, in brightness, it is that difference. The level of s is the mean.
"""

import triton
import triton.language as tl

from lamp_kernels.backends.triton.formulas import reciprocal
from lamp_kernels.backends.triton.jit import kernel

EQUAL = tl.constexpr(1e-6)  # differences, in units of data_range; smaller ones are all alike
HUGE = tl.constexpr(1e18)  # the squares of what is larger are hardly finite


@triton.jit
def level_terms(
    row, column, x_plane, x_row, x_column, y_plane, y_row, y_column,
    weight_plane, weight_row, weight_column, scale, weighted: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    """Of pixels: 1/d^2, d/d^2, s and 1, each 0 where the pixel does not count.

    What is not finite, or huge, does not, so that it stays in its windows; nor does a weight of 0.
    """
    x = tl.load(x_plane + row * x_row + column * x_column).to(real) * scale
    y = tl.load(y_plane + row * y_row + column * y_column).to(real) * scale
    d = x - y
    s = x + y
    counts = (tl.abs(d) < HUGE) & (tl.abs(s) < HUGE)
    if weighted:
        counts &= tl.load(weight_plane + row * weight_row + column * weight_column) != 0.0
    d = tl.where(counts, d, 0.0)
    by_pixel = tl.where(counts, reciprocal(d * d + EQUAL * EQUAL), 0.0)
    return by_pixel, by_pixel * d, tl.where(counts, s, 0.0), counts.to(real)


@kernel
def plane_levels(
    x_ptr, x_batch: tl.int64, x_channel: tl.int64, x_row: tl.int64, x_column: tl.int64,
    y_ptr, y_batch: tl.int64, y_channel: tl.int64, y_row: tl.int64, y_column: tl.int64,
    weight_ptr, weight_batch: tl.int64, weight_channel: tl.int64, weight_row: tl.int64,
    weight_column: tl.int64, weight_offset: tl.int64,
    levels_ptr,  # (planes, 2): of d and s, in units of data_range
    channels: tl.int64, first: tl.int64, height: tl.int64, width: tl.int64,
    scale: tl.float64,
    weighted: tl.constexpr, samples: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    """The levels of each plane, from some of its pixels, those whose weight is not 0 if there are.

    The pixels are the points (i / g, i / g^2) modulo 1, g^3 = g + 1 (Roberts' R2 sequence, in units
    of 2^-32): evenly spread, and in step with no texture that repeats. They are taken from `height`
    rows and `width` columns, from row and column `first` on.
    """
    plane = tl.program_id(0).to(tl.int64)
    image = plane // channels
    channel = plane % channels
    x_plane = x_ptr + image * x_batch + channel * x_channel
    y_plane = y_ptr + image * y_batch + channel * y_channel
    weight_plane = weight_ptr + image * weight_batch + channel * weight_channel + weight_offset
    scale = tl.full((), scale, real)
    i = tl.arange(0, samples).to(tl.int64)
    row = first + (((i * 3242174889) & 0xFFFFFFFF) * height >> 32)
    column = first + (((i * 2447445414) & 0xFFFFFFFF) * width >> 32)
    by_d, d, s, count = level_terms(
        row, column, x_plane, x_row, x_column, y_plane, y_row, y_column,
        weight_plane, weight_row, weight_column, scale, weighted, real,
    )  # fmt: skip
    if weighted:  # noqa: SIM102 - a constant, and what is read
        if tl.sum(count, 0) == 0.0:
            by_d, d, s, count = level_terms(
                row, column, x_plane, x_row, x_column, y_plane, y_row, y_column,
                weight_plane, weight_row, weight_column, scale, False, real,
            )  # fmt: skip
    # Differences so large that 1/d^2 is 0 have no level.
    total = tl.sum(by_d, 0)
    level_d = tl.where(total > 0.0, tl.sum(d, 0) / tl.where(total > 0.0, total, 1.0), 0.0)
    tl.store(levels_ptr + 2 * plane, level_d)
    tl.store(levels_ptr + 2 * plane + 1, tl.sum(s, 0) / tl.maximum(tl.sum(count, 0), 1.0))
