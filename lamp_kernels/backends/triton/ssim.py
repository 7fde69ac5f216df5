"""SSIM, with the pointwise terms beside it: two kernels with the h planes of the gradient between.

    ssim_losses     pixels -> moments -> loss, sums of it, or its map; h planes for the gradient
    ssim_gradients  h planes -> the window's adjoint -> gradients

docs/triton_counts.md says why they are two. A program of either takes `across * block`
columns and `band_height` rows of one plane; see windows.py for how.

The adjoint of a mirror. Let the h planes go on beyond the edge as the mirror image of themselves,
with the edge's own row (column) taken twice. The window over that is the transpose of the window
over the mirrored image, but that the pixels of the edge itself get twice what is theirs. So both
kernels read beyond the edge by the same rule (`seen_at`), and two factors, 2 for the h planes of an
edge and 1/2 for its pixels, do the rest. Beyond the edge of a zero border there is no loss, and
outside the grid of "valid" there is none either: h is 0.

Levels: d = x - y and s = x + y are taken about their plane's level (levels.py), in both kernels the
same; but the variance of s about a level of the lane's own, which follows its windows.
"""

import triton
import triton.language as tl

from lamp_kernels.backends.triton.formulas import (
    absolute_error,
    amplify,
    squared_error,
    ssim,
    ssim_adjoint,
)
from lamp_kernels.backends.triton.jit import kernel
from lamp_kernels.backends.triton.sums import factor_of
from lamp_kernels.backends.triton.windows import (
    LANES,
    REFLECT,
    VALID,
    ZEROS,
    along_x,
    at_edge,
    h_place,
    h_row_length,
    is_there,
    line_of,
    no_sums,
    offset,
    push,
    raise_level,
    seen_at,
    seen_columns,
    squares_along_x,
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


@triton.jit
def lines_at(v, x_plane, y_plane, x_row, y_row, height, border: tl.constexpr, dense: tl.constexpr):
    """Row v of both images, and whether there is one: only under "zeros" windows see none."""
    there = (v >= 0) & (v < height)
    if border != ZEROS:
        there = True
    source = seen_at(v, height, border)
    x_line = line_of(x_plane, source, x_row, dense)
    y_line = line_of(y_plane, source, y_row, dense)
    return x_line, y_line, there


@triton.jit
def pixels_at(
    k: tl.constexpr, lines, first, seen, x_column, y_column, width, radius: tl.constexpr,
    border: tl.constexpr, dense: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    """Of both images, at the column that a lane sees k-th."""
    there = is_there(lines[2], first + (k - radius), width, border != ZEROS)
    column = seen[k]
    if border == ZEROS:
        # None is read beyond an edge, so none is moved inside. In 64 bits each lies a constant away
        # from `first`; in 32 bits, where that may wrap, each keeps two registers for its address.
        column = first.to(tl.int64) + (k - radius)
    x = read(lines[0] + offset(column, x_column, dense), there, real)
    y = read(lines[1] + offset(column, y_column, dense), there, real)
    return x, y


@triton.jit
def pixels_at_ends(
    lines, first, seen, x_column, y_column, width, radius: tl.constexpr, border: tl.constexpr,
    dense: tl.constexpr, across: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    """At the first and the last column that a lane sees."""
    last: tl.constexpr = 2 * radius + across - 1
    x_0, y_0 = pixels_at(
        0, lines, first, seen, x_column, y_column, width, radius, border, dense, real
    )
    x_1, y_1 = pixels_at(
        last, lines, first, seen, x_column, y_column, width, radius, border, dense, real
    )
    return x_0, y_0, x_1, y_1


@triton.jit
def far(mean, square, c2):
    """Whether variance/2 + c2 < mean^2/256: else rounding costs that sum some 5e-6 at most."""
    return (0.5 + 1 / 256) * (mean * mean) - 0.5 * square > c2


@triton.jit
def moments_of_row(
    lines, ends, sums, own, first, seen, x_column, y_column, width, taps,
    scale, level_d, c2, rows_to_follow, radius: tl.constexpr, border: tl.constexpr,
    dense: tl.constexpr, across: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    """A row of d, s, d^2 and s^2 under the windows; those of `radius` rows above are done.

    Returns these, each a tuple of a lane's columns, the sums, and `own` as the next row takes it.
    own: what a lane's windows take s about, and how many of the last rows were far from it. Where
    light lies beside dark the plane's level is far from both and costs the variance digits; so when
    the last `rows_to_follow` rows are far, the level moves to this one, and with it what is summed
    up.
    ends: the pixels at the first and the last column that a lane sees, which the kernels ask for
    two rows ahead. Together the lanes so ask for whole rows; what is between them then comes from
    the L1 cache.
    """
    last: tl.constexpr = 2 * radius + across - 1
    level_s, far_rows = own
    d_there, s_there = difference_and_sum(ends[0], ends[1], scale, level_d, level_s)
    d = (d_there,)
    s = (s_there,)
    for k in tl.static_range(1, last):
        x, y = pixels_at(
            k, lines, first, seen, x_column, y_column, width, radius, border, dense, real
        )
        d_there, s_there = difference_and_sum(x, y, scale, level_d, level_s)
        d = d + (d_there,)
        s = s + (s_there,)
    d_there, s_there = difference_and_sum(ends[2], ends[3], scale, level_d, level_s)
    d = d + (d_there,)
    s = s + (s_there,)
    mean_d = along_x(d, taps, radius, across)
    mean_s = along_x(s, taps, radius, across)
    square_d = squares_along_x(d, taps, radius, across)
    square_s = squares_along_x(s, taps, radius, across)
    mean_s_sums = sums[1]
    square_s_sums = sums[3]
    if real == tl.float32:  # float64 has digits to spare
        # Of a lane's first column. The other one's window is one pixel on: if that sees an edge
        # that this one does not, its variance is large.
        far_rows = tl.where(far(mean_s[0], square_s[0], c2), far_rows + 1, 0)
        if tl.max(far_rows, 0) >= rows_to_follow:
            by = tl.where(far_rows >= rows_to_follow, mean_s[0], 0.0)
            level_s += by
            mean_s_sums, square_s_sums = raise_level(
                mean_s_sums, square_s_sums, by, taps, radius, across
            )
            near = ()
            for k in tl.static_range(last + 1):
                near = near + (s[k] - by,)
            mean_s = along_x(near, taps, radius, across)
            square_s = squares_along_x(near, taps, radius, across)

    mean_d, mean_d_sums = push(sums[0], mean_d, taps, radius, across)
    mean_s, mean_s_sums = push(mean_s_sums, mean_s, taps, radius, across)
    square_d, square_d_sums = push(sums[2], square_d, taps, radius, across)
    square_s, square_s_sums = push(square_s_sums, square_s, taps, radius, across)
    later = (mean_d_sums, mean_s_sums, square_d_sums, square_s_sums)
    return mean_d, mean_s, square_d, square_s, later, (level_s, far_rows)


@kernel
def ssim_losses(
    x_ptr, x_batch: tl.int64, x_channel: tl.int64, x_row: tl.int64, x_column: tl.int64,
    y_ptr, y_batch: tl.int64, y_channel: tl.int64, y_row: tl.int64, y_column: tl.int64,
    weight_ptr, weight_batch: tl.int64, weight_channel: tl.int64, weight_row: tl.int64,
    weight_column: tl.int64, weight_offset: tl.int64,
    map_ptr, map_batch: tl.int64, map_channel: tl.int64, map_row: tl.int64, map_column: tl.int64,
    map_offset: tl.int64,
    factors_ptr,  # (N, terms), or (terms,) where there is a map, or None
    shared0: tl.float64, shared1: tl.float64, shared2: tl.float64,  # else those of every image
    levels_ptr,  # (planes, 2)
    h_ptr,  # (planes from first_plane on, H, a row of h): ss, dd, s + d, s - d; see h_place
    partial_ptr,  # (programs of all planes, terms): what each adds up
    first_plane: tl.int64, channels: tl.int32, height: tl.int32, width: tl.int32,
    strips: tl.int32, bands: tl.int32, band_height: tl.int32,
    scale: tl.float64, c1: tl.float64, c2: tl.float64, a: tl.float64,
    knee: tl.float64, steepest: tl.float64,
    tap0: tl.float64, tap1: tl.float64, tap2: tl.float64, tap3: tl.float64,
    tap4: tl.float64, tap5: tl.float64, tap6: tl.float64, tap7: tl.float64,
    rows_to_follow: tl.int32,
    radius: tl.constexpr, border: tl.constexpr, gradients: tl.constexpr, writes_map: tl.constexpr,
    weighted: tl.constexpr, mse: tl.constexpr, l1: tl.constexpr, log: tl.constexpr,
    dense: tl.constexpr, block: tl.constexpr, across: tl.constexpr, real: tl.constexpr,
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
    of_image: tl.constexpr = 0 if writes_map else terms
    place = image * of_image
    factor = factor_of(factors_ptr, place, shared0, real)
    second_factor = factor
    third_factor = factor
    if terms > 1:
        second_factor = factor_of(factors_ptr, place + 1, shared1, real)
    if terms > 2:
        third_factor = factor_of(factors_ptr, place + 2, shared2, real)

    first = (strip * (block * across)).to(tl.int32) + across * tl.arange(0, block)
    seen = seen_columns(first, width, radius, border, across)
    begin = (band * band_height).to(tl.int32)
    end = tl.minimum(begin + band_height, height)

    # Rows are asked for ahead where registers are left for them.
    ahead: tl.constexpr = across == 2
    none = no_sums(radius, block, across, real)
    sums = (none, none, none, none)
    own = (tl.full([block], level_s, real), tl.zeros([block], tl.int32))
    # A lane adds up its column of the tile in the type computed in, tiles add up in float64.
    total = tl.zeros([block], real)
    second_total = tl.zeros([block], real)
    third_total = tl.zeros([block], real)

    lines = lines_at(begin - radius, x_plane, y_plane, x_row, y_row, height, border, dense)
    ends = pixels_at_ends(
        lines, first, seen, x_column, y_column, width, radius, border, dense, across, real
    )
    next_lines = lines_at(begin - radius + 1, x_plane, y_plane, x_row, y_row, height, border, dense)
    next_ends = pixels_at_ends(
        next_lines, first, seen, x_column, y_column, width, radius, border, dense, across, real
    )
    for v in range(begin - radius, begin + radius):
        if ahead:
            later = lines_at(v + 2, x_plane, y_plane, x_row, y_row, height, border, dense)
            later_ends = pixels_at_ends(
                later, first, seen, x_column, y_column, width, radius, border, dense, across, real
            )
        else:
            lines = lines_at(v, x_plane, y_plane, x_row, y_row, height, border, dense)
            ends = pixels_at_ends(
                lines, first, seen, x_column, y_column, width, radius, border, dense, across, real
            )
        _, _, _, _, sums, own = moments_of_row(
            lines, ends, sums, own, first, seen, x_column, y_column, width, taps, scale, level_d,
            c2, rows_to_follow, radius, border, dense, across, real,
        )  # fmt: skip
        if ahead:
            lines, ends = next_lines, next_ends
            next_lines, next_ends = later, later_ends
    for row in range(begin, end):
        if ahead:
            later = lines_at(
                row + radius + 2, x_plane, y_plane, x_row, y_row, height, border, dense
            )
            later_ends = pixels_at_ends(
                later, first, seen, x_column, y_column, width, radius, border, dense, across, real
            )
        else:
            lines = lines_at(row + radius, x_plane, y_plane, x_row, y_row, height, border, dense)
            ends = pixels_at_ends(
                lines, first, seen, x_column, y_column, width, radius, border, dense, across, real
            )
        mean_d, mean_s, square_d, square_s, sums, own = moments_of_row(
            lines, ends, sums, own, first, seen, x_column, y_column, width, taps, scale, level_d,
            c2, rows_to_follow, radius, border, dense, across, real,
        )  # fmt: skip
        if ahead:
            lines, ends = next_lines, next_ends
            next_lines, next_ends = later, later_ends
        for c in tl.static_range(across):
            column = first + c
            in_image = column < width
            # The loss there, its sum, and what the adjoint takes.
            loss, p, q, inverse_m, inverse_v, mu_d, mu_s = ssim(
                mean_d[c], mean_s[c], square_d[c], square_s[c], c1, c2, a, level_d, own[0]
            )
            value, slope = amplify(loss, log, knee, steepest)
            counts = in_image
            if border == VALID:
                counts = (column >= radius) & (column < width - radius)
                counts &= (row >= radius) & (row < height - radius)
            if weighted:
                weight = tl.load(
                    weight_plane
                    + tl.cast(row, tl.int64) * weight_row
                    + column.to(tl.int64) * weight_column,
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
                    mean_d[c], mean_s[c] + (own[0] - level_s), p, q, inverse_m, inverse_v, mu_d,
                    mu_s, slope, a,
                )  # fmt: skip
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
                    + h_place(column, h_planes, across)
                )
                tl.store(h, h_ss, mask=in_image)
                tl.store(h + across * LANES, h_dd, mask=in_image)
                tl.store(h + 2 * across * LANES, h_x, mask=in_image)
                if gradients == 2:
                    tl.store(h + 3 * across * LANES, h_y, mask=in_image)

            # The pointwise terms of these pixels. Their d is not about its level: that has lost
            # digits.
            if terms > 1:
                x = read(
                    line_of(x_plane, row, x_row, dense) + offset(column, x_column, dense),
                    in_image,
                    real,
                )
                y = read(
                    line_of(y_plane, row, y_row, dense) + offset(column, y_column, dense),
                    in_image,
                    real,
                )
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
                    map_plane + tl.cast(row, tl.int64) * map_row + column.to(tl.int64) * map_column,
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


@triton.jit
def h_at(v, h_plane, h_row, height, border: tl.constexpr):
    """Row v of the h planes, and whether there is one: only "reflect" has any beyond an edge."""
    there = (v >= 0) & (v < height)
    if border == REFLECT:
        there = True
    return h_plane + seen_at(v, height, border).to(tl.int64) * h_row.to(tl.int64), there


@triton.jit
def h_at_ends(
    line, first, h_seen, width, radius: tl.constexpr, border: tl.constexpr,
    gradients: tl.constexpr, by_x_plane: tl.constexpr, across: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    """The h planes at the first and the last column that a lane sees."""
    last: tl.constexpr = 2 * radius + across - 1
    left = is_there(line[1], first - radius, width, border == REFLECT)
    right = is_there(line[1], first + (last - radius), width, border == REFLECT)
    ends = ()
    for j in tl.static_range(2 + gradients):
        ends = ends + (
            read(plane_of(line[0] + h_seen[0], j, by_x_plane, across), left, real),
            read(plane_of(line[0] + h_seen[last], j, by_x_plane, across), right, real),
        )
    return ends


@triton.jit
def plane_of(place, j: tl.constexpr, by_x_plane: tl.constexpr, across: tl.constexpr):
    """The same place in the j-th of the h planes that this launch reads."""
    if j == 2:
        place += by_x_plane * across * LANES
    else:
        place += j * across * LANES
    return place


@triton.jit
def adjoint_of_row(
    line, ends, sums, first, h_seen, width, taps, radius: tl.constexpr,
    border: tl.constexpr, gradients: tl.constexpr, by_x_plane: tl.constexpr,
    across: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    """A row of the h planes under the windows; those of `radius` rows above are done.

    Returns these, each a tuple of a lane's columns, and the sums. ends: as in `moments_of_row`.
    """
    last: tl.constexpr = 2 * radius + across - 1
    done = ()
    later = ()
    for j in tl.static_range(2 + gradients):
        h = (ends[2 * j],)
        for k in tl.static_range(1, last):
            there = is_there(line[1], first + (k - radius), width, border == REFLECT)
            place = plane_of(line[0] + h_seen[k], j, by_x_plane, across)
            h = h + (read(place, there, real),)
        h = h + (ends[2 * j + 1],)
        windows, after = push(sums[j], along_x(h, taps, radius, across), taps, radius, across)
        done = done + (windows,)
        later = later + (after,)
    return done, later


@triton.jit
def own_pixels(
    row, x_plane, y_plane, x_row, y_row, x_column, y_column, height, width, first,
    dense: tl.constexpr, across: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    """x and y at each of a lane's columns in turn. A row ahead: beyond the image it is some row."""
    row = tl.minimum(row, height - 1)
    x_line = line_of(x_plane, row, x_row, dense)
    y_line = line_of(y_plane, row, y_row, dense)
    pixels = ()
    for c in tl.static_range(across):
        there = first + c < width
        pixels = pixels + (
            read(x_line + offset(first + c, x_column, dense), there, real),
            read(y_line + offset(first + c, y_column, dense), there, real),
        )
    return pixels


@kernel
def ssim_gradients(
    x_ptr, x_batch: tl.int64, x_channel: tl.int64, x_row: tl.int64, x_column: tl.int64,
    y_ptr, y_batch: tl.int64, y_channel: tl.int64, y_row: tl.int64, y_column: tl.int64,
    weight_ptr, weight_batch: tl.int64, weight_channel: tl.int64, weight_row: tl.int64,
    weight_column: tl.int64,
    dx_ptr, dx_batch: tl.int64, dx_channel: tl.int64, dx_row: tl.int64, dx_column: tl.int64,
    dy_ptr, dy_batch: tl.int64, dy_channel: tl.int64, dy_row: tl.int64, dy_column: tl.int64,
    factors_ptr,  # (N, terms), or None
    shared0: tl.float64, shared1: tl.float64, shared2: tl.float64,  # else those of every image
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
    dense: tl.constexpr, block: tl.constexpr, across: tl.constexpr, real: tl.constexpr,
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
    h_row = h_row_length(width, h_planes, across)
    h_plane = h_ptr + (plane - first_plane) * height * h_row.to(tl.int64)

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

    first = (strip * (block * across)).to(tl.int32) + across * tl.arange(0, block)
    seen = seen_columns(first, width, radius, border, across)
    h_seen = ()
    for k in tl.static_range(2 * radius + across):
        h_seen = h_seen + (h_place(seen[k], h_planes, across),)
    begin = (band * band_height).to(tl.int32)
    end = tl.minimum(begin + band_height, height)

    # Rows are asked for ahead where registers are left for them.
    ahead: tl.constexpr = across == 2
    none = no_sums(radius, block, across, real)
    sums = (none, none, none)
    if gradients == 2:
        sums = (none, none, none, none)
    line = h_at(begin - radius, h_plane, h_row, height, border)
    ends = h_at_ends(
        line, first, h_seen, width, radius, border, gradients, by_x_plane, across, real
    )
    next_line = h_at(begin - radius + 1, h_plane, h_row, height, border)
    next_ends = h_at_ends(
        next_line, first, h_seen, width, radius, border, gradients, by_x_plane, across, real
    )
    for v in range(begin - radius, begin + radius):
        if ahead:
            later = h_at(v + 2, h_plane, h_row, height, border)
            later_ends = h_at_ends(
                later, first, h_seen, width, radius, border, gradients, by_x_plane, across, real
            )
        else:
            line = h_at(v, h_plane, h_row, height, border)
            ends = h_at_ends(
                line, first, h_seen, width, radius, border, gradients, by_x_plane, across, real
            )
        _, sums = adjoint_of_row(
            line, ends, sums, first, h_seen, width, taps, radius, border, gradients, by_x_plane,
            across, real,
        )  # fmt: skip
        if ahead:
            line, ends = next_line, next_ends
            next_line, next_ends = later, later_ends
    pixels = own_pixels(
        begin, x_plane, y_plane, x_row, y_row, x_column, y_column, height, width, first, dense,
        across, real,
    )  # fmt: skip
    for row in range(begin, end):
        if ahead:
            later = h_at(row + radius + 2, h_plane, h_row, height, border)
            later_ends = h_at_ends(
                later, first, h_seen, width, radius, border, gradients, by_x_plane, across, real
            )
        else:
            line = h_at(row + radius, h_plane, h_row, height, border)
            ends = h_at_ends(
                line, first, h_seen, width, radius, border, gradients, by_x_plane, across, real
            )
        windows, sums = adjoint_of_row(
            line, ends, sums, first, h_seen, width, taps, radius, border, gradients, by_x_plane,
            across, real,
        )  # fmt: skip
        if ahead:
            line, ends = next_line, next_ends
            next_line, next_ends = later, later_ends
        if ahead:
            next_pixels = own_pixels(
                row + 1, x_plane, y_plane, x_row, y_row, x_column, y_column, height, width, first,
                dense, across, real,
            )  # fmt: skip
        else:
            pixels = own_pixels(
                row, x_plane, y_plane, x_row, y_row, x_column, y_column, height, width, first,
                dense, across, real,
            )  # fmt: skip
        for c in tl.static_range(across):
            column = first + c
            in_image = column < width
            # The pixels' gradients.
            x = pixels[2 * c]
            y = pixels[2 * c + 1]
            d, s = difference_and_sum(x, y, scale, level_d, level_s)
            by_s = 2.0 * s * windows[0][c]
            by_d = 2.0 * d * windows[1][c]
            dx = windows[2][c] + by_s + by_d
            dy = windows[gradients + 1][c] + by_s - by_d
            if border == REFLECT:
                share = tl.where(at_edge(row, height), 0.5, 1.0).to(real)
                share = tl.where(at_edge(column, width), 0.5 * share, share)
                dx *= share
                dy *= share
            if terms > 1:
                second_factor = factor_of(factors_ptr, image * terms + 1, shared1, real)
                third_factor = second_factor
                if terms > 2:
                    third_factor = factor_of(factors_ptr, image * terms + 2, shared2, real)
                _, _, _, slope = pointwise(
                    (x - y) * scale, second_factor, third_factor, mse, l1, log, knee, steepest
                )
                if weighted:
                    slope *= tl.load(
                        weight_plane
                        + tl.cast(row, tl.int64) * weight_row
                        + column.to(tl.int64) * weight_column,
                        mask=in_image,
                        other=0.0,
                    )
                dx += slope
                dy -= slope
            dx_line = dx_plane + tl.cast(row, tl.int64) * dx_row
            tl.store(dx_line + column.to(tl.int64) * dx_column, dx * scale, mask=in_image)
            if gradients == 2:
                dy_line = dy_plane + tl.cast(row, tl.int64) * dy_row
                tl.store(dy_line + column.to(tl.int64) * dy_column, dy * scale, mask=in_image)
        if ahead:
            pixels = next_pixels
