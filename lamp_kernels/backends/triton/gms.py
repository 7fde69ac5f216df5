"""Gradient magnitude similarity: losses, and their gradients in the same pass.

A lane owns one or two columns and walks down them. It keeps the rows of pixels that the 3 x 3
operator sees, and computes the loss of a row of positions. For the gradient it computes them one
column further on each side as well: it then has all the loss's derivatives that its own pixels
occur in. The gradient of a row is complete one row of positions later.

Prewitt's operator is the difference of two pixels along one axis, summed over three lines along the
other, and divided by 3. The differences come first: those of nearly equal pixels are exact.
"""

import triton
import triton.language as tl

from lamp_kernels.backends.triton.borders import (
    REFLECT,
    VALID,
    ZEROS,
    border_columns,
    border_index,
    in_bounds,
)
from lamp_kernels.backends.triton.formulas import amplify, gms
from lamp_kernels.backends.triton.jit import kernel
from lamp_kernels.backends.triton.memory import (
    column_offset,
    image_scale,
    number,
    numbers,
    pixel_offset,
    read,
    row_pointer,
    term_factors,
    tuple_of,
)
from lamp_kernels.backends.triton.windows import tile_of


@triton.jit
def pixel_row(
    v, images, height, width, first, columns, halo: tl.constexpr, border: tl.constexpr,
    dense: tl.constexpr, compute_dtype: tl.constexpr,
):  # fmt: skip
    """Row v of x, of y and of d = x - y, at the columns that a lane sees: from first - halo on.

    images: addresses, strides of rows, strides of columns, of x and y in turn.
    """
    x_plane, y_plane, x_row, y_row, x_column, y_column = images
    in_rows = (v >= 0) & (v < height)
    if border != ZEROS:
        in_rows = True
    row = border_index(v, height, border)
    x_line = row_pointer(x_plane, row, x_row, dense)
    y_line = row_pointer(y_plane, row, y_row, dense)
    x = ()
    y = ()
    d = ()
    for k in tl.static_range(len(columns)):
        mask = in_bounds(in_rows, first + (k - halo), width, border != ZEROS)
        x_k = read(x_line + column_offset(columns[k], x_column, dense), mask, compute_dtype)
        y_k = read(y_line + column_offset(columns[k], y_column, dense), mask, compute_dtype)
        x = x + (x_k,)
        y = y + (y_k,)
        d = d + (x_k - y_k,)
    return x, y, d


@triton.jit
def prewitt(above, at, below, k: tl.constexpr, third):
    """The gradient along x and along y of one plane, at the position of pixel k + 1 of the rows."""
    along_x = (above[k + 2] - above[k]) + (at[k + 2] - at[k]) + (below[k + 2] - below[k])
    along_y = (below[k] - above[k]) + (below[k + 1] - above[k + 1]) + (below[k + 2] - above[k + 2])
    return along_x * third, along_y * third


@triton.jit
def adjoint_of_row(along_x, along_y, first, width, border: tl.constexpr, across: tl.constexpr):
    """What a row of positions adds to the gradient, along x and along y, at each own column.

    along_x, along_y: the derivatives by the gradient's components, from column first - 1 on.
    A position on a mirrored edge sees its inner neighbor twice. Along the difference the two cancel
    out; along the sum they add up.
    """
    of_difference = ()
    of_sum = ()
    for c in tl.static_range(across):
        left = along_y[c]
        right = along_y[c + 2]
        if border == REFLECT:
            left = tl.where(first + c == 1, left + left, left)
            right = tl.where(first + c == width - 2, right + right, right)
        of_difference = of_difference + (along_x[c] - along_x[c + 2],)
        of_sum = of_sum + (left + along_y[c + 1] + right,)
    return of_difference, of_sum


