"""The options of a loss: their names, their valid values, and the errors for all others.

Everything here looks at Python numbers and strings only, so it costs no synchronisation with a
device and leaves no trace in a compiled graph.
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Literal, NamedTuple

Padding = Literal["reflect", "valid", "zeros"]
Dissimilarity = Literal["half", "full"]
Amplification = Literal["log", "none"]
Level = Literal["element", "image", "batch"]
Reduction = Literal["mean", "sum", "image", "none"]
Metric = Literal["ssim", "mse", "l1"]
# What the losses of a call are added up over: nothing, (N, T); the terms, (N,); all, ().
Sums = Literal["terms", "images", "batch"]
MeanOver = Literal["nothing", "image", "batch"]
Terms = Mapping[Metric, float]  # metric -> coefficient, all positive, in the order of METRICS

PADDINGS: tuple[Padding, ...] = ("reflect", "valid", "zeros")
DISSIMILARITIES: tuple[Dissimilarity, ...] = ("half", "full")
AMPLIFICATIONS: tuple[Amplification, ...] = ("log", "none")
METRICS: tuple[Metric, ...] = ("ssim", "mse", "l1")

# Which reductions exist at each level of amplification. Amplifying an image's mean leaves no
# per-pixel value, and amplifying the batch's mean leaves one number only.
REDUCTIONS: dict[Level, tuple[Reduction, ...]] = {
    "element": ("mean", "sum", "image", "none"),
    "image": ("mean", "sum", "image"),
    "batch": ("mean",),
}

# Of MS-SSIM, whose scales have maps of different sizes: no map, and no sum over elements.
MULTISCALE_REDUCTIONS: dict[Level, tuple[Reduction, ...]] = {
    "element": ("mean", "image"),
    "image": ("mean", "sum", "image"),
    "batch": ("mean",),
}

MAX_WINDOW_SIZE = 31
# So that data_range, and the squares of k1 and k2, are normal numbers in float32.
DATA_RANGES = (1e-37, 1e38)
STABILISERS = (1e-18, 1e18)
MIN_EPS = 1e-6  # a slope of 1e6; nearer to 1 the float32 spacing of 1 - eps itself shows


class LossOptions(NamedTuple):
    """What defines the elementwise loss of every term; the pointwise ones read a part of it."""

    data_range: float = 1.0
    window_size: int = 11
    sigma: float = 1.5
    k1: float = 0.01
    k2: float = 0.03
    padding: Padding = "reflect"
    dissimilarity: Dissimilarity = "half"
    amplification: Amplification = "log"
    eps: float = 1e-2

    def checked(self) -> "LossOptions":
        """The same options as plain floats and ints, or an error naming the one that is wrong."""
        check_choice("padding", self.padding, PADDINGS)
        check_choice("dissimilarity", self.dissimilarity, DISSIMILARITIES)
        check_choice("amplification", self.amplification, AMPLIFICATIONS)
        return LossOptions(
            check_within("data_range", self.data_range, DATA_RANGES),
            check_window_size(self.window_size),
            check_positive("sigma", self.sigma),
            check_within("k1", self.k1, STABILISERS),
            check_within("k2", self.k2, STABILISERS),
            self.padding,
            self.dissimilarity,
            self.amplification,
            check_eps(self.eps),
        )


def check_positive(name: str, value: object) -> float:
    """`value` as a float if it is a positive finite real number, else an error naming it."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, got {_shown(value)}")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond float64
        number = math.inf
    if not (0.0 < number < math.inf):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return number


def check_within(name: str, value: object, limits: tuple[float, float]) -> float:
    """`value` as a float if it is a real number within the limits, else an error naming it."""
    number = check_positive(name, value)
    low, high = limits
    if not low <= number <= high:
        raise ValueError(f"{name} must be within {low:g} to {high:g}, got {value!r}")
    return number


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Nothing if `value` is one of `choices`, else an error naming it and them."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {_shown(value)}")
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def check_window_size(value: object, name: str = "window_size") -> int:
    """`value` as an int if it is odd and within 1 to `MAX_WINDOW_SIZE`, else an error."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {_shown(value)}")
    size = int(value)
    if size % 2 == 0 or not 1 <= size <= MAX_WINDOW_SIZE:
        raise ValueError(f"{name} must be odd and within 1 to {MAX_WINDOW_SIZE}, got {size}")
    return size


def check_eps(value: object) -> float:
    """`value` as a float if 1e-6 <= value < 1, else an error."""
    eps = check_positive("eps", value)
    if not MIN_EPS <= eps < 1.0:
        raise ValueError(f"eps must satisfy {MIN_EPS:g} <= eps < 1, got {value!r}")
    return eps


def check_reduction(
    amplify_over: Level,
    reduction: Reduction,
    existing: Mapping[Level, tuple[Reduction, ...]] = REDUCTIONS,
) -> None:
    """Nothing if the reduction exists at this level of amplification, else a ValueError."""
    check_choice("amplify_over", amplify_over, tuple(REDUCTIONS))
    check_choice("reduction", reduction, REDUCTIONS["element"])
    if reduction not in existing[amplify_over]:
        raise ValueError(
            f"reduction={reduction!r} does not exist for amplify_over={amplify_over!r}; "
            f"choose from {', '.join(existing[amplify_over])}"
        )


def check_scale_weights(value: object, name: str = "scale_weights") -> tuple[float, ...]:
    """`value` as floats if it is a sequence of numbers >= 0, not all of them 0, else an error."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a sequence of numbers, got {_shown(value)}")
    weights = tuple(check_not_negative(f"{name}[{i}]", each) for i, each in enumerate(value))
    if not any(weights):
        raise ValueError(f"one of {name} must be positive, got {value!r}")
    return weights


def check_not_negative(name: str, value: object) -> float:
    """`value` as a float if it is a finite real number of at least 0, else an error naming it."""
    if not isinstance(value, bool) and isinstance(value, Real) and value <= 0:
        if value == 0:
            return 0.0
        raise ValueError(f"{name} must be finite and at least 0, got {value!r}")
    return check_positive(name, value)


def _shown(value: object) -> str:
    return f"{value!r} ({type(value).__name__})"
