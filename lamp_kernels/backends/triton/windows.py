"""What the SSIM kernels share: the window, borders, and windows along y that need no neighbours.

A program owns a strip of columns, one or two a lane, and walks down it. Along x a lane loads all
that its windows see, from the cache: two columns share most of it. Along y a lane keeps, for each
plane and column, the 2 radius sums of windows under way in registers, and adds a new row to all of
them: the transposed form of a filter. Two columns are
two blocks in a tuple: Triton would move a block of pairs through shared memory.
"""

import triton
import triton.language as tl

REFLECT: tl.constexpr = tl.constexpr(0)
VALID: tl.constexpr = tl.constexpr(1)
ZEROS: tl.constexpr = tl.constexpr(2)
LANES: tl.constexpr = tl.constexpr(32)  # a chunk of a row of h planes has as many pairs of columns


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
def no_sums(radius: tl.constexpr, block: tl.constexpr, across: tl.constexpr, real: tl.constexpr):
    """The sums of one plane before the first row: a tuple of 2 radius for each of the columns."""
    sums = ()
    for _ in tl.static_range(across):
        of_column = ()
        for _ in tl.static_range(2 * radius):
            of_column = of_column + (tl.zeros([block], real),)
        sums = sums + (of_column,)
    return sums


@triton.jit
def push(sums, values, taps, radius: tl.constexpr, across: tl.constexpr):
    """A new row's values, one a column, for all windows along y that see them.

    Returns the windows that end there, which are centred `radius` rows above, and the sums for the
    next row: `sums[c][k]` is the window centred radius - k rows above that one.
    """
    done = ()
    later = ()
    for c in tl.static_range(across):
        before = sums[c]
        value = values[c]
        after = ()
        for k in tl.static_range(radius):
            after = after + (before[k + 1] + taps[radius - 1 - k] * value,)
        for k in tl.static_range(radius, 2 * radius - 1):
            after = after + (before[k + 1] + taps[k - radius + 1] * value,)
        done = done + (before[0] + taps[radius] * value,)
        later = later + (after + (taps[radius] * value,),)
    return done, later


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
def seen_columns(first, width, radius: tl.constexpr, border: tl.constexpr, across: tl.constexpr):
    """What stands at the columns first - radius to first + across - 1 + radius."""
    columns = ()
    for k in tl.static_range(2 * radius + across):
        columns = columns + (seen_at(first + (k - radius), width, border),)
    return columns


@triton.jit
def is_there(row_there, column, width, mirrored: tl.constexpr):
    """Whether a pixel stands there: without a sign, what is left of 0 is large."""
    there = row_there
    if not mirrored:
        there = row_there & (column.to(tl.uint32) < width.to(tl.uint32))
    return there


@triton.jit
def along_x(values, taps, radius: tl.constexpr, across: tl.constexpr):
    """The window over the values that a lane sees, at each of its columns."""
    sums = ()
    for c in tl.static_range(across):
        total = taps[0] * values[c + radius]
        for k in tl.static_range(1, radius + 1):
            total += taps[k] * (values[c + radius - k] + values[c + radius + k])
        sums = sums + (total,)
    return sums


@triton.jit
def squares_along_x(values, taps, radius: tl.constexpr, across: tl.constexpr):
    """The window over their squares."""
    sums = ()
    for c in tl.static_range(across):
        total = taps[0] * values[c + radius] * values[c + radius]
        for k in tl.static_range(1, radius + 1):
            left = values[c + radius - k]
            right = values[c + radius + k]
            total += taps[k] * (left * left + right * right)
        sums = sums + (total,)
    return sums


@triton.jit
def raise_level(means, squares, by, taps, radius: tl.constexpr, across: tl.constexpr):
    """Sums under way of means and squares about a level, which moves up `by`."""
    later_means = ()
    later_squares = ()
    for c in tl.static_range(across):
        own_means = ()
        own_squares = ()
        seen = taps[radius]  # of the rows that a window has seen, the latest window first
        for k in tl.static_range(2 * radius - 1, -1, -1):
            mean = means[c][k] - by * seen
            own_squares = (squares[c][k] - by * (means[c][k] + mean),) + own_squares
            own_means = (mean,) + own_means
            if k >= radius:
                seen += taps[k - radius]
            else:
                seen += taps[radius - k]
        later_means = later_means + (own_means,)
        later_squares = later_squares + (own_squares,)
    return later_means, later_squares


@triton.jit
def at_edge(i, size):
    """Whether row or column `i` is the first or the last."""
    return (i == 0) | (i == size - 1)


@triton.jit
def offset(index, stride, dense: tl.constexpr):
    """Of a column in its row, in elements. dense: the stride is 1, and 32 bits hold it."""
    if dense:
        place = index
    else:
        place = index.to(tl.int64) * stride
    return place


@triton.jit
def line_of(plane, row, stride, dense: tl.constexpr):
    """The address of a row of an image. dense: 32 bits hold the stride: one multiplication."""
    if dense:
        line = plane + tl.cast(row, tl.int64) * stride.to(tl.int32).to(tl.int64)
    else:
        line = plane + tl.cast(row, tl.int64) * stride
    return line


@triton.jit
def h_row_length(width, h_planes: tl.constexpr, across: tl.constexpr):
    """Elements of a row of all h planes of a plane. launch.py reckons with the same."""
    chunk: tl.constexpr = across * LANES
    return (width + (chunk - 1)) // chunk * (h_planes * chunk)


@triton.jit
def h_place(column, h_planes: tl.constexpr, across: tl.constexpr):
    """Of a column in its row, in the first h plane; the next ones follow at `across * LANES` each.

    A row is cut into chunks that hold all planes, so that one address serves them with constants
    added; in a chunk the even columns come before the odd ones, so that lanes side by side, which
    are two columns apart, read side by side.
    """
    chunk: tl.constexpr = across * LANES
    within = column % chunk
    return column // chunk * (h_planes * chunk) + within % across * LANES + within // across
