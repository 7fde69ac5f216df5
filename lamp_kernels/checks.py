"""Checks of single options: each returns a plain value, or raises an error that names the option.

They read only Python numbers and strings, so they never synchronize with a device and leave no
trace in a compiled graph.
"""

import math
from collections.abc import Collection
from numbers import Real


def shown(value: object) -> str:
    """`value` as text for an error; a tensor or array, which may be large, as its shape."""
    shape = getattr(value, "shape", None)
    if shape is not None and not isinstance(value, Real):
        kind = type(value).__name__
        return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} of shape {tuple(shape)}"
    return f"{value!r} ({type(value).__name__})"


def check_positive(name: str, value: object) -> float:
    """Return `value` as a float if it is a positive finite number, else raise naming it."""
    number = check_real(name, value)
    if not (0.0 < number < math.inf):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return number


def check_within(name: str, value: object, limits: tuple[float, float]) -> float:
    """Return `value` as a float if it is a number within the limits, else raise naming it."""
    number = check_real(name, value)
    low, high = limits
    if not low <= number <= high:
        raise ValueError(f"{name} must be between {low:g} and {high:g}, got {value!r}")
    return number


def check_real(name: str, value: object) -> float:
    """Return `value` as a float if it is a real number, which may be infinite, else raise."""
    if type(value) is float:  # most often, and quicker than what follows
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, got {shown(value)}")
    try:
        return float(value)
    except OverflowError:  # an integer beyond float64
        return -math.inf if value < 0 else math.inf


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Raise an error that lists the choices unless `value` is one of them."""
    if not isinstance(value, str):
        listed = ", ".join(map(repr, choices))
        raise TypeError(f"{name} must be one of the strings {listed}; got {shown(value)}")
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def check_not_negative(name: str, value: object) -> float:
    """Return `value` as a float if it is finite and at least 0, else raise naming it."""
    number = check_real(name, value)
    if not 0.0 <= number < math.inf:
        raise ValueError(f"{name} must be finite and at least 0, got {value!r}")
    return number
