"""The second kernel of SSIM and the terms beside it: h planes -> the window's adjoint -> gradients.

The adjoint of a mirrored border. Continue the h planes beyond the edge as their own mirror image,
with the edge row (column) repeated. The window over that is the transpose of the window over the
mirrored image, except that the pixels of the edge itself get twice their gradient. So both kernels
read beyond the edge by the same rule (`border_index`), and two factors do the rest: 2 for the h
planes of an edge and 1/2 for its pixels. Beyond the edge of a zero border there is no loss, nor is
there any outside the grid of "valid": h is 0.
"""

import triton
import triton.language as tl

from lamp_kernels.backends.triton.borders import REFLECT, at_edge, border_columns, in_bounds
from lamp_kernels.backends.triton.formulas import pointwise_terms, term_count
from lamp_kernels.backends.triton.h_planes import h_columns, h_row_at, h_row_length, in_h_plane
from lamp_kernels.backends.triton.jit import kernel
from lamp_kernels.backends.triton.memory import (
    column_offset,
    image_scale,
    numbers,
    pixel_offset,
    read,
    row_pointer,
    term_factors,
    tuple_of,
)
from lamp_kernels.backends.triton.moments import difference_and_sum
from lamp_kernels.backends.triton.windows import along_x, no_sums, push, tile_of


@triton.jit
def adjoint_of_row(
    line, ends, sums, first, offsets, width, taps, radius: tl.constexpr,
    border: tl.constexpr, gradients: tl.constexpr, grad_x_plane: tl.constexpr,
    across: tl.constexpr, compute_dtype: tl.constexpr,
):  # fmt: skip
    """Add a row of the h planes to the windows; those centered `radius` rows above complete.

    Returns the complete windows, for each plane a tuple over a lane's columns, and the sums. ends:
    as in `moments_of_row`.
    """
    last: tl.constexpr = 2 * radius + across - 1
    complete = ()
    next_sums = ()
    for j in tl.static_range(2 + gradients):
        h = (ends[2 * j],)
        for k in tl.static_range(1, last):
            mask = in_bounds(line[1], first + (k - radius), width, border == REFLECT)
            pointer = in_h_plane(line[0] + offsets[k], j, grad_x_plane, across)
            h = h + (read(pointer, mask, compute_dtype),)
        h = h + (ends[2 * j + 1],)
        windows, after = push(sums[j], along_x(h, taps, radius, across), taps, radius, across)
        complete = complete + (windows,)
        next_sums = next_sums + (after,)
    return complete, next_sums


@triton.jit
def own_pixels(
    row, images, height, width, first, dense: tl.constexpr, across: tl.constexpr,
    compute_dtype: tl.constexpr,
):  # fmt: skip
    """x and y at each of a lane's columns in turn. images: as in moments.row_at.

    The row is requested ahead; below the image, any row inside it will do.
    """
    x_plane, y_plane, x_row, y_row, x_column, y_column = images
    row = tl.minimum(row, height - 1)
    x_line = row_pointer(x_plane, row, x_row, dense)
    y_line = row_pointer(y_plane, row, y_row, dense)
    pixels = ()
    for c in tl.static_range(across):
        mask = first + c < width
        pixels = pixels + (
            read(x_line + column_offset(first + c, x_column, dense), mask, compute_dtype),
            read(y_line + column_offset(first + c, y_column, dense), mask, compute_dtype),
        )
    return pixels


