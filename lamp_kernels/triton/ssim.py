"""SSIM, with the pointwise terms beside it: two kernels with the h planes of the gradient between.

    ssim_losses     pixels -> moments -> loss, sums of it, or its map; h planes for the gradient
    ssim_gradients  h planes -> the window's adjoint -> gradients

docs/triton_counts.md says why they are two. A program of either takes `block` columns and
`band_height` rows of one plane; see windows.py for how.

The adjoint of a mirror. Let the h planes go on beyond the edge as the mirror image of themselves,
with the edge's own row (column) taken twice. The window over that is the transpose of the window
over the mirrored image, but that the pixels of the edge itself get twice what is theirs. So both
kernels read beyond the edge by the same rule (`seen_at`), and two factors, 2 for the h planes of an
edge and 1/2 for its pixels, do the rest. Beyond the edge of a zero border there is no loss, and
outside the grid of "valid" there is none either: h is 0.

Levels: d = x - y and s = x + y are taken about their plane's level (levels.py), in both kernels the
same.
"""

import triton
import triton.language as tl

from lamp_kernels.triton.formulas import (
    absolute_error,
    amplify,
    squared_error,
    ssim,
    ssim_adjoint,
)
from lamp_kernels.triton.jit import kernel
from lamp_kernels.triton.windows import (
    REFLECT,
    VALID,
    ZEROS,
    at_edge,
    is_there,
    neighbour,
    no_sums,
    offset,
    push,
    seen_at,
    seen_columns,
    window,
)


@triton.jit
def tile_of(program, strips, bands, first_plane):
    """A program's plane, strip of columns and band of rows; bands of a strip follow one another."""
    band = program % bands
    strip = program // bands % strips
    plane = first_plane + program // bands // strips
    return plane, strip, band


@triton.jit
def difference_and_sum(x, y, scale, level_d, level_s):
    """d and s of a pixel about their levels, in units of data_range."""
    return (x - y) * scale - level_d, (x + y) * scale - level_s


@triton.jit
def read(pointer, there, real: tl.constexpr):
    """Elements in the type computed in, 0 where `there` is false."""
    return tl.load(pointer, mask=there, other=0.0).to(real)


@triton.jit
def pointwise(
    d, first_factor, second_factor, mse: tl.constexpr, l1: tl.constexpr,
    log: tl.constexpr, knee, steepest,
):  # fmt: skip
    """Of the pointwise terms there are: A(L) of each, factor A(L) over both, and its slope by d."""
    first = tl.zeros_like(d)
    second = tl.zeros_like(d)
    value = tl.zeros_like(d)
    slope = tl.zeros_like(d)
    if mse:
        loss, by_d = squared_error(d)
        first, steepness = amplify(loss, log, knee, steepest)
        value += first_factor * first
        slope += first_factor * steepness * by_d
    if l1:
        loss, by_d = absolute_error(d)
        amplified, steepness = amplify(loss, log, knee, steepest)
        factor = second_factor if mse else first_factor
        value += factor * amplified
        slope += factor * steepness * by_d
        if mse:
            second = amplified
        else:
            first = amplified
    return first, second, value, slope


