"""How the kernels are decorated."""

import inspect
from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl


def kernel(function: Callable[..., None]) -> Any:
    """A kernel to launch, compiled once for its constants and dtypes.

    Triton compiles anew where an integer becomes 1 or divisible by 16, and where a pointer becomes
    aligned, and images of every size would wait for the compiler. Loads at shifted columns gain by
    neither; pixel_losses, whose accesses may take several pixels, has a constant of its own for it.
    """
    parameters = inspect.signature(function).parameters.values()
    values = [p.name for p in parameters if p.annotation is not tl.constexpr]
    return triton.jit(function, do_not_specialize=values)
