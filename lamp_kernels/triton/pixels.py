"""Pointwise losses without SSIM: a program takes a run of pixels of one plane."""

import triton.language as tl

from lamp_kernels.triton.jit import kernel
from lamp_kernels.triton.ssim import pointwise, read


@kernel
def pixel_losses(
    x_ptr, x_batch: tl.int64, x_channel: tl.int64, x_row: tl.int64, x_column: tl.int64,
    y_ptr, y_batch: tl.int64, y_channel: tl.int64, y_row: tl.int64, y_column: tl.int64,
    weight_ptr, weight_batch: tl.int64, weight_channel: tl.int64, weight_row: tl.int64,
    weight_column: tl.int64,
    map_ptr, map_batch: tl.int64, map_channel: tl.int64, map_row: tl.int64, map_column: tl.int64,
    dx_ptr, dx_batch: tl.int64, dx_channel: tl.int64, dx_row: tl.int64, dx_column: tl.int64,
    dy_ptr, dy_batch: tl.int64, dy_channel: tl.int64, dy_row: tl.int64, dy_column: tl.int64,
    factors_ptr,  # (N, terms), or (terms,) where there is a map
    partial_ptr,  # (programs, terms)
    channels: tl.int64, height: tl.int64, width: tl.int64, runs: tl.int64,
    scale: tl.float64, knee: tl.float64, steepest: tl.float64,
    gradients: tl.constexpr, writes_map: tl.constexpr, weighted: tl.constexpr,
    mse: tl.constexpr, l1: tl.constexpr, log: tl.constexpr,
    one_row: tl.constexpr, dense: tl.constexpr, block: tl.constexpr, pieces: tl.constexpr,
    real: tl.constexpr,
):  # fmt: skip
    """Sums of m A(L) over each run of pixels, and their gradients or the map of factor A(L).

    runs: of a plane, `pieces * block` pixels each. one_row: the height is 1, and no pixel has to be
    divided by the width. dense: columns of both images have stride 1.
    """
    program = tl.program_id(0).to(tl.int64)
    plane = program // runs
    image = plane // channels
    channel = plane % channels
    first = program % runs * (pieces * block)
    x_plane = x_ptr + image * x_batch + channel * x_channel
    y_plane = y_ptr + image * y_batch + channel * y_channel
    weight_plane = weight_ptr + image * weight_batch + channel * weight_channel
    map_plane = map_ptr + image * map_batch + channel * map_channel
    dx_plane = dx_ptr + image * dx_batch + channel * dx_channel
    dy_plane = dy_ptr + image * dy_batch + channel * dy_channel

    scale = tl.full((), scale, real)
    knee = tl.full((), knee, real)
    steepest = tl.full((), steepest, real)
    terms: tl.constexpr = mse + l1
    factors = factors_ptr
    if not writes_map:
        factors += image * terms
    factor = tl.load(factors)
    second_factor = factor
    if terms > 1:
        second_factor = tl.load(factors + 1)

    total = tl.zeros([block], real)
    second_total = tl.zeros([block], real)
    for piece in range(pieces):
        pixel = first + piece * block + tl.arange(0, block)
        there = pixel < height * width
        if one_row:
            row = pixel * 0
            column = pixel
        else:
            row = pixel // width
            column = pixel - row * width
        if dense:
            x_place = x_plane + row * x_row + column
            y_place = y_plane + row * y_row + column
        else:
            x_place = x_plane + row * x_row + column * x_column
            y_place = y_plane + row * y_row + column * y_column
        d = (read(x_place, there, real) - read(y_place, there, real)) * scale
        first_term, second_term, value, slope = pointwise(
            d, factor, second_factor, mse, l1, log, knee, steepest
        )
        if weighted:
            weight = read(weight_plane + row * weight_row + column * weight_column, there, real)
            first_term *= weight
            second_term *= weight
            slope *= weight
        total += tl.where(there, first_term, 0.0)
        second_total += tl.where(there, second_term, 0.0)
        if writes_map:
            tl.store(map_plane + row * map_row + column * map_column, value, mask=there)
        if gradients > 0:
            by_x = slope * scale
            tl.store(dx_plane + row * dx_row + column * dx_column, by_x, mask=there)
            if gradients == 2:
                tl.store(dy_plane + row * dy_row + column * dy_column, -by_x, mask=there)

    if not writes_map:
        tl.store(partial_ptr + program * terms, tl.sum(total.to(tl.float64), 0))
        if terms > 1:
            tl.store(partial_ptr + program * terms + 1, tl.sum(second_total.to(tl.float64), 0))