@kernel
def ssim_losses(
    x_ptr, x_batch: tl.int64, x_channel: tl.int64, x_row: tl.int64, x_column: tl.int64,
    y_ptr, y_batch: tl.int64, y_channel: tl.int64, y_row: tl.int64, y_column: tl.int64,
    weight_ptr, weight_batch: tl.int64, weight_channel: tl.int64, weight_row: tl.int64,
    weight_column: tl.int64, weight_offset: tl.int64,
    map_ptr, map_batch: tl.int64, map_channel: tl.int64, map_row: tl.int64, map_column: tl.int64,
    map_offset: tl.int64,
    factors_ptr,  # (N, terms), or (terms,) where there is a map
    levels_ptr,  # (planes, 2)
    h_ptr,  # (planes from first_plane on, 2 + gradients, H, W): ss, dd, s + d, s - d
    partial_ptr,  # (programs of all planes, terms): what each adds up
    first_plane: tl.int64, channels: tl.int32, height: tl.int32, width: tl.int32,
    strips: tl.int32, bands: tl.int32, band_height: tl.int32,
    scale: tl.float64, c1: tl.float64, c2: tl.float64, a: tl.float64,
    knee: tl.float64, steepest: tl.float64,
    tap0: tl.float64, tap1: tl.float64, tap2: tl.float64, tap3: tl.float64,
    tap4: tl.float64, tap5: tl.float64, tap6: tl.float64, tap7: tl.float64,
    radius: tl.constexpr, border: tl.constexpr, gradients: tl.constexpr, writes_map: tl.constexpr,
    weighted: tl.constexpr, mse: tl.constexpr, l1: tl.constexpr, log: tl.constexpr,
    dense: tl.constexpr, block: tl.constexpr, real: tl.constexpr,
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
    pixels = height.to(tl.int64) * width
    h_plane = h_ptr + (plane - first_plane) * (2 + gradients) * pixels

    taps = window(tap0, tap1, tap2, tap3, tap4, tap5, tap6, tap7, real)
    scale = tl.full((), scale, real)
    c1 = tl.full((), c1, real)
    c2 = tl.full((), c2, real)
    a = tl.full((), a, real)
    knee = tl.full((), knee, real)
    steepest = tl.full((), steepest, real)
    level_d = tl.load(levels_ptr + 2 * plane)
    level_s = tl.load(levels_ptr + 2 * plane + 1)
    terms: tl.constexpr = 1 + mse + l1
    factors = factors_ptr
    if not writes_map:
        factors += image * terms
    factor = tl.load(factors)
    second_factor = factor
    third_factor = factor
    if terms > 1:
        second_factor = tl.load(factors + 1)
    if terms > 2:
        third_factor = tl.load(factors + 2)

    # The loss's grid is the image, or where a window fits into it.
    margin: tl.constexpr = radius if border == VALID else 0
    column = (strip * block).to(tl.int32) + tl.arange(0, block)
    in_image = column < width
    columns = seen_columns(column, width, radius, border)
    in_grid = (column >= margin) & (column < width - margin)
    begin = (band * band_height).to(tl.int32)
    end = tl.minimum(begin + band_height, height)

    mean_d_sums = no_sums(radius, block, real)
    mean_s_sums = no_sums(radius, block, real)
    square_d_sums = no_sums(radius, block, real)
    square_s_sums = no_sums(radius, block, real)
    # A lane adds up its column of the tile in the type computed in, tiles add up in float64.
    total = tl.zeros([block], real)
    second_total = tl.zeros([block], real)
    third_total = tl.zeros([block], real)

    for v in range(begin - radius, end + radius):
        # 1. Row v of d, s, d^2, s^2 under the window along x. Symmetric taps: tap k meets the sum
        #    of what lies k to both sides.
        row_there = (v >= 0) & (v < height)
        if border != ZEROS:
            row_there = True
        source = seen_at(v, height, border).to(tl.int64)
        x_line = x_plane + source * x_row
        y_line = y_plane + source * y_row
        there = is_there(row_there, column, width, 0, border)
        d, s = difference_and_sum(
            read(neighbour(x_line, columns, 0, x_column, radius, border, dense), there, real),
            read(neighbour(y_line, columns, 0, y_column, radius, border, dense), there, real),
            scale, level_d, level_s,
        )  # fmt: skip
        mean_d = taps[0] * d
        mean_s = taps[0] * s
        square_d = mean_d * d
        square_s = mean_s * s
        for k in tl.static_range(1, radius + 1):
            there = is_there(row_there, column, width, -k, border)
            left_d, left_s = difference_and_sum(
                read(neighbour(x_line, columns, -k, x_column, radius, border, dense), there, real),
                read(neighbour(y_line, columns, -k, y_column, radius, border, dense), there, real),
                scale, level_d, level_s,
            )  # fmt: skip
            there = is_there(row_there, column, width, k, border)
            right_d, right_s = difference_and_sum(
                read(neighbour(x_line, columns, k, x_column, radius, border, dense), there, real),
                read(neighbour(y_line, columns, k, y_column, radius, border, dense), there, real),
                scale, level_d, level_s,
            )  # fmt: skip
            mean_d += taps[k] * (left_d + right_d)
            mean_s += taps[k] * (left_s + right_s)
            square_d += taps[k] * (left_d * left_d + right_d * right_d)
            square_s += taps[k] * (left_s * left_s + right_s * right_s)

        # 2. Along y: the windows centred `radius` rows above are finished.
        mean_d, mean_d_sums = push(mean_d_sums, mean_d, taps, radius)
        mean_s, mean_s_sums = push(mean_s_sums, mean_s, taps, radius)
        square_d, square_d_sums = push(square_d_sums, square_d, taps, radius)
        square_s, square_s_sums = push(square_s_sums, square_s, taps, radius)
        row = v - radius
        if row >= begin:
            # 3. The loss there, its sum, and what the adjoint takes.
            loss, p, q, inverse_m, inverse_v, mu_d, mu_s = ssim(
                mean_d, mean_s, square_d, square_s, c1, c2, a, level_d, level_s
            )
            value, slope = amplify(loss, log, knee, steepest)
            counts = in_grid & (row >= margin) & (row < height - margin)
            line = row.to(tl.int64)
            if weighted:
                weight = tl.load(
                    weight_plane + line * weight_row + column.to(tl.int64) * weight_column,
                    mask=in_image if terms > 1 else counts,
                    other=0.0,
                )
                total += tl.where(counts, weight * value, 0.0)
                slope *= weight
            else:
                total += tl.where(counts, value, 0.0)
            if gradients > 0:
                slope *= factor
                if border == REFLECT:
                    slope *= tl.where(at_edge(row, height), 2.0, 1.0)
                    slope = tl.where(at_edge(column, width), slope + slope, slope)
                h_d, h_s, h_dd, h_ss = ssim_adjoint(
                    mean_d, mean_s, p, q, inverse_m, inverse_v, mu_d, mu_s, slope, a
                )
                h_x = h_s + h_d
                h_y = h_s - h_d
                if border == VALID:
                    h_ss = tl.where(counts, h_ss, 0.0)
                    h_dd = tl.where(counts, h_dd, 0.0)
                    h_x = tl.where(counts, h_x, 0.0)
                    h_y = tl.where(counts, h_y, 0.0)
                h = h_plane + line * width + column
                tl.store(h, h_ss, mask=in_image)
                tl.store(h + pixels, h_dd, mask=in_image)
                tl.store(h + 2 * pixels, h_x, mask=in_image)
                if gradients == 2:
                    tl.store(h + 3 * pixels, h_y, mask=in_image)

            # 4. The pointwise terms of these pixels, whose d is not about its level: that has
            #    lost digits.
            if terms > 1:
                x = read(x_plane + line * x_row + offset(column, x_column, dense), in_image, real)
                y = read(y_plane + line * y_row + offset(column, y_column, dense), in_image, real)
                second, third, pointwise_value, _ = pointwise(
                    (x - y) * scale, second_factor, third_factor, mse, l1, log, knee, steepest
                )
                if weighted:
                    second *= weight
                    third *= weight
                second_total += tl.where(in_image, second, 0.0)
                third_total += tl.where(in_image, third, 0.0)
            if writes_map:
                value *= factor
                if terms > 1:
                    value += pointwise_value
                tl.store(
                    map_plane + line * map_row + column.to(tl.int64) * map_column,
                    value,
                    mask=counts,
                )

    if not writes_map:
        partial = partial_ptr + (first_plane * strips * bands + program) * terms
        tl.store(partial, tl.sum(total.to(tl.float64), 0))
        if terms > 1:
            tl.store(partial + 1, tl.sum(second_total.to(tl.float64), 0))
        if terms > 2:
            tl.store(partial + 2, tl.sum(third_total.to(tl.float64), 0))


@kernel
def ssim_gradients(
    x_ptr, x_batch: tl.int64, x_channel: tl.int64, x_row: tl.int64, x_column: tl.int64,
    y_ptr, y_batch: tl.int64, y_channel: tl.int64, y_row: tl.int64, y_column: tl.int64,
    weight_ptr, weight_batch: tl.int64, weight_channel: tl.int64, weight_row: tl.int64,
    weight_column: tl.int64,
    dx_ptr, dx_batch: tl.int64, dx_channel: tl.int64, dx_row: tl.int64, dx_column: tl.int64,
    dy_ptr, dy_batch: tl.int64, dy_channel: tl.int64, dy_row: tl.int64, dy_column: tl.int64,
    factors_ptr,  # (N, terms)
    levels_ptr,  # (planes, 2)
    h_ptr,  # as in ssim_losses
    first_plane: tl.int64, channels: tl.int32, height: tl.int32, width: tl.int32,
    strips: tl.int32, bands: tl.int32, band_height: tl.int32,
    scale: tl.float64, knee: tl.float64, steepest: tl.float64,
    tap0: tl.float64, tap1: tl.float64, tap2: tl.float64, tap3: tl.float64,
    tap4: tl.float64, tap5: tl.float64, tap6: tl.float64, tap7: tl.float64,
    radius: tl.constexpr, border: tl.constexpr, h_planes: tl.constexpr,
    gradients: tl.constexpr, swapped: tl.constexpr,
    weighted: tl.constexpr, mse: tl.constexpr, l1: tl.constexpr, log: tl.constexpr,
    dense: tl.constexpr, block: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    """The gradients of sum(factors * sums): SSIM's by the adjoint window, the others' pointwise.

    swapped: the gradient of the second image, which comes as `x`, alone: d has the other sign.
    """
    program = tl.program_id(0).to(tl.int64)
    plane, strip, band = tile_of(program, strips, bands, first_plane)
    image = plane // channels
    channel = plane % channels
    x_plane = x_ptr + image * x_batch + channel * x_channel
    y_plane = y_ptr + image * y_batch + channel * y_channel
    weight_plane = weight_ptr + image * weight_batch + channel * weight_channel
    dx_plane = dx_ptr + image * dx_batch + channel * dx_channel
    dy_plane = dy_ptr + image * dy_batch + channel * dy_channel
    pixels = height.to(tl.int64) * width
    h_plane = h_ptr + (plane - first_plane) * h_planes * pixels

    taps = window(tap0, tap1, tap2, tap3, tap4, tap5, tap6, tap7, real)
    scale = tl.full((), scale, real)
    knee = tl.full((), knee, real)
    steepest = tl.full((), steepest, real)
    level_d = tl.load(levels_ptr + 2 * plane)
    level_s = tl.load(levels_ptr + 2 * plane + 1)
    by_x_plane: tl.constexpr = 3 if swapped else 2
    if swapped:
        level_d = -level_d
    terms: tl.constexpr = 1 + mse + l1

    column = (strip * block).to(tl.int32) + tl.arange(0, block)
    in_image = column < width
    columns = seen_columns(column, width, radius, border)
    begin = (band * band_height).to(tl.int32)
    end = tl.minimum(begin + band_height, height)

    ss_sums = no_sums(radius, block, real)
    dd_sums = no_sums(radius, block, real)
    x_sums = no_sums(radius, block, real)
    y_sums = no_sums(radius, block, real)

    for v in range(begin - radius, end + radius):
        # 1. Row v of the h planes under the window along x. Only "reflect" has any beyond an edge.
        row_there = (v >= 0) & (v < height)
        if border == REFLECT:
            row_there = True
        h = h_plane + seen_at(v, height, border).to(tl.int64) * width
        there = is_there(row_there, column, width, 0, border)
        centre = neighbour(h, columns, 0, 1, radius, border, True)
        by_ss = taps[0] * read(centre, there, real)
        by_dd = taps[0] * read(centre + pixels, there, real)
        by_x = taps[0] * read(centre + by_x_plane * pixels, there, real)
        by_y = by_x
        if gradients == 2:
            by_y = taps[0] * read(centre + 3 * pixels, there, real)
        for k in tl.static_range(1, radius + 1):
            left_there = is_there(row_there, column, width, -k, border)
            right_there = is_there(row_there, column, width, k, border)
            left = neighbour(h, columns, -k, 1, radius, border, True)
            right = neighbour(h, columns, k, 1, radius, border, True)
            by_ss += taps[k] * (read(left, left_there, real) + read(right, right_there, real))
            by_dd += taps[k] * (
                read(left + pixels, left_there, real) + read(right + pixels, right_there, real)
            )
            by_x += taps[k] * (
                read(left + by_x_plane * pixels, left_there, real)
                + read(right + by_x_plane * pixels, right_there, real)
            )
            if gradients == 2:
                by_y += taps[k] * (
                    read(left + 3 * pixels, left_there, real)
                    + read(right + 3 * pixels, right_there, real)
                )

        # 2. Along y.
        by_ss, ss_sums = push(ss_sums, by_ss, taps, radius)
        by_dd, dd_sums = push(dd_sums, by_dd, taps, radius)
        by_x, x_sums = push(x_sums, by_x, taps, radius)
        if gradients == 2:
            by_y, y_sums = push(y_sums, by_y, taps, radius)
        row = v - radius
        if row >= begin:
            # 3. The pixels' gradients.
            line = row.to(tl.int64)
            x = read(x_plane + line * x_row + offset(column, x_column, dense), in_image, real)
            y = read(y_plane + line * y_row + offset(column, y_column, dense), in_image, real)
            d, s = difference_and_sum(x, y, scale, level_d, level_s)
            by_s = 2.0 * s * by_ss
            by_d = 2.0 * d * by_dd
            dx = by_x + by_s + by_d
            dy = by_y + by_s - by_d
            if border == REFLECT:
                share = tl.where(at_edge(row, height), 0.5, 1.0).to(real)
                share = tl.where(at_edge(column, width), 0.5 * share, share)
                dx *= share
                dy *= share
            if terms > 1:
                factors = factors_ptr + image * terms
                second_factor = tl.load(factors + 1)
                third_factor = second_factor
                if terms > 2:
                    third_factor = tl.load(factors + 2)
                _, _, _, slope = pointwise(
                    (x - y) * scale, second_factor, third_factor, mse, l1, log, knee, steepest
                )
                if weighted:
                    slope *= tl.load(
                        weight_plane + line * weight_row + column.to(tl.int64) * weight_column,
                        mask=in_image,
                        other=0.0,
                    )
                dx += slope
                dy -= slope
            dx_line = dx_plane + line * dx_row
            tl.store(dx_line + column.to(tl.int64) * dx_column, dx * scale, mask=in_image)
            if gradients == 2:
                dy_line = dy_plane + line * dy_row
                tl.store(dy_line + column.to(tl.int64) * dy_column, dy * scale, mask=in_image)
