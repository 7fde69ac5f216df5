"""The first kernel of SSIM and the terms beside it: pixels -> moments -> losses and h planes.

    ssim_losses     pixels -> moments -> loss, sums of it, or its map; h planes for the gradient
    ssim_gradients  h planes -> the window's adjoint -> gradients

docs/triton_counts.md gives the reasons for two kernels. A program of either computes
`across * block` columns and `band_height` rows of one plane; windows.py shows how.
"""

import triton.language as tl

from lamp_kernels.backends.triton.borders import REFLECT, VALID, at_edge, border_columns
from lamp_kernels.backends.triton.formulas import (
    amplify,
    pointwise_terms,
    ssim,
    ssim_adjoint,
    term_count,
)
from lamp_kernels.backends.triton.h_planes import LANES, h_offset, h_row_length
from lamp_kernels.backends.triton.jit import kernel
from lamp_kernels.backends.triton.masked_moments import (
    full_weight,
    masked_moments_of_row,
    normalized,
)
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
from lamp_kernels.backends.triton.moments import moments_of_row, row_at
from lamp_kernels.backends.triton.windows import no_sums, tile_of


@kernel
def ssim_losses(
    x_ptr, x_batch: tl.int64, x_channel: tl.int64, x_row: tl.int64, x_column: tl.int64,
    y_ptr, y_batch: tl.int64, y_channel: tl.int64, y_row: tl.int64, y_column: tl.int64,
    weight_ptr, weight_batch: tl.int64, weight_channel: tl.int64, weight_row: tl.int64,
    weight_column: tl.int64, weight_offset: tl.int64,
    mask_ptr, mask_batch: tl.int64, mask_channel: tl.int64, mask_row: tl.int64,  # columns adjacent
    map_ptr, map_batch: tl.int64, map_channel: tl.int64, map_row: tl.int64, map_column: tl.int64,
    map_offset: tl.int64,
    factors_ptr,  # (N, terms), or (terms,) for a map, or None: then all images share
    shared0: tl.float64, shared1: tl.float64, shared2: tl.float64,
    scales_ptr,  # (N,), 1/data_range of each image, or None: then all images share `scale`
    shifts_ptr,  # (planes, 2), or (planes, 4) if masked
    h_ptr,  # (planes from first_plane on, H, a row of h planes); see h_planes.py
    partial_ptr,  # (programs of all planes, terms): what each adds up
    first_plane: tl.int64, channels: tl.int32, height: tl.int32, width: tl.int32,
    strips: tl.int32, bands: tl.int32, band_height: tl.int32,
    scale: tl.float64, c1: tl.float64, c2: tl.float64, ssim_scale: tl.float64,
    amplification0: tl.float64, amplification1: tl.float64, amplification2: tl.float64,
    tap0: tl.float64, tap1: tl.float64, tap2: tl.float64, tap3: tl.float64,
    tap4: tl.float64, tap5: tl.float64, tap6: tl.float64, tap7: tl.float64,
    rows_to_follow: tl.int32,
    radius: tl.constexpr, border: tl.constexpr, gradients: tl.constexpr, writes_map: tl.constexpr,
    weighted: tl.constexpr, masked: tl.constexpr, metrics: tl.constexpr,
    metric_parameters: tl.constexpr, amplification: tl.constexpr, dense: tl.constexpr,
    block: tl.constexpr, across: tl.constexpr, compute_dtype: tl.constexpr,
):  # fmt: skip
    """Sums of m A(L) over each tile, the h planes of the gradient, and the map of factor A(L)."""
    program = tl.program_id(0).to(tl.int64)
    plane, strip, band = tile_of(program, strips, bands, first_plane)
    image = plane // channels
    channel = plane % channels
    x_plane = x_ptr + image * x_batch + channel * x_channel
    y_plane = y_ptr + image * y_batch + channel * y_channel
    weight_plane = weight_ptr + image * weight_batch + channel * weight_channel + weight_offset
    map_plane = map_ptr + image * map_batch + channel * map_channel + map_offset
    h_planes: tl.constexpr = 2 + gradients
    h_row = h_row_length(width, h_planes, across)
    h_plane = h_ptr + (plane - first_plane) * height * h_row.to(tl.int64)

    taps = numbers((tap0, tap1, tap2, tap3, tap4, tap5, tap6, tap7), compute_dtype)
    scale = image_scale(scale, scales_ptr, image, compute_dtype)
    c1 = number(c1, compute_dtype)
    c2 = number(c2, compute_dtype)
    ssim_scale = number(ssim_scale, compute_dtype)
    constants = numbers((amplification0, amplification1, amplification2), compute_dtype)
    shifts = shifts_ptr + (4 if masked else 2) * plane
    shift_d = tl.load(shifts)
    shift_s = tl.load(shifts + 1)
    terms: tl.constexpr = term_count(metrics)
    image_factors: tl.constexpr = 0 if writes_map else terms
    factors = term_factors(
        factors_ptr, image * image_factors, (shared0, shared1, shared2), terms, compute_dtype
    )

    first = (strip * (block * across)).to(tl.int32) + across * tl.arange(0, block)
    columns = border_columns(first, width, radius, border, across)
    begin = (band * band_height).to(tl.int32)
    end = tl.minimum(begin + band_height, height)
    images = (x_plane, y_plane, x_row, y_row, x_column, y_column)

    # Rows are requested ahead where there are registers for them.
    ahead: tl.constexpr = across == 2
    none = no_sums(radius, block, across, compute_dtype)
    if masked:
        tl.static_assert(across == 1)
        mask = (mask_ptr + image * mask_batch + channel * mask_channel, mask_row)
        tones = (shift_s,)  # float64 has digits to spare
        sums = (none, none, none, none, none)
        if compute_dtype == tl.float32:
            tones = (tl.load(shifts + 2), tl.load(shifts + 3))
            sums = sums + (none, none)
        full = full_weight(taps, radius)
    else:
        sums = (none, none, none, none)
    lane_shift = (tl.full([block], shift_s, compute_dtype), tl.zeros([block], tl.int32))
    # A lane adds up its part of the tile in the compute type; tiles are added up in float64.
    total = tl.zeros([block], compute_dtype)
    pointwise_totals = tuple_of(total, terms - 1)

    lines, ends = row_at(
        begin - radius, images, height, width, first, columns, radius, border, dense, across,
        compute_dtype,
    )  # fmt: skip
    next_lines, next_ends = row_at(
        begin - radius + 1, images, height, width, first, columns, radius, border, dense, across,
        compute_dtype,
    )  # fmt: skip
    for v in range(begin - radius, begin + radius):
        if ahead:
            later_lines, later_ends = row_at(
                v + 2, images, height, width, first, columns, radius, border, dense, across,
                compute_dtype,
            )  # fmt: skip
        else:
            lines, ends = row_at(
                v, images, height, width, first, columns, radius, border, dense, across,
                compute_dtype,
            )  # fmt: skip
        if masked:
            _, sums = masked_moments_of_row(
                v, lines, ends, mask, sums, first, columns, x_column, y_column, height, width,
                taps, scale, shift_d, tones, radius, border, dense, compute_dtype,
            )  # fmt: skip
        else:
            _, sums, lane_shift = moments_of_row(
                lines, ends, sums, lane_shift, first, columns, x_column, y_column, width, taps,
                scale, shift_d, c2, rows_to_follow, radius, border, dense, across, compute_dtype,
            )  # fmt: skip
        if ahead:
            lines, ends = next_lines, next_ends
            next_lines, next_ends = later_lines, later_ends
    for row in range(begin, end):
        if ahead:
            later_lines, later_ends = row_at(
                row + radius + 2, images, height, width, first, columns, radius, border, dense,
                across, compute_dtype,
            )  # fmt: skip
        else:
            lines, ends = row_at(
                row + radius, images, height, width, first, columns, radius, border, dense,
                across, compute_dtype,
            )  # fmt: skip
        if masked:
            moments, sums = masked_moments_of_row(
                row + radius, lines, ends, mask, sums, first, columns, x_column, y_column, height,
                width, taps, scale, shift_d, tones, radius, border, dense, compute_dtype,
            )  # fmt: skip
        else:
            moments, sums, lane_shift = moments_of_row(
                lines, ends, sums, lane_shift, first, columns, x_column, y_column, width, taps,
                scale, shift_d, c2, rows_to_follow, radius, border, dense, across, compute_dtype,
            )  # fmt: skip
        if ahead:
            lines, ends = next_lines, next_ends
            next_lines, next_ends = later_lines, later_ends
        for c in tl.static_range(across):
            column = first + c
            in_image = column < width
            if masked:
                center = tl.load(
                    mask[0] + pixel_offset(row, column, mask_row, 1), mask=in_image, other=0.0
                )
                mean_d, mean_s, square_d, square_s, own_shift, factor = normalized(
                    moments, center, full, tones
                )
            else:
                mean_d, mean_s = moments[0][c], moments[1][c]
                square_d, square_s = moments[2][c], moments[3][c]
                own_shift = lane_shift[0]
            # SSIM's loss, its sum, and the h planes.
            loss, p, q, inverse_m, inverse_v, mu_d, mu_s = ssim(
                mean_d, mean_s, square_d, square_s, c1, c2, ssim_scale, shift_d, own_shift
            )
            value, slope = amplify(loss, amplification, constants)
            counts = in_image
            if border == VALID:
                counts = (column >= radius) & (column < width - radius)
                counts &= (row >= radius) & (row < height - radius)
            if weighted:
                weight = tl.load(
                    weight_plane + pixel_offset(row, column, weight_row, weight_column),
                    mask=in_image if terms > 1 else counts,
                    other=0.0,
                )
                total += tl.where(counts, weight * value, 0.0)
                slope *= weight
            else:
                total += tl.where(counts, value, 0.0)
            if gradients > 0:
                slope *= factors[0]
                if border == REFLECT:
                    slope *= tl.where(at_edge(row, height), 2.0, 1.0)
                    slope = tl.where(at_edge(column, width), slope + slope, slope)
                h_d, h_s, h_dd, h_ss = ssim_adjoint(
                    mean_d, mean_s + (own_shift - shift_s), p, q, inverse_m, inverse_v, mu_d, mu_s,
                    slope, ssim_scale,
                )  # fmt: skip
                if masked:
                    h_d *= factor
                    h_s *= factor
                    h_dd *= factor
                    h_ss *= factor
                h_x = h_s + h_d
                h_y = h_s - h_d
                if border == VALID:
                    h_ss = tl.where(counts, h_ss, 0.0)
                    h_dd = tl.where(counts, h_dd, 0.0)
                    h_x = tl.where(counts, h_x, 0.0)
                    h_y = tl.where(counts, h_y, 0.0)
                h = (
                    h_plane
                    + tl.cast(row, tl.int64) * h_row.to(tl.int64)
                    + h_offset(column, h_planes, across)
                )
                tl.store(h, h_ss, mask=in_image)
                tl.store(h + across * LANES, h_dd, mask=in_image)
                tl.store(h + 2 * across * LANES, h_x, mask=in_image)
                if gradients == 2:
                    tl.store(h + 3 * across * LANES, h_y, mask=in_image)

            # The pointwise terms of these pixels. They read x and y again: d minus its shift has
            # lost digits.
            if terms > 1:
                x_line = row_pointer(x_plane, row, x_row, dense)
                y_line = row_pointer(y_plane, row, y_row, dense)
                x = read(x_line + column_offset(column, x_column, dense), in_image, compute_dtype)
                y = read(y_line + column_offset(column, y_column, dense), in_image, compute_dtype)
                difference = (x - y) * scale
                if masked:
                    difference = tl.where(center == 0.0, 0.0, difference)
                amplified, pointwise_value, _ = pointwise_terms(
                    difference, factors, metrics, metric_parameters, amplification, constants
                )
                next_totals = ()
                for k in tl.static_range(terms - 1):
                    counted = amplified[k]
                    if weighted:
                        counted *= weight
                    counted = tl.where(in_image, counted, 0.0)
                    next_totals = next_totals + (pointwise_totals[k] + counted,)
                pointwise_totals = next_totals
            if writes_map:
                value *= factors[0]
                if terms > 1:
                    value += pointwise_value
                tl.store(
                    map_plane + pixel_offset(row, column, map_row, map_column), value, mask=counts
                )

    if not writes_map:
        partial = partial_ptr + (first_plane * strips * bands + program) * terms
        tl.store(partial, tl.sum(total.to(tl.float64), 0))
        for k in tl.static_range(terms - 1):
            tl.store(partial + (k + 1), tl.sum(pointwise_totals[k].to(tl.float64), 0))
