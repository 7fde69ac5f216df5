"""The windows of SSIM: one-dimensional taps, by which images are averaged along each axis."""

import math
from collections.abc import Sequence
from typing import Literal

from lamp_kernels.checks import check_choice, check_not_negative, shown

# A name, or taps of one's own.
Window = Literal["gaussian", "uniform"] | Sequence[float]
WINDOWS = ("gaussian", "uniform")


def gaussian(size: int, sigma: float) -> list[float]:
    """The taps exp(-k^2 / (2 sigma^2)), k = -(size//2) .. size//2, normalized to a sum of 1."""
    # k/sigma before the square: sigma^2 alone may underflow to zero.
    scaled = [(k - size // 2) / sigma for k in range(size)]
    return normalized([math.exp(-0.5 * z * z) for z in scaled])


def uniform(size: int) -> list[float]:
    """The taps of a mean of `size` pixels."""
    return [1.0 / size] * size


def normalized(taps: Sequence[float]) -> list[float]:
    """The taps divided by their sum."""
    total = math.fsum(taps)
    return [tap / total for tap in taps]


def check_window(value: object, largest: int) -> Window:
    """`value` if it is the name of a window; its taps, normalized, if it is a sequence; else raise.

    Taps are symmetric, at least 0, and positive in the middle, so that a pixel sees itself.
    """
    if isinstance(value, str):
        check_choice("window", value, WINDOWS)
        return "gaussian" if value == "gaussian" else "uniform"
    if not isinstance(value, Sequence):
        hint = ", use .tolist()" if hasattr(value, "tolist") else ""
        names = " or ".join(map(repr, WINDOWS))
        raise TypeError(f"window must be {names} or a sequence of taps, got {shown(value)}{hint}")
    taps = [check_not_negative(f"window[{i}]", tap) for i, tap in enumerate(value)]
    if len(taps) % 2 == 0 or len(taps) > largest:
        raise ValueError(
            f"window must have an odd number of taps from 1 to {largest}, got {len(taps)}"
        )
    if taps != taps[::-1]:
        raise ValueError(f"window must be symmetric, got {value!r}")
    if not 0.0 < math.fsum(taps) < math.inf:
        raise ValueError(f"window must have a positive, finite sum of taps, got {value!r}")
    if taps[len(taps) // 2] == 0.0:  # a masked window might see nothing but count
        raise ValueError(f"window must have a positive tap in the middle, got {value!r}")
    return tuple(normalized(taps))
