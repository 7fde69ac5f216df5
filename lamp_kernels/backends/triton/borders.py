"""What windows see beyond the edge of an image, along either axis."""

import triton
import triton.language as tl

REFLECT: tl.constexpr = tl.constexpr(0)
VALID: tl.constexpr = tl.constexpr(1)
ZEROS: tl.constexpr = tl.constexpr(2)


@triton.jit
def border_index(i, size, border: tl.constexpr):
    """The row or column of the image that a window sees at `i`, which may lie beyond the edge.

    Under "reflect" `i` lies within size - 1 of the image (radius < size). Under the other borders,
    and in lanes beyond a strip's end, the pixel does not count: any index inside the image will do.
    """
    if border == REFLECT:
        i = tl.where(i < 0, -i, i)
        i = tl.where(i < size, i, 2 * (size - 1) - i)
    return tl.minimum(tl.maximum(i, 0), size - 1)


@triton.jit
def border_columns(first, width, radius: tl.constexpr, border: tl.constexpr, across: tl.constexpr):
    """`border_index` of the columns first - radius to first + across - 1 + radius."""
    columns = ()
    for k in tl.static_range(2 * radius + across):
        columns = columns + (border_index(first + (k - radius), width, border),)
    return columns


@triton.jit
def in_bounds(row_mask, column, width, mirrored: tl.constexpr):
    """Whether windows see a pixel there. As an unsigned number, a negative column is large."""
    mask = row_mask
    if not mirrored:
        mask = row_mask & (column.to(tl.uint32) < width.to(tl.uint32))
    return mask


@triton.jit
def at_edge(i, size):
    """Whether row or column `i` is the first or the last."""
    return (i == 0) | (i == size - 1)
