"""The Triton kernels as a backend: for NVIDIA and AMD GPUs, compiled at their first use.

On the host:
    operators.py    the operators and their registration
    launch.py       from their tensors to launches, by jit.py
    call.py         checks of the tensors; kernel_spec.py, the loss as numbers and constants
    layout.py       strides and alignment
    tiling.py       the tile of a program; device.py, the GPU; autotune.py, opt-in autotuning

Kernels:
    ssim_losses.py, ssim_gradients.py  SSIM and the terms beside it; moments.py,
                    masked_moments.py, windows.py, borders.py and h_planes.py are parts of them,
                    centering.py a kernel before them
    gms.py          gradient magnitude similarity
    pixels.py       pointwise losses alone
    sums.py         from tiles to images
    scale.py        backward's multiplication of a gradient
    formulas.py     the scalar mathematics, the same as csrc/formulas.h
    memory.py       scalars, addresses, loads

Importing this package does not import Triton; the first call does.
"""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
from functools import cache

import torch
from torch import Tensor

from lamp_kernels.backends.base import KernelBackend, unsupported_window
from lamp_kernels.backends.triton import autotune, operators
from lamp_kernels.backends.triton.interpreter import INTERPRETED
from lamp_kernels.spec import LossSpec

OLDEST_CAPABILITY = (7, 5)
# The largest windows under a mask in float64, for SSIM alone and beside other terms. The sums of
# larger ones exceed the registers: window 13 would spill 364 bytes on sm_90.
MASKED_FLOAT64_WINDOW, MASKED_FLOAT64_WINDOW_OF_TERMS = 11, 9


class TritonBackend(KernelBackend):
    """Supports CUDA and HIP tensors; CPU tensors if TRITON_INTERPRET is set."""

    name = "triton"

    def __init__(self) -> None:
        self._unavailable_reason = _find_unavailable_reason()
        if self._unavailable_reason is None:
            operators.define()
            self.register(operators.LIBRARY, scale=True)

    def unavailable_reason(self) -> str | None:
        """See `Backend.unavailable_reason`."""
        return self._unavailable_reason

    def unsupported_reason(self, spec: LossSpec, input: Tensor) -> str | None:
        """See `Backend.unsupported_reason`."""
        return (
            _unsupported_device(input.device)
            or self.unsupported_feature(spec, input.device.type)
            or _unsupported_dtype(spec, input.dtype)
        )

    def unsupported_feature(self, spec: LossSpec, device_type: str) -> str | None:
        """See `Backend.unsupported_feature`."""
        if spec.has_cosine:
            return "it does not compute the cosine loss"
        return unsupported_window(spec)

    def auto_skip_reason(self, spec: LossSpec, input: Tensor) -> str | None:
        """The interpreter is meant for tests."""
        return "its interpreter is used only on request" if INTERPRETED else None

    def configuration_error(self, input: Tensor) -> str | None:
        """Nothing to configure."""
        return None

    def details(self) -> list[str]:
        """The release of Triton, and how the kernels run."""
        how = "interpreted (TRITON_INTERPRET)" if INTERPRETED else "compiled at first use"
        return [
            f"Triton {release()}, {how}",
            *([f"{autotune.ENVIRONMENT_VARIABLE}={autotune.VALUE}"] if autotune.VALUE else []),
        ]


def release() -> str:
    """Triton's version, without importing it."""
    for name in ("triton", "pytorch-triton-rocm", "triton-rocm"):  # packages that bring it
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return "of unknown version"


def _pair(version: str) -> tuple[int, ...]:
    """The major and the minor version."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _find_unavailable_reason() -> str | None:
    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None:  # just a folder of that name
        return "Triton is not installed: pip install triton"
    return _interpreter_fails() if INTERPRETED else None


def _interpreter_fails() -> str | None:
    """The interpreter up to 3.6 calls int() on arrays (1,), an error in NumPy 2.4 and later."""
    numpy = importlib.util.find_spec("numpy")
    if numpy is None:
        return "Triton's interpreter needs NumPy: pip install numpy"
    found = importlib.metadata.version("numpy")
    if (3,) <= _pair(release()) < (3, 7) and _pair(found) >= (2, 4):
        return f"the interpreter of Triton {release()} needs NumPy older than 2.4, got {found}"
    return None


def _unsupported_device(device: torch.device) -> str | None:
    """Why the kernels do not run on this device, or None if they do."""
    if device.type == "cpu":
        if INTERPRETED:
            return None
        return (
            "it runs on GPUs; on the CPU only in Triton's interpreter, with TRITON_INTERPRET=1 in "
            "the environment before Python starts"
        )
    if device.type != "cuda":
        return f"it supports CUDA and HIP tensors, got one on {device}"
    return _without_compiler() or _too_old(device.index)


# What torch.compiler.assume_constant_result sets; that function imports the whole compiler.
_unsupported_device._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _unsupported_dtype(spec: LossSpec, dtype: torch.dtype) -> str | None:
    """Why the kernels do not compute this loss of such images, or None if they do."""
    largest = MASKED_FLOAT64_WINDOW if len(spec.terms) == 1 else MASKED_FLOAT64_WINDOW_OF_TERMS
    in_float64 = dtype is torch.float64 or spec.scale_weights  # as all scales but the first are
    if not (spec.masked and spec.has_ssim and in_float64):
        return None
    if spec.window_size <= largest:
        return None
    return (
        f"in float64 it supports a mask with windows of up to {largest} pixels "
        f"({MASKED_FLOAT64_WINDOW_OF_TERMS} beside other terms), got window_size={spec.window_size}"
    )


@cache
def _without_compiler() -> str | None:
    """Why Triton cannot compile its interface to the driver, as it does at the first launch.

    Searches for compilers the way triton/runtime/build.py does. A compiled interface in Triton's
    cache is not enough: older releases compile more than that.
    """
    loaded = sys.modules.get("triton")
    if INTERPRETED or (loaded is not None and loaded.knobs.build.impl is not None):
        return None
    named = os.environ.get("CC")
    if any(map(shutil.which, ("gcc", "clang") if named is None else (named,))):
        return None
    found = "found neither gcc nor clang"
    if named is not None:
        found = f"CC={named} is not an executable compiler"
    return f"Triton needs a C compiler at its first launch: {found}"


def _too_old(index: int) -> str | None:
    if torch.version.hip or INTERPRETED:
        return None
    capability = torch.cuda.get_device_capability(index)
    if capability >= OLDEST_CAPABILITY:
        return None
    found, least = (".".join(map(str, pair)) for pair in (capability, OLDEST_CAPABILITY))
    return f"cuda:{index} has compute capability {found}, Triton requires {least}"