@triton.jit
def store_gradient(
    plane, row_stride, column_stride, row, begin, before, at, after, first, height, width, third,
    border: tl.constexpr, across: tl.constexpr,
):  # fmt: skip
    """Write a row of the gradient, if the tile has it.

    before, at, after: `adjoint_of_row` of the rows of positions above, at and below it.
    """
    up = 1.0
    down = 1.0
    if border == REFLECT:
        up = tl.where(row == 1, 2.0, 1.0).to(third.dtype)
        down = tl.where(row == height - 2, 2.0, 1.0).to(third.dtype)
    for c in tl.static_range(across):
        column = first + c
        gradient = up * before[0][c] + at[0][c] + down * after[0][c] + (before[1][c] - after[1][c])
        tl.store(
            plane + pixel_offset(row, column, row_stride, column_stride), gradient * third,
            mask=(column < width) & (row >= begin),
        )  # fmt: skip


@kernel
def gms_losses(
    x_ptr, x_batch: tl.int64, x_channel: tl.int64, x_row: tl.int64, x_column: tl.int64,
    y_ptr, y_batch: tl.int64, y_channel: tl.int64, y_row: tl.int64, y_column: tl.int64,
    weight_ptr, weight_batch: tl.int64, weight_channel: tl.int64, weight_row: tl.int64,
    weight_column: tl.int64, weight_offset: tl.int64,
    mask_ptr, mask_batch: tl.int64, mask_channel: tl.int64, mask_row: tl.int64,  # columns adjacent
    map_ptr, map_batch: tl.int64, map_channel: tl.int64, map_row: tl.int64, map_column: tl.int64,
    map_offset: tl.int64,
    dx_ptr, dx_batch: tl.int64, dx_channel: tl.int64, dx_row: tl.int64, dx_column: tl.int64,
    dy_ptr, dy_batch: tl.int64, dy_channel: tl.int64, dy_row: tl.int64, dy_column: tl.int64,
    factors_ptr,  # (N, 1), or (1,) for a map, or None: then all images share
    shared0: tl.float64, shared1: tl.float64, shared2: tl.float64,
    scales_ptr,  # (N,), 1/data_range of each image, or None: then all images share `scale`
    partial_ptr,  # (programs,): what each adds up
    channels: tl.int32, height: tl.int32, width: tl.int32,
    strips: tl.int32, bands: tl.int32, band_height: tl.int32,
    scale: tl.float64, gms_constant: tl.float64,
    amplification0: tl.float64, amplification1: tl.float64, amplification2: tl.float64,
    border: tl.constexpr, gradients: tl.constexpr, writes_map: tl.constexpr,
    weighted: tl.constexpr, masked: tl.constexpr, amplification: tl.constexpr,
    dense: tl.constexpr, block: tl.constexpr, across: tl.constexpr, compute_dtype: tl.constexpr,
):  # fmt: skip
    """Sums of m A(L) over each tile, their gradients, and the map of factor A(L).

    The mask is of positions: where it is 0, the operator may see NaN, and loss and slopes are 0.
    """
    program = tl.program_id(0).to(tl.int64)
    plane, strip, band = tile_of(program, strips, bands, 0)
    image = plane // channels
    channel = plane % channels
    x_plane = x_ptr + image * x_batch + channel * x_channel
    y_plane = y_ptr + image * y_batch + channel * y_channel
    weight_plane = weight_ptr + image * weight_batch + channel * weight_channel + weight_offset
    mask_plane = mask_ptr + image * mask_batch + channel * mask_channel
    map_plane = map_ptr + image * map_batch + channel * map_channel + map_offset
    dx_plane = dx_ptr + image * dx_batch + channel * dx_channel
    dy_plane = dy_ptr + image * dy_batch + channel * dy_channel

    third = image_scale(scale, scales_ptr, image, compute_dtype) / 3.0
    gms_constant = number(gms_constant, compute_dtype)
    constants = numbers((amplification0, amplification1, amplification2), compute_dtype)
    image_factors: tl.constexpr = 0 if writes_map else 1
    factors = term_factors(
        factors_ptr, image * image_factors, (shared0, shared1, shared2), 1, compute_dtype
    )

    reach: tl.constexpr = 1 if gradients > 0 else 0  # rows and columns of positions beyond the tile
    halo: tl.constexpr = reach + 1  # and of pixels
    margin: tl.constexpr = 1 if border == VALID else 0
    first = (strip * (block * across)).to(tl.int32) + across * tl.arange(0, block)
    columns = border_columns(first, width, halo, border, across)
    begin = (band * band_height).to(tl.int32)
    end = tl.minimum(begin + band_height, height)
    images = (x_plane, y_plane, x_row, y_row, x_column, y_column)

    total = tl.zeros([block], compute_dtype)
    none = tuple_of(tl.zeros([block], compute_dtype), across)
    dx_before = (none, none)
    dx_at = (none, none)
    dy_before = (none, none)
    dy_at = (none, none)
    above = pixel_row(
        begin - halo, images, height, width, first, columns, halo, border, dense, compute_dtype
    )
    at = pixel_row(
        begin - reach, images, height, width, first, columns, halo, border, dense, compute_dtype
    )
    for row in range(begin - reach, end + reach):
        below = pixel_row(
            row + 1, images, height, width, first, columns, halo, border, dense, compute_dtype
        )
        in_grid = (row >= margin) & (row < height - margin)
        in_tile = in_grid & (row >= begin) & (row < end)
        dx_along_x = ()
        dx_along_y = ()
        dy_along_x = ()
        dy_along_y = ()
        for k in tl.static_range(across + 2 * reach):
            column = first + (k - reach)
            inside = in_grid & (column >= margin) & (column < width - margin)
            counts = inside
            if masked:
                place = mask_plane + pixel_offset(row, column, mask_row, 1)
                counts = inside & (tl.load(place, mask=inside, other=0.0) != 0.0)
            x_1, x_2 = prewitt(above[0], at[0], below[0], k, third)
            y_1, y_2 = prewitt(above[1], at[1], below[1], k, third)
            d_1, d_2 = prewitt(above[2], at[2], below[2], k, third)
            loss, by_x, by_y = gms(
                x_1 * x_1 + x_2 * x_2, y_1 * y_1 + y_2 * y_2,
                d_1 * (x_1 + y_1) + d_2 * (x_2 + y_2), gms_constant,
            )  # fmt: skip
            value, slope = amplify(loss, amplification, constants)
            if masked:
                value = tl.where(counts, value, 0.0)
            counted = value
            if weighted:
                weight = tl.load(
                    weight_plane + pixel_offset(row, column, weight_row, weight_column),
                    mask=counts, other=0.0,
                )  # fmt: skip
                counted *= weight
                slope *= weight
            if k >= reach and k < across + reach:
                total += tl.where(counts & in_tile, counted, 0.0)
                if writes_map:
                    tl.store(
                        map_plane + pixel_offset(row, column, map_row, map_column),
                        value * factors[0], mask=inside & in_tile,
                    )  # fmt: skip
            if gradients > 0:
                slope *= factors[0]
                by_x *= slope
                by_y *= slope
                dx_along_x = dx_along_x + (tl.where(counts, by_x * x_1, 0.0),)
                dx_along_y = dx_along_y + (tl.where(counts, by_x * x_2, 0.0),)
                dy_along_x = dy_along_x + (tl.where(counts, by_y * y_1, 0.0),)
                dy_along_y = dy_along_y + (tl.where(counts, by_y * y_2, 0.0),)
        if gradients > 0:
            dx_after = adjoint_of_row(dx_along_x, dx_along_y, first, width, border, across)
            store_gradient(
                dx_plane, dx_row, dx_column, row - 1, begin, dx_before, dx_at, dx_after, first,
                height, width, third, border, across,
            )  # fmt: skip
            dx_before, dx_at = dx_at, dx_after
        if gradients == 2:
            dy_after = adjoint_of_row(dy_along_x, dy_along_y, first, width, border, across)
            store_gradient(
                dy_plane, dy_row, dy_column, row - 1, begin, dy_before, dy_at, dy_after, first,
                height, width, third, border, across,
            )  # fmt: skip
            dy_before, dy_at = dy_at, dy_after
        above = at
        at = below

    if not writes_map:
        tl.store(partial_ptr + program, tl.sum(total.to(tl.float64), 0))
