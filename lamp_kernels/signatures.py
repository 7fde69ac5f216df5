"""Clear errors for calls that pass options in the wrong place or under an unknown name."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from lamp_kernels.checks import shown

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def by_name(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Make calls that pass options by position, or unknown ones, raise an error listing all."""
    code = function.__code__
    positional = code.co_varnames[: code.co_argcount]
    options = tuple(function.__kwdefaults__ or ())
    known = {*positional, *options}
    method = positional[0] == "self"

    @wraps(function)
    def checked(*args: Arguments.args, **named: Arguments.kwargs) -> Result:
        if len(args) > len(positional):
            called = type(args[0]).__name__ if method else function.__name__
            before = positional[1:] if method else positional
            raise TypeError(
                f"{called} takes its options by name ({', '.join(options)})"
                + (f" after {', '.join(before)}" if before else "")
                + f"; got {', '.join(map(shown, args[len(positional) :]))} by position"
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
    """Make calls that pass options to a module's forward raise and refer to the constructor."""
    code = forward.__code__
    positional = code.co_varnames[1 : code.co_argcount]

    @wraps(forward)
    def checked(*args: Arguments.args, **named: Arguments.kwargs) -> Result:
        others = [shown(value) for value in args[1 + len(positional) :]]
        others += [f"{name}={value!r}" for name, value in named.items() if name not in positional]
        if others:
            raise TypeError(
                f"{type(args[0]).__name__} is called with {', '.join(positional)}; pass options to "
                f"its constructor. Got {', '.join(others)}"
            )
        return forward(*args, **named)

    return checked
