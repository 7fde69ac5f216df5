"""What the moments of a plane are taken about: rounding grows with the square of the distance."""

import triton.language as tl

from lamp_kernels.triton.jit import kernel


@kernel
def plane_levels(
    x_ptr, x_batch: tl.int64, x_channel: tl.int64, x_row: tl.int64, x_column: tl.int64,
    y_ptr, y_batch: tl.int64, y_channel: tl.int64, y_row: tl.int64, y_column: tl.int64,
    levels_ptr,  # (planes, 2): of d = x - y and s = x + y, in units of data_range
    channels: tl.int64, height: tl.int64, width: tl.int64,
    scale: tl.float64,
    samples: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    """The means of d and s over some pixels of each plane.

    The pixels are the points (i / g, i / g^2) modulo 1, g^3 = g + 1 (Roberts' R2 sequence, in units
    of 2^-32): evenly spread, and in step with no texture that repeats. Pixels that are not finite
    do not count, so that a NaN stays in its windows.
    """
    plane = tl.program_id(0).to(tl.int64)
    image = plane // channels
    channel = plane % channels
    i = tl.arange(0, samples).to(tl.int64)
    row = ((i * 3242174889) & 0xFFFFFFFF) * height >> 32
    column = ((i * 2447445414) & 0xFFFFFFFF) * width >> 32
    x_place = x_ptr + image * x_batch + channel * x_channel + row * x_row + column * x_column
    y_place = y_ptr + image * y_batch + channel * y_channel + row * y_row + column * y_column
    x = tl.load(x_place).to(real)
    y = tl.load(y_place).to(real)
    d = x - y
    s = x + y
    finite = (d - d == 0.0) & (s - s == 0.0)
    count = tl.sum(finite.to(real), 0)
    share = tl.full((), scale, real) / tl.maximum(count, 1.0)
    tl.store(levels_ptr + 2 * plane, tl.sum(tl.where(finite, d, 0.0), 0) * share)
    tl.store(levels_ptr + 2 * plane + 1, tl.sum(tl.where(finite, s, 0.0), 0) * share)
