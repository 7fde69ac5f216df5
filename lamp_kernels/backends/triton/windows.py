"""What both SSIM kernels share: a program's tile, and windows that need no neighboring lanes.

A program owns a strip of columns, one or two per lane, and walks down it. Along x a lane loads all
the pixels that its windows see from the cache; two adjacent columns share most of them. Along y a
lane keeps, for each plane and column, the 2 radius window sums in progress in registers, and adds a
new row to all of them: the transposed form of a filter. Two columns are two blocks in a tuple:
Triton would move a block of pairs through shared memory.
"""

import triton
import triton.language as tl


@triton.jit
def tile_of(program, strips, bands, first_plane):
    """A program's plane, strip of columns and band of rows. Bands of a strip are consecutive."""
    band = program % bands
    strip = program // bands % strips
    plane = first_plane + program // bands // strips
    return plane, strip, band


@triton.jit
def no_sums(
    radius: tl.constexpr, block: tl.constexpr, across: tl.constexpr, compute_dtype: tl.constexpr
):
    """The sums of one plane before the first row: a tuple of 2 radius for each of the columns."""
    sums = ()
    for _ in tl.static_range(across):
        column_sums = ()
        for _ in tl.static_range(2 * radius):
            column_sums = column_sums + (tl.zeros([block], compute_dtype),)
        sums = sums + (column_sums,)
    return sums


@triton.jit
def push(sums, values, taps, radius: tl.constexpr, across: tl.constexpr):
    """Add a new row's values, one per column, to all windows along y that see them.

    taps: by their distance from the center.
    Returns the windows that this row completes, centered `radius` rows above it, and the sums for
    the next row: `sums[c][k]` is the window centered radius - k rows above that one.
    """
    complete = ()
    next_sums = ()
    for c in tl.static_range(across):
        before = sums[c]
        value = values[c]
        after = ()
        for k in tl.static_range(radius):
            after = after + (before[k + 1] + taps[radius - 1 - k] * value,)
        for k in tl.static_range(radius, 2 * radius - 1):
            after = after + (before[k + 1] + taps[k - radius + 1] * value,)
        complete = complete + (before[0] + taps[radius] * value,)
        next_sums = next_sums + (after + (taps[radius] * value,),)
    return complete, next_sums


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
def move_shift(means, squares, step, taps, radius: tl.constexpr, across: tl.constexpr):
    """Sums in progress, of values minus a shift and of their squares, after it grows by `step`."""
    next_means = ()
    next_squares = ()
    for c in tl.static_range(across):
        column_means = ()
        column_squares = ()
        seen = taps[radius]  # the taps of the rows that a window has seen; the latest window first
        for k in tl.static_range(2 * radius - 1, -1, -1):
            mean = means[c][k] - step * seen
            column_squares = (squares[c][k] - step * (means[c][k] + mean),) + column_squares
            column_means = (mean,) + column_means
            if k >= radius:
                seen += taps[k - radius]
            else:
                seen += taps[radius - k]
        next_means = next_means + (column_means,)
        next_squares = next_squares + (column_squares,)
    return next_means, next_squares
