"""How the kernels are decorated and launched."""

import inspect
from collections.abc import Callable, Hashable
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from lamp_kernels.backends.triton.interpreter import INTERPRETED


def kernel(function: Callable[..., None]) -> Any:
    """A kernel to launch, compiled once for its constants and dtypes.

    Triton compiles anew where an integer becomes 1 or divisible by 16, and where a pointer becomes
    aligned, and images of every size would wait for the compiler. Loads at shifted columns gain by
    neither; pixel_losses, whose accesses may take several pixels, has a constant of its own for it.
    """
    parameters = inspect.signature(function).parameters.values()
    values = [p.name for p in parameters if p.annotation is not tl.constexpr]
    return triton.jit(function, do_not_specialize=values)


_compiled: dict[Hashable, Any] = {}


def launch(
    kernel: Any,
    programs: int,
    dtypes: tuple[Hashable, ...],
    arguments: tuple[Any, ...],
    constants: dict[str, Any],
    warps: int,
) -> None:
    """Launch on the current device and stream; the first argument is a tensor there.

    Triton binds and specialises every argument of every launch, to find which of the compiled
    kernels it takes. Ours specialise on no argument, so the dtypes and constants tell.
    dtypes: whatever decides on the pointers' types. constants: in the order of the parameters,
    which they end.
    """
    if INTERPRETED:
        kernel[(programs,)](*arguments, **constants, num_warps=warps)
        return
    first: Tensor = arguments[0]
    key = (id(kernel), first.get_device(), dtypes, warps, *constants.values())
    found = _compiled.get(key)
    if found is None:
        _compiled[key] = kernel[(programs,)](*arguments, **constants, num_warps=warps)
    else:
        found[(programs, 1, 1)](*arguments, *constants.values())
