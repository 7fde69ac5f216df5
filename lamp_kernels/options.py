"""The options of a loss: their names, their valid values, and the errors for all others.

Everything here looks at Python numbers and strings only, so it costs no synchronisation with a
device and leaves no trace in a compiled graph.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from numbers import Integral, Real
from typing import Literal, NamedTuple, ParamSpec, TypeVar

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
COEFFICIENTS = (1e-18, 1e18)  # of terms and scales; so that their gradients are. Less is 0
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
            check_data_range(self.data_range),
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
    number = _real(name, value)
    if not (0.0 < number < math.inf):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return number


def check_within(name: str, value: object, limits: tuple[float, float]) -> float:
    """`value` as a float if it is a real number within the limits, else an error naming it."""
    number = _real(name, value)
    low, high = limits
    if not low <= number <= high:
        raise ValueError(f"{name} must be within {low:g} to {high:g}, got {value!r}")
    return number


def check_data_range(value: object, name: str = "data_range") -> float:
    """`value` as a float if it is a range, else an error naming it; for tensors, what to do."""
    if not isinstance(value, Real) and hasattr(value, "shape"):
        raise TypeError(
            f"{name} must be one real number, got {shown(value)}. For one range r an image, (N,), "
            "divide the images by it, input / r.view(-1, *[1] * (input.dim() - 1)) and the target "
            f"too, with {name}=1.0; of a tensor of one number take .item(), which waits for its "
            "device"
        )
    return check_within(name, value, DATA_RANGES)


def _real(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, got {shown(value)}")
    try:
        return float(value)
    except OverflowError:  # an integer beyond float64
        return -math.inf if value < 0 else math.inf


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Nothing if `value` is one of `choices`, else an error naming it and them."""
    if not isinstance(value, str):
        listed = ", ".join(map(repr, choices))
        raise TypeError(f"{name} must be a string, one of {listed}; got {shown(value)}")
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def check_window_size(value: object, name: str = "window_size") -> int:
    """`value` as an int if it is odd and within 1 to `MAX_WINDOW_SIZE`, else an error."""
    wanted = f"odd and within 1 to {MAX_WINDOW_SIZE}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, {wanted}; got {shown(value)}")
    size = operator.index(value)  # a number to torch.compile, too: int() would leave it a symbol
    if size % 2 == 0 or not 1 <= size <= MAX_WINDOW_SIZE:
        raise ValueError(f"{name} must be {wanted}, got {size}")
    return size


def check_eps(value: object) -> float:
    """`value` as a float if 1e-6 <= value < 1, else an error."""
    eps = _real("eps", value)
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
    if reduction not in REDUCTIONS["element"]:
        choices = tuple(dict.fromkeys(sum(existing.values(), ())))
        check_choice("reduction", reduction, choices)
    if reduction not in existing[amplify_over]:
        raise ValueError(
            f"reduction={reduction!r} does not exist for amplify_over={amplify_over!r}; "
            f"choose from {', '.join(existing[amplify_over])}"
        )


def check_scale_weights(value: object, name: str = "scale_weights") -> tuple[float, ...]:
    """`value` as floats if it is a sequence of numbers >= 0, not all of them 0, else an error."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        hint = ", use .tolist()" if hasattr(value, "tolist") else ""
        raise TypeError(
            f"{name} must be a sequence of numbers, one a scale; got {shown(value)}{hint}"
        )
    weights = tuple(check_coefficient(f"{name}[{i}]", each) for i, each in enumerate(value))
    if not any(weights):
        raise ValueError(f"one of {name} must be positive, got {value!r}")
    return weights


def check_coefficient(name: str, value: object) -> float:
    """`value` as a float if it is a number of 0 to 1e18, else an error naming it.

    Below 1e-18 it counts as 0: a coefficient that decays in training may become as small.
    """
    number = _real(name, value)
    low, high = COEFFICIENTS
    if not 0.0 <= number <= high:
        raise ValueError(f"{name} must be within 0 to {high:g}, got {value!r}")
    return number if number >= low else 0.0


def check_not_negative(name: str, value: object) -> float:
    """`value` as a float if it is a finite real number of at least 0, else an error naming it."""
    number = _real(name, value)
    if not 0.0 <= number < math.inf:
        raise ValueError(f"{name} must be finite and at least 0, got {value!r}")
    return number


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def by_name(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Give a function whose options go by name an error, for others, that says which they are."""
    code = function.__code__
    places = code.co_varnames[: code.co_argcount]
    options = tuple(function.__kwdefaults__ or ())
    known = {*places, *options}
    method = places[0] == "self"

    @wraps(function)
    def checked(*args: Arguments.args, **named: Arguments.kwargs) -> Result:
        if len(args) > len(places):
            called = type(args[0]).__name__ if method else function.__name__
            before = places[1:] if method else places
            raise TypeError(
                f"{called} takes its options by name ({', '.join(options)})"
                + (f" behind {', '.join(before)}" if before else "")
                + f"; got {', '.join(map(shown, args[len(places) :]))} by position"
            )
        for name in named:
            if name not in known:
                called = type(args[0]).__name__ if method else function.__name__
                raise TypeError(
                    f"{called} got an unexpected keyword argument {name!r}; its options are "
                    + ", ".join(options)
                )
        return function(*args, **named)

    return checked


def tensors_only(forward: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Give a module's forward an error, for options, that says where they belong."""
    code = forward.__code__
    places = code.co_varnames[1 : code.co_argcount]

    @wraps(forward)
    def checked(*args: Arguments.args, **named: Arguments.kwargs) -> Result:
        others = [shown(value) for value in args[1 + len(places) :]]
        others += [f"{name}={value!r}" for name, value in named.items() if name not in places]
        if others:
            raise TypeError(
                f"{type(args[0]).__name__} is called with {', '.join(places)}, and takes its "
                f"options where it is made; got {', '.join(others)}"
            )
        return forward(*args, **named)

    return checked


def shown(value: object) -> str:
    """`value` for an error; of a tensor or an array the shape: its numbers may be many."""
    shape = getattr(value, "shape", None)
    if shape is not None and not isinstance(value, Real):
        kind = type(value).__name__
        return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} of shape {tuple(shape)}"
    return f"{value!r} ({type(value).__name__})"
