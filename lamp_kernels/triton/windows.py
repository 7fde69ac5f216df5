"""What the SSIM kernels share: the window, borders, and windows along y that need no neighbours.

A program owns a strip of columns, one a lane, and walks down it. Along x a window reads its
neighbours from the cache, by loads at shifted addresses. Along y a lane keeps for each plane the
2 radius sums of windows that are under way, in registers, and a new row goes to all of them: the
transposed form of a filter, in which moving on by a row costs no move.
"""

import triton
import triton.language as tl

REFLECT: tl.constexpr = tl.constexpr(0)
VALID: tl.constexpr = tl.constexpr(1)
ZEROS: tl.constexpr = tl.constexpr(2)


@triton.jit
def window(tap0, tap1, tap2, tap3, tap4, tap5, tap6, tap7, real: tl.constexpr):
    """The taps by their distance from the centre, in the type computed in."""
    return (
        tl.full((), tap0, real),
        tl.full((), tap1, real),
        tl.full((), tap2, real),
        tl.full((), tap3, real),
        tl.full((), tap4, real),
        tl.full((), tap5, real),
        tl.full((), tap6, real),
        tl.full((), tap7, real),
    )


@triton.jit
def no_sums(radius: tl.constexpr, block: tl.constexpr, real: tl.constexpr):
    """The sums of one plane before the first row."""
    sums = ()
    for _ in tl.static_range(2 * radius):
        sums = sums + (tl.zeros([block], real),)
    return sums


@triton.jit
def push(sums, value, taps, radius: tl.constexpr):
    """A new row's `value` for all windows along y that see it.

    Returns the window that ends there, which is centred `radius` rows above, and the sums for the
    next row: `sums[k]` is the window centred radius - k rows above that one.
    """
    done = sums[0] + taps[radius] * value
    later = ()
    for k in tl.static_range(radius):
        later = later + (sums[k + 1] + taps[radius - 1 - k] * value,)
    for k in tl.static_range(radius, 2 * radius - 1):
        later = later + (sums[k + 1] + taps[k - radius + 1] * value,)
    return done, later + (taps[radius] * value,)


@triton.jit
def seen_at(i, size, border: tl.constexpr):
    """The row or column of the image that stands at `i`, where windows reach beyond the edge.

    Under "reflect" `i` lies within size - 1 of the image (radius < size). For the other borders,
    and in lanes beyond a strip's end, what is there does not count: it is some pixel.
    """
    if border == REFLECT:
        i = tl.where(i < 0, -i, i)
        i = tl.where(i < size, i, 2 * (size - 1) - i)
    return tl.minimum(tl.maximum(i, 0), size - 1)


@triton.jit
def seen_columns(column, width, radius: tl.constexpr, border: tl.constexpr):
    """What stands at the columns column - radius to column + radius."""
    columns = ()
    for k in tl.static_range(2 * radius + 1):
        if border == REFLECT:
            columns = columns + (seen_at(column + (k - radius), width, border),)
        else:
            columns = columns + (column,)
    return columns


@triton.jit
def neighbour(
    line, columns, k: tl.constexpr, stride, radius: tl.constexpr, border: tl.constexpr,
    dense: tl.constexpr,
):  # fmt: skip
    """The address in its line of what stands k columns to the right. columns: of `seen_columns`.

    Only a mirrored column needs an address of its own. Under the other borders it is the lane's
    own and a constant: outside of the image where `is_there` is false, and not to be read then.
    """
    place = line + offset(columns[radius + k], stride, dense)
    if border != REFLECT:
        if dense:
            place += k
        else:
            place += k * stride
    return place


@triton.jit
def is_there(row_there, column, width, k: tl.constexpr, border: tl.constexpr):
    """Whether a pixel stands k columns to the right: without a sign, what is left of 0 is large."""
    there = row_there
    if border != REFLECT:
        there = row_there & ((column + k).to(tl.uint32) < width.to(tl.uint32))
    return there


@triton.jit
def at_edge(i, size):
    """Whether row or column `i` is the first or the last."""
    return (i == 0) | (i == size - 1)


@triton.jit
def offset(column, stride, dense: tl.constexpr):
    """Of a column in its row, in elements. dense: the stride is 1, and 32 bits hold it."""
    if dense:
        place = column
    else:
        place = column.to(tl.int64) * stride
    return place
