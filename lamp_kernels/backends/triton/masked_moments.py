"""The windowed moments of d = x - y and s = x + y under a mask m, row by row.

A window's mean of v is G*(m v) / G*m, so the kernel adds up G*m as well. A pixel of m = 0 is
replaced by 0, so it may hold anything.

The shift of s cannot follow a lane's windows as in moments.py: what a row contributes to each of
them depends on the mask. In float32 there are two shifts instead, a dark and a bright tone of the
plane (centering.py), and each window uses the closer one, as in lamp_kernels/reference.py. That
makes seven sums for each window, and a lane has registers for one column of them.
"""

import triton
import triton.language as tl

from lamp_kernels.backends.triton.borders import ZEROS, border_index, in_bounds
from lamp_kernels.backends.triton.formulas import reciprocal
from lamp_kernels.backends.triton.memory import read, row_pointer
from lamp_kernels.backends.triton.moments import difference_and_sum, pixels_at
from lamp_kernels.backends.triton.windows import push


@triton.jit
def full_weight(taps, radius: tl.constexpr):
    """G*1, added up in the order of the kernel, so that it equals G*m bit by bit where m is 1."""
    row = taps[0]
    for k in tl.static_range(1, radius + 1):
        row += taps[k] * 2.0
    total = taps[radius] * row
    for k in tl.static_range(1, radius + 1):
        total += taps[radius - k] * row
    for k in tl.static_range(1, radius + 1):
        total += taps[k] * row
    return total


@triton.jit
def moments_of_pixel(m, x, y, scale, shift_d, tones):
    """m, m d, m d^2, and m s, m s^2 about each of the tones."""
    d, _ = difference_and_sum(x, y, scale, shift_d, shift_d)
    moments = (m, m * d, m * d * d)
    for tone in tl.static_range(len(tones)):
        _, s = difference_and_sum(x, y, scale, shift_d, tones[tone])
        moments = moments + (m * s, m * s * s)
    return moments


@triton.jit
def masked_pixels_at(
    k: tl.constexpr, lines, ends, mask_line, first, columns, x_column, y_column, width,
    radius: tl.constexpr, border: tl.constexpr, dense: tl.constexpr, compute_dtype: tl.constexpr,
):  # fmt: skip
    """m, x and y at the k-th column that a lane sees; x and y are 0 where m is.

    lines, ends: from moments.row_at. Beyond the edges of a zero border m is 0.
    """
    if k == 0:
        x, y = ends[0], ends[1]
    elif k == 2 * radius:
        x, y = ends[2], ends[3]
    else:
        x, y = pixels_at(
            k, lines, first, columns, x_column, y_column, width, radius, border, dense,
            compute_dtype,
        )  # fmt: skip
    seen = in_bounds(lines[2], first + (k - radius), width, border != ZEROS)
    column = columns[k]
    if border == ZEROS:  # as in pixels_at
        column = first.to(tl.int64) + (k - radius)
    m = read(mask_line + column, seen, compute_dtype)
    return m, tl.where(m == 0.0, 0.0, x), tl.where(m == 0.0, 0.0, y)


@triton.jit
def masked_moments_of_row(
    v, lines, ends, mask, sums, first, columns, x_column, y_column, height, width, taps, scale,
    shift_d, tones, radius: tl.constexpr, border: tl.constexpr, dense: tl.constexpr,
    compute_dtype: tl.constexpr,
):  # fmt: skip
    """Add row v to the windows; those centered `radius` rows above complete.

    mask: address of the plane, whose columns are adjacent, and stride of its rows. tones: the
    shifts of s, one or two. sums: for each of `moments_of_pixel`.
    Returns the complete windows, in the order of `sums`, and the sums for the next row.
    """
    mask_line = row_pointer(mask[0], border_index(v, height, border), mask[1], False)
    m, x, y = masked_pixels_at(
        radius, lines, ends, mask_line, first, columns, x_column, y_column, width, radius, border,
        dense, compute_dtype,
    )  # fmt: skip
    row = moments_of_pixel(taps[0] * m, x, y, scale, shift_d, tones)
    for k in tl.static_range(1, radius + 1):
        m, x, y = masked_pixels_at(
            radius - k, lines, ends, mask_line, first, columns, x_column, y_column, width, radius,
            border, dense, compute_dtype,
        )  # fmt: skip
        left = moments_of_pixel(m, x, y, scale, shift_d, tones)
        m, x, y = masked_pixels_at(
            radius + k, lines, ends, mask_line, first, columns, x_column, y_column, width, radius,
            border, dense, compute_dtype,
        )  # fmt: skip
        right = moments_of_pixel(m, x, y, scale, shift_d, tones)
        next_row = ()
        for j in tl.static_range(len(row)):
            next_row = next_row + (row[j] + taps[k] * (left[j] + right[j]),)
        row = next_row
    complete = ()
    next_sums = ()
    for j in tl.static_range(len(row)):
        windows, after = push(sums[j], (row[j],), taps, radius, 1)
        complete = complete + (windows[0],)
        next_sums = next_sums + (after,)
    return complete, next_sums


@triton.jit
def normalized(complete, center, full, tones):
    """The moments of a window, its shift of s, and the factor 1/(G*m) that the moments include.

    center: m of the position. Where it is 0 the position does not count, and the factor is 1; where
    nothing in the window is masked, it is exactly 1, too. A window with so little of the mask that
    its reciprocal might not be finite sees nothing: the factor is 0.
    Returns mean_d, mean_s, square_d, square_s, shift_s, factor.
    """
    weight = complete[0]
    whole = (weight == full) | (center == 0.0)
    least: tl.constexpr = 2.0**-1018 if weight.dtype == tl.float64 else 2.0**-122
    inverse = reciprocal(tl.where(whole | (weight < least), 1.0, weight))
    factor = tl.where(whole, 1.0, tl.where(weight < least, 0.0, inverse))
    mean_s = complete[3]
    square_s = complete[4]
    shift_s = tl.zeros_like(mean_s) + tones[0]
    if len(tones) == 2:
        dark = tl.abs(mean_s) < tl.abs(complete[5])
        mean_s = tl.where(dark, mean_s, complete[5])
        square_s = tl.where(dark, square_s, complete[6])
        shift_s = tl.where(dark, shift_s, tones[1])
    mean_d = complete[1] * factor
    square_d = complete[2] * factor
    return mean_d, mean_s * factor, square_d, square_s * factor, shift_s, factor