@kernel
def ssim_gradients(
    x_ptr, x_batch: tl.int64, x_channel: tl.int64, x_row: tl.int64, x_column: tl.int64,
    y_ptr, y_batch: tl.int64, y_channel: tl.int64, y_row: tl.int64, y_column: tl.int64,
    weight_ptr, weight_batch: tl.int64, weight_channel: tl.int64, weight_row: tl.int64,
    weight_column: tl.int64,
    mask_ptr, mask_batch: tl.int64, mask_channel: tl.int64, mask_row: tl.int64,  # columns adjacent
    dx_ptr, dx_batch: tl.int64, dx_channel: tl.int64, dx_row: tl.int64, dx_column: tl.int64,
    dy_ptr, dy_batch: tl.int64, dy_channel: tl.int64, dy_row: tl.int64, dy_column: tl.int64,
    factors_ptr,  # (N, terms), or None: then all images share
    shared0: tl.float64, shared1: tl.float64, shared2: tl.float64,
    scales_ptr,  # (N,), 1/data_range of each image, or None: then all images share `scale`
    shifts_ptr,  # as in ssim_losses
    h_ptr,  # as in ssim_losses
    first_plane: tl.int64, channels: tl.int32, height: tl.int32, width: tl.int32,
    strips: tl.int32, bands: tl.int32, band_height: tl.int32,
    scale: tl.float64,
    amplification0: tl.float64, amplification1: tl.float64, amplification2: tl.float64,
    tap0: tl.float64, tap1: tl.float64, tap2: tl.float64, tap3: tl.float64,
    tap4: tl.float64, tap5: tl.float64, tap6: tl.float64, tap7: tl.float64,
    radius: tl.constexpr, border: tl.constexpr, h_planes: tl.constexpr,
    gradients: tl.constexpr, swapped: tl.constexpr,
    weighted: tl.constexpr, masked: tl.constexpr, metrics: tl.constexpr,
    metric_parameters: tl.constexpr, amplification: tl.constexpr, dense: tl.constexpr,
    block: tl.constexpr, across: tl.constexpr, compute_dtype: tl.constexpr,
):  # fmt: skip
    """The gradients of sum(factors * sums): SSIM's by the adjoint window, the others' pointwise.

    swapped: compute only the gradient of the second image, which is passed as `x`; the sign of d
    flips.
    """
    program = tl.program_id(0).to(tl.int64)
    plane, strip, band = tile_of(program, strips, bands, first_plane)
    image = plane // channels
    channel = plane % channels
    x_plane = x_ptr + image * x_batch + channel * x_channel
    y_plane = y_ptr + image * y_batch + channel * y_channel
    weight_plane = weight_ptr + image * weight_batch + channel * weight_channel
    mask_plane = mask_ptr + image * mask_batch + channel * mask_channel
    dx_plane = dx_ptr + image * dx_batch + channel * dx_channel
    dy_plane = dy_ptr + image * dy_batch + channel * dy_channel
    h_row = h_row_length(width, h_planes, across)
    h_plane = h_ptr + (plane - first_plane) * height * h_row.to(tl.int64)

    taps = numbers((tap0, tap1, tap2, tap3, tap4, tap5, tap6, tap7), compute_dtype)
    scale = image_scale(scale, scales_ptr, image, compute_dtype)
    constants = numbers((amplification0, amplification1, amplification2), compute_dtype)
    shifts = shifts_ptr + (4 if masked else 2) * plane
    shift_d = tl.load(shifts)
    shift_s = tl.load(shifts + 1)
    grad_x_plane: tl.constexpr = 3 if swapped else 2
    if swapped:
        shift_d = -shift_d
    terms: tl.constexpr = term_count(metrics)

    first = (strip * (block * across)).to(tl.int32) + across * tl.arange(0, block)
    columns = border_columns(first, width, radius, border, across)
    offsets = h_columns(columns, h_planes, across)
    begin = (band * band_height).to(tl.int32)
    end = tl.minimum(begin + band_height, height)
    images = (x_plane, y_plane, x_row, y_row, x_column, y_column)

    # Rows are requested ahead where there are registers for them.
    ahead: tl.constexpr = across == 2
    sums = tuple_of(no_sums(radius, block, across, compute_dtype), 2 + gradients)
    line, ends = h_row_at(
        begin - radius, h_plane, h_row, height, width, first, offsets, radius, border, gradients,
        grad_x_plane, across, compute_dtype,
    )  # fmt: skip
    next_line, next_ends = h_row_at(
        begin - radius + 1, h_plane, h_row, height, width, first, offsets, radius, border,
        gradients, grad_x_plane, across, compute_dtype,
    )  # fmt: skip
    for v in range(begin - radius, begin + radius):
        if ahead:
            later_line, later_ends = h_row_at(
                v + 2, h_plane, h_row, height, width, first, offsets, radius, border, gradients,
                grad_x_plane, across, compute_dtype,
            )  # fmt: skip
        else:
            line, ends = h_row_at(
                v, h_plane, h_row, height, width, first, offsets, radius, border, gradients,
                grad_x_plane, across, compute_dtype,
            )  # fmt: skip
        _, sums = adjoint_of_row(
            line, ends, sums, first, offsets, width, taps, radius, border, gradients,
            grad_x_plane, across, compute_dtype,
        )  # fmt: skip
        if ahead:
            line, ends = next_line, next_ends
            next_line, next_ends = later_line, later_ends
    pixels = own_pixels(begin, images, height, width, first, dense, across, compute_dtype)
    for row in range(begin, end):
        if ahead:
            later_line, later_ends = h_row_at(
                row + radius + 2, h_plane, h_row, height, width, first, offsets, radius, border,
                gradients, grad_x_plane, across, compute_dtype,
            )  # fmt: skip
        else:
            line, ends = h_row_at(
                row + radius, h_plane, h_row, height, width, first, offsets, radius, border,
                gradients, grad_x_plane, across, compute_dtype,
            )  # fmt: skip
        windows, sums = adjoint_of_row(
            line, ends, sums, first, offsets, width, taps, radius, border, gradients,
            grad_x_plane, across, compute_dtype,
        )  # fmt: skip
        if ahead:
            line, ends = next_line, next_ends
            next_line, next_ends = later_line, later_ends
            next_pixels = own_pixels(
                row + 1, images, height, width, first, dense, across, compute_dtype
            )
        else:
            pixels = own_pixels(row, images, height, width, first, dense, across, compute_dtype)
        for c in tl.static_range(across):
            column = first + c
            in_image = column < width
            x = pixels[2 * c]
            y = pixels[2 * c + 1]
            if masked:
                m = tl.load(
                    mask_plane + pixel_offset(row, column, mask_row, 1), mask=in_image, other=0.0
                )
                x = tl.where(m == 0.0, 0.0, x)
                y = tl.where(m == 0.0, 0.0, y)
            d, s = difference_and_sum(x, y, scale, shift_d, shift_s)
            grad_ss = 2.0 * s * windows[0][c]
            grad_dd = 2.0 * d * windows[1][c]
            dx = windows[2][c] + grad_ss + grad_dd
            dy = windows[gradients + 1][c] + grad_ss - grad_dd
            if masked:
                dx *= m
                dy *= m
            if border == REFLECT:
                share = tl.where(at_edge(row, height), 0.5, 1.0).to(compute_dtype)
                share = tl.where(at_edge(column, width), 0.5 * share, share)
                dx *= share
                dy *= share
            if terms > 1:
                factors = term_factors(
                    factors_ptr, image * terms, (shared0, shared1, shared2), terms, compute_dtype
                )
                _, _, slope = pointwise_terms(
                    (x - y) * scale, factors, metrics, metric_parameters, amplification, constants
                )
                if weighted:
                    slope *= tl.load(
                        weight_plane + pixel_offset(row, column, weight_row, weight_column),
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
