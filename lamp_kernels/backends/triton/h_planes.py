"""The h planes: what ssim_losses hands to ssim_gradients, and how it lies in memory.

At most four planes per image plane, in this order: ss, dd, s + d, s - d (formulas.ssim_adjoint). A
row of all planes is cut into chunks that hold every plane, so one address serves them all, with
constants added. Within a chunk the even columns come before the odd ones, so adjacent lanes, which
are two columns apart, access adjacent memory.
"""

import triton
import triton.language as tl

from lamp_kernels.backends.triton.borders import REFLECT, border_index, in_bounds
from lamp_kernels.backends.triton.memory import read

LANES: tl.constexpr = tl.constexpr(32)  # a chunk has this many columns, or pairs of columns


@triton.jit
def h_row_length(width, h_planes: tl.constexpr, across: tl.constexpr):
    """Elements in a row of all h planes of an image plane. tiling.h_elements assumes the same."""
    chunk: tl.constexpr = across * LANES
    return (width + (chunk - 1)) // chunk * (h_planes * chunk)


@triton.jit
def h_offset(column, h_planes: tl.constexpr, across: tl.constexpr):
    """A column's offset in its row, in the first h plane."""
    chunk: tl.constexpr = across * LANES
    within = column % chunk
    return column // chunk * (h_planes * chunk) + within % across * LANES + within // across


@triton.jit
def h_columns(columns, h_planes: tl.constexpr, across: tl.constexpr):
    """`h_offset` of each of the columns."""
    offsets = ()
    for k in tl.static_range(len(columns)):
        offsets = offsets + (h_offset(columns[k], h_planes, across),)
    return offsets


@triton.jit
def in_h_plane(pointer, j: tl.constexpr, grad_x_plane: tl.constexpr, across: tl.constexpr):
    """The same place in the j-th of the h planes that a launch of ssim_gradients reads."""
    if j == 2:
        pointer += grad_x_plane * across * LANES
    else:
        pointer += j * across * LANES
    return pointer


@triton.jit
def h_row_at(
    v, h_plane, h_row, height, width, first, offsets, radius: tl.constexpr, border: tl.constexpr,
    gradients: tl.constexpr, grad_x_plane: tl.constexpr, across: tl.constexpr,
    compute_dtype: tl.constexpr,
):  # fmt: skip
    """Row v of the h planes: its address and mask, and its values at a lane's outermost columns.

    Only under "reflect" do rows beyond an edge count.
    """
    mask = (v >= 0) & (v < height)
    if border == REFLECT:
        mask = True
    line = h_plane + border_index(v, height, border).to(tl.int64) * h_row.to(tl.int64)
    last: tl.constexpr = 2 * radius + across - 1
    left = in_bounds(mask, first - radius, width, border == REFLECT)
    right = in_bounds(mask, first + (last - radius), width, border == REFLECT)
    ends = ()
    for j in tl.static_range(2 + gradients):
        ends = ends + (
            read(in_h_plane(line + offsets[0], j, grad_x_plane, across), left, compute_dtype),
            read(in_h_plane(line + offsets[last], j, grad_x_plane, across), right, compute_dtype),
        )
    return (line, mask), ends
