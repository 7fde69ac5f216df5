"""The windowed moments of d = x - y and s = x + y, row by row.

d and s are taken about a shift, a constant close to their values, because rounding grows with their
distance from it. Both kernels take them about their plane's shifts (centering.py). The variance of
s is taken about a shift of the lane's own, which follows its windows.
"""

import triton
import triton.language as tl

from lamp_kernels.backends.triton.borders import ZEROS, border_index, in_bounds
from lamp_kernels.backends.triton.memory import column_offset, read, row_pointer
from lamp_kernels.backends.triton.windows import along_x, move_shift, push, squares_along_x


@triton.jit
def difference_and_sum(x, y, scale, shift_d, shift_s):
    """d and s of a pixel in units of data_range, minus their shifts."""
    return (x - y) * scale - shift_d, (x + y) * scale - shift_s


@triton.jit
def pixels_at(
    k: tl.constexpr, lines, first, columns, x_column, y_column, width, radius: tl.constexpr,
    border: tl.constexpr, dense: tl.constexpr, compute_dtype: tl.constexpr,
):  # fmt: skip
    """The pixels of both images at the k-th column that a lane sees."""
    mask = in_bounds(lines[2], first + (k - radius), width, border != ZEROS)
    column = columns[k]
    if border == ZEROS:
        # Nothing is read beyond an edge, so no column has to be moved inside. In 64 bits each
        # column is a constant away from `first`; in 32 bits, where that may wrap, the address of
        # each would take two registers.
        column = first.to(tl.int64) + (k - radius)
    x = read(lines[0] + column_offset(column, x_column, dense), mask, compute_dtype)
    y = read(lines[1] + column_offset(column, y_column, dense), mask, compute_dtype)
    return x, y


@triton.jit
def row_at(
    v, images, height, width, first, columns, radius: tl.constexpr, border: tl.constexpr,
    dense: tl.constexpr, across: tl.constexpr, compute_dtype: tl.constexpr,
):  # fmt: skip
    """Row v of both images: addresses and mask, and the pixels at a lane's outermost columns.

    images: addresses, strides of rows, strides of columns, of x and y in turn.
    Only under "zeros" do windows see no pixel beyond an edge.
    """
    x_plane, y_plane, x_row, y_row, x_column, y_column = images
    mask = (v >= 0) & (v < height)
    if border != ZEROS:
        mask = True
    row = border_index(v, height, border)
    lines = (row_pointer(x_plane, row, x_row, dense), row_pointer(y_plane, row, y_row, dense), mask)
    last: tl.constexpr = 2 * radius + across - 1
    x_0, y_0 = pixels_at(
        0, lines, first, columns, x_column, y_column, width, radius, border, dense, compute_dtype
    )
    x_1, y_1 = pixels_at(
        last, lines, first, columns, x_column, y_column, width, radius, border, dense, compute_dtype
    )
    return lines, (x_0, y_0, x_1, y_1)


@triton.jit
def far(mean, square, c2):
    """Whether variance/2 + c2 < mean^2/256: otherwise rounding costs that sum at most some 5e-6."""
    return (0.5 + 1 / 256) * (mean * mean) - 0.5 * square > c2


@triton.jit
def moments_of_row(
    lines, ends, sums, lane_shift, first, columns, x_column, y_column, width, taps,
    scale, shift_d, c2, rows_to_follow, radius: tl.constexpr, border: tl.constexpr,
    dense: tl.constexpr, across: tl.constexpr, compute_dtype: tl.constexpr,
):  # fmt: skip
    """Add a row of d, s, d^2 and s^2 to the windows; those centered `radius` rows above complete.

    Returns the complete windows (mean_d, mean_s, square_d, square_s; each a tuple over a lane's
    columns), the sums, and `lane_shift` for the next row.
    lane_shift: the shift of s in a lane's windows, and how many of the last rows were far from it.
    Where bright pixels lie beside dark ones, the plane's shift is far from both and costs the
    variance digits. So once the last `rows_to_follow` rows are far, the shift moves to this row,
    and the sums with it.
    ends: the pixels at the first and the last column that a lane sees, which the kernels request
    two rows ahead. All lanes together request whole rows this way, and the columns in between then
    come from the L1 cache.
    """
    last: tl.constexpr = 2 * radius + across - 1
    shift_s, far_rows = lane_shift
    d_0, s_0 = difference_and_sum(ends[0], ends[1], scale, shift_d, shift_s)
    d = (d_0,)
    s = (s_0,)
    for k in tl.static_range(1, last):
        x, y = pixels_at(
            k, lines, first, columns, x_column, y_column, width, radius, border, dense,
            compute_dtype,
        )  # fmt: skip
        d_k, s_k = difference_and_sum(x, y, scale, shift_d, shift_s)
        d = d + (d_k,)
        s = s + (s_k,)
    d_1, s_1 = difference_and_sum(ends[2], ends[3], scale, shift_d, shift_s)
    d = d + (d_1,)
    s = s + (s_1,)
    mean_d = along_x(d, taps, radius, across)
    mean_s = along_x(s, taps, radius, across)
    square_d = squares_along_x(d, taps, radius, across)
    square_s = squares_along_x(s, taps, radius, across)
    mean_s_sums = sums[1]
    square_s_sums = sums[3]
    if compute_dtype == tl.float32:  # float64 has digits to spare
        # Only a lane's first column is tested. The other one's window is one pixel further: if that
        # sees an edge that the first does not, its variance is large.
        far_rows = tl.where(far(mean_s[0], square_s[0], c2), far_rows + 1, 0)
        if tl.max(far_rows, 0) >= rows_to_follow:
            step = tl.where(far_rows >= rows_to_follow, mean_s[0], 0.0)
            shift_s += step
            mean_s_sums, square_s_sums = move_shift(
                mean_s_sums, square_s_sums, step, taps, radius, across
            )
            near = ()
            for k in tl.static_range(last + 1):
                near = near + (s[k] - step,)
            mean_s = along_x(near, taps, radius, across)
            square_s = squares_along_x(near, taps, radius, across)

    mean_d, mean_d_sums = push(sums[0], mean_d, taps, radius, across)
    mean_s, mean_s_sums = push(mean_s_sums, mean_s, taps, radius, across)
    square_d, square_d_sums = push(sums[2], square_d, taps, radius, across)
    square_s, square_s_sums = push(square_s_sums, square_s, taps, radius, across)
    next_sums = (mean_d_sums, mean_s_sums, square_d_sums, square_s_sums)
    return (mean_d, mean_s, square_d, square_s), next_sums, (shift_s, far_rows)
