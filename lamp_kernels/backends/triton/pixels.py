"""Pointwise losses without SSIM: a program takes a run of pixels of one plane."""

import triton
import triton.language as tl

from lamp_kernels.backends.triton.jit import kernel
from lamp_kernels.backends.triton.ssim import pointwise, read
from lamp_kernels.backends.triton.sums import factor_of
from lamp_kernels.backends.triton.windows import offset


@triton.jit
def start(pointer, image, batch_stride, channel, channel_stride, aligned: tl.constexpr):
    """Of a plane. aligned: its address is a multiple of 16 bytes, and the compiler is told so."""
    plane = pointer + image * batch_stride + channel * channel_stride
    if aligned:
        plane = tl.multiple_of(plane, 16)
    return plane


@triton.jit
def place(
    plane, row, column, row_stride, column_stride, one_row: tl.constexpr, dense: tl.constexpr
):
    """Of pixels in a plane. dense: columns have stride 1."""
    found = plane + offset(column, column_stride, dense)
    if not one_row:
        found += row.to(tl.int64) * row_stride
    return found


@kernel
def pixel_losses(
    x_ptr, x_batch: tl.int64, x_channel: tl.int64, x_row: tl.int64, x_column: tl.int64,
    y_ptr, y_batch: tl.int64, y_channel: tl.int64, y_row: tl.int64, y_column: tl.int64,
    weight_ptr, weight_batch: tl.int64, weight_channel: tl.int64, weight_row: tl.int64,
    weight_column: tl.int64,
    map_ptr, map_batch: tl.int64, map_channel: tl.int64, map_row: tl.int64, map_column: tl.int64,
    dx_ptr, dx_batch: tl.int64, dx_channel: tl.int64, dx_row: tl.int64, dx_column: tl.int64,
    dy_ptr, dy_batch: tl.int64, dy_channel: tl.int64, dy_row: tl.int64, dy_column: tl.int64,
    factors_ptr,  # (N, terms), or (terms,) where there is a map, or None
    shared0: tl.float64, shared1: tl.float64, shared2: tl.float64,  # else those of every image
    partial_ptr,  # (programs, terms)
    channels: tl.int32, height: tl.int64, width: tl.int64, runs: tl.int32,
    scale: tl.float64, knee: tl.float64, steepest: tl.float64,
    gradients: tl.constexpr, writes_map: tl.constexpr, weighted: tl.constexpr,
    mse: tl.constexpr, l1: tl.constexpr, log: tl.constexpr,
    one_row: tl.constexpr, dense: tl.constexpr, aligned: tl.constexpr, narrow: tl.constexpr,
    block: tl.constexpr, pieces: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    """Sums of m A(L) over each run of pixels, and their gradients or the map of factor A(L).

    runs: of a plane, `pieces * block` pixels each. one_row: the height is 1, and no pixel has to be
    divided by the width. dense: columns of both images have stride 1. aligned: so have those of
    what is written, there is one row, of a multiple of 16 pixels, and 16 bytes divide the address
    of each plane: then an access takes several pixels. narrow: 32 bits count the pixels of a plane.
    """
    program = tl.program_id(0)
    plane = program // runs
    first = (program % runs).to(tl.int64) * (pieces * block)
    image = (plane // channels).to(tl.int64)
    channel = (plane % channels).to(tl.int64)
    x_plane = start(x_ptr, image, x_batch, channel, x_channel, aligned)
    y_plane = start(y_ptr, image, y_batch, channel, y_channel, aligned)
    weight_plane = start(weight_ptr, image, weight_batch, channel, weight_channel, False)
    map_plane = start(map_ptr, image, map_batch, channel, map_channel, aligned)
    dx_plane = start(dx_ptr, image, dx_batch, channel, dx_channel, aligned)
    dy_plane = start(dy_ptr, image, dy_batch, channel, dy_channel, aligned)
    pixels = height * width
    if narrow:
        first = first.to(tl.int32)
        pixels = pixels.to(tl.int32)
        width = width.to(tl.int32)
    if aligned:
        pixels = tl.multiple_of(pixels, 16)

    scale = tl.full((), scale, real)
    knee = tl.full((), knee, real)
    steepest = tl.full((), steepest, real)
    terms: tl.constexpr = mse + l1
    of_image: tl.constexpr = 0 if writes_map else terms
    factor = factor_of(factors_ptr, image * of_image, shared0, real)
    second_factor = factor
    if terms > 1:
        second_factor = factor_of(factors_ptr, image * of_image + 1, shared1, real)

    total = tl.zeros([block], real)
    second_total = tl.zeros([block], real)
    for piece in range(0, tl.minimum(pixels - first, pieces * block), block):
        pixel = first + piece + tl.arange(0, block)
        there = pixel < pixels
        row = pixel
        column = pixel
        if not one_row:
            row = pixel // width
            column = pixel - row * width
        x = read(place(x_plane, row, column, x_row, x_column, one_row, dense), there, real)
        y = read(place(y_plane, row, column, y_row, y_column, one_row, dense), there, real)
        first_term, second_term, value, slope = pointwise(
            (x - y) * scale, factor, second_factor, mse, l1, log, knee, steepest
        )
        if weighted:
            weight = read(
                place(weight_plane, row, column, weight_row, weight_column, one_row, False),
                there, real,
            )  # fmt: skip
            first_term *= weight
            second_term *= weight
            slope *= weight
        total += tl.where(there, first_term, 0.0)
        second_total += tl.where(there, second_term, 0.0)
        if writes_map:
            at = place(map_plane, row, column, map_row, map_column, one_row, aligned)
            tl.store(at, value, mask=there)
        if gradients > 0:
            by_x = slope * scale
            at = place(dx_plane, row, column, dx_row, dx_column, one_row, aligned)
            tl.store(at, by_x, mask=there)
            if gradients == 2:
                at = place(dy_plane, row, column, dy_row, dy_column, one_row, aligned)
                tl.store(at, -by_x, mask=there)

    if not writes_map:
        partial = partial_ptr + program.to(tl.int64) * terms
        tl.store(partial, tl.sum(total.to(tl.float64), 0))
        if terms > 1:
            tl.store(partial + 1, tl.sum(second_total.to(tl.float64), 0))
