"""Clear errors for calls that pass options in the wrong place or under an unknown name."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from lamp_kernels.checks import shown

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def by_name(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Make a function with keyword-only options list them if a call passes them wrongly."""
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
                + (f" after {', '.join(before)}" if before else "")
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
    """Make a module's forward say where options belong if a call passes them."""
    code = forward.__code__
    places = code.co_varnames[1 : code.co_argcount]

    @wraps(forward)
    def checked(*args: Arguments.args, **named: Arguments.kwargs) -> Result:
        others = [shown(value) for value in args[1 + len(places) :]]
        others += [f"{name}={value!r}" for name, value in named.items() if name not in places]
        if others:
            raise TypeError(
                f"{type(args[0]).__name__} is called with {', '.join(places)}; pass options to its "
                f"constructor. Got {', '.join(others)}"
            )
        return forward(*args, **named)

    return checked
