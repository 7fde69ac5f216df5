"""How the kernels are decorated and launched."""

import inspect
from collections.abc import Callable, Hashable
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from lamp_kernels.backends.triton.interpreter import INTERPRETED


def kernel(function: Callable[..., None]) -> Any:
    """A kernel that is compiled once for each set of constants and dtypes.

    By default Triton compiles again when an integer is 1 or divisible by 16, or when a pointer is
    aligned, so images of new sizes would wait for the compiler. Loads at shifted columns gain from
    neither; pixel_losses, where one access may cover several pixels, has a constant for alignment.
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

    At every launch Triton binds and specializes each argument to find the compiled kernel. Ours
    specialize on no argument, so the dtypes and constants identify it.
    dtypes: whatever determines the pointers' types. constants: the last parameters, in their order.
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
