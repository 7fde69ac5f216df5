"""Pointwise losses without SSIM: a program computes a run of pixels of one plane."""

import triton
import triton.language as tl

from lamp_kernels.backends.triton.formulas import pointwise_terms, term_count
from lamp_kernels.backends.triton.jit import kernel
from lamp_kernels.backends.triton.memory import (
    column_offset,
    image_scale,
    numbers,
    read,
    term_factors,
    tuple_of,
)


@triton.jit
def plane_pointer(pointer, image, batch_stride, channel, channel_stride, aligned: tl.constexpr):
    """The address of a plane. aligned: tell the compiler that 16 bytes divide it."""
    plane = pointer + image * batch_stride + channel * channel_stride
    if aligned:
        plane = tl.multiple_of(plane, 16)
    return plane


@triton.jit
def pixel_pointer(
    plane, row, column, row_stride, column_stride, one_row: tl.constexpr, dense: tl.constexpr
):
    """The address of pixels in a plane. dense: columns have stride 1."""
    pointer = plane + column_offset(column, column_stride, dense)
    if not one_row:
        pointer += row.to(tl.int64) * row_stride
    return pointer


@kernel
def pixel_losses(
    x_ptr, x_batch: tl.int64, x_channel: tl.int64, x_row: tl.int64, x_column: tl.int64,
    y_ptr, y_batch: tl.int64, y_channel: tl.int64, y_row: tl.int64, y_column: tl.int64,
    weight_ptr, weight_batch: tl.int64, weight_channel: tl.int64, weight_row: tl.int64,
    weight_column: tl.int64,
    mask_ptr, mask_batch: tl.int64, mask_channel: tl.int64, mask_row: tl.int64,  # columns adjacent
    map_ptr, map_batch: tl.int64, map_channel: tl.int64, map_row: tl.int64, map_column: tl.int64,
    dx_ptr, dx_batch: tl.int64, dx_channel: tl.int64, dx_row: tl.int64, dx_column: tl.int64,
    dy_ptr, dy_batch: tl.int64, dy_channel: tl.int64, dy_row: tl.int64, dy_column: tl.int64,
    factors_ptr,  # (N, terms), or (terms,) for a map, or None: then all images share
    shared0: tl.float64, shared1: tl.float64, shared2: tl.float64,
    scales_ptr,  # (N,), 1/data_range of each image, or None: then all images share `scale`
    partial_ptr,  # (programs, terms)
    channels: tl.int32, height: tl.int64, width: tl.int64, runs: tl.int32,
    scale: tl.float64,
    amplification0: tl.float64, amplification1: tl.float64, amplification2: tl.float64,
    gradients: tl.constexpr, writes_map: tl.constexpr, weighted: tl.constexpr,
    masked: tl.constexpr, metrics: tl.constexpr, metric_parameters: tl.constexpr,
    amplification: tl.constexpr,
    one_row: tl.constexpr, dense: tl.constexpr, aligned: tl.constexpr, narrow: tl.constexpr,
    block: tl.constexpr, pieces: tl.constexpr, compute_dtype: tl.constexpr,
):  # fmt: skip
    """Sums of m A(L) over each run of pixels, and their gradients or the map of factor A(L).

    runs: per plane, of `pieces * block` pixels each.
    one_row: the height is 1, so no pixel index has to be divided by the width.
    dense: the columns of both images have stride 1.
    aligned: so have the columns of all outputs; there is one row, of a multiple of 16 pixels; and
        16 bytes divide the address of each plane. Then one access covers several pixels.
    narrow: 32 bits count the pixels of a plane.
    """
    program = tl.program_id(0)
    plane = program // runs
    first = (program % runs).to(tl.int64) * (pieces * block)
    image = (plane // channels).to(tl.int64)
    channel = (plane % channels).to(tl.int64)
    x_plane = plane_pointer(x_ptr, image, x_batch, channel, x_channel, aligned)
    y_plane = plane_pointer(y_ptr, image, y_batch, channel, y_channel, aligned)
    weight_plane = plane_pointer(weight_ptr, image, weight_batch, channel, weight_channel, False)
    mask_plane = plane_pointer(mask_ptr, image, mask_batch, channel, mask_channel, False)
    map_plane = plane_pointer(map_ptr, image, map_batch, channel, map_channel, aligned)
    dx_plane = plane_pointer(dx_ptr, image, dx_batch, channel, dx_channel, aligned)
    dy_plane = plane_pointer(dy_ptr, image, dy_batch, channel, dy_channel, aligned)
    pixels = height * width
    if narrow:
        first = first.to(tl.int32)
        pixels = pixels.to(tl.int32)
        width = width.to(tl.int32)
    if aligned:
        pixels = tl.multiple_of(pixels, 16)

    scale = image_scale(scale, scales_ptr, image, compute_dtype)
    constants = numbers((amplification0, amplification1, amplification2), compute_dtype)
    terms: tl.constexpr = term_count(metrics)
    image_factors: tl.constexpr = 0 if writes_map else terms
    factors = term_factors(
        factors_ptr, image * image_factors, (shared0, shared1, shared2), terms, compute_dtype
    )

    totals = tuple_of(tl.zeros([block], compute_dtype), terms)
    for piece in range(0, tl.minimum(pixels - first, pieces * block), block):
        pixel = first + piece + tl.arange(0, block)
        mask = pixel < pixels
        row = pixel
        column = pixel
        if not one_row:
            row = pixel // width
            column = pixel - row * width
        x_place = pixel_pointer(x_plane, row, column, x_row, x_column, one_row, dense)
        y_place = pixel_pointer(y_plane, row, column, y_row, y_column, one_row, dense)
        x = read(x_place, mask, compute_dtype)
        y = read(y_place, mask, compute_dtype)
        difference = (x - y) * scale
        if masked:
            mask_place = pixel_pointer(mask_plane, row, column, mask_row, 1, one_row, True)
            unmasked = read(mask_place, mask, compute_dtype) != 0.0
            difference = tl.where(unmasked, difference, 0.0)
        amplified, value, slope = pointwise_terms(
            difference, factors, metrics, metric_parameters, amplification, constants
        )
        if weighted:
            weight_place = pixel_pointer(
                weight_plane, row, column, weight_row, weight_column, one_row, False
            )
            weight = read(weight_place, mask, compute_dtype)
            slope *= weight
        next_totals = ()
        for k in tl.static_range(terms):
            counted = amplified[k]
            if weighted:
                counted *= weight
            next_totals = next_totals + (totals[k] + tl.where(mask, counted, 0.0),)
        totals = next_totals
        if writes_map:
            place = pixel_pointer(map_plane, row, column, map_row, map_column, one_row, aligned)
            tl.store(place, value, mask=mask)
        if gradients > 0:
            grad_x = slope * scale
            place = pixel_pointer(dx_plane, row, column, dx_row, dx_column, one_row, aligned)
            tl.store(place, grad_x, mask=mask)
            if gradients == 2:
                place = pixel_pointer(dy_plane, row, column, dy_row, dy_column, one_row, aligned)
                tl.store(place, -grad_x, mask=mask)

    if not writes_map:
        partial = partial_ptr + program.to(tl.int64) * terms
        for k in tl.static_range(terms):
            tl.store(partial + k, tl.sum(totals[k].to(tl.float64), 0))
