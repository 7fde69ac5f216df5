"""The Triton kernels as a backend: for NVIDIA and AMD GPUs, compiled at their first use.

    operators.py  the operators: schemas, registration
    launch.py     from their tensors to launches
    tiling.py     which tile a program takes; autotune.py, the quickest, for who asks
    ssim.py       SSIM and the terms beside it; windows.py, levels.py are parts of it
    pixels.py     pointwise losses alone
    sums.py       from tiles to images
    scale.py      backward's multiplication of a gradient
    formulas.py   the scalar mathematics, csrc/formulas.h once more

Importing this imports no Triton; the first call does.
"""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from lamp_kernels import calls
from lamp_kernels.levels import SharedFactors
from lamp_kernels.options import LossOptions, Metric, Sums, Terms
from lamp_kernels.triton import operators

WINDOW_SIZES = range(3, 16, 2)
OLDEST_CAPABILITY = (7, 5)
INTERPRETED = operators.INTERPRETED


def release() -> str:
    """Triton's version, without importing it."""
    for name in ("triton", "pytorch-triton-rocm", "triton-rocm"):  # packages that bring it
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return "of unknown version"


def _pair(version: str) -> tuple[int, ...]:
    """Major and minor."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _missing() -> str | None:
    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None:  # a mere folder of that name
        return "Triton is not installed: pip install triton"
    return _interpreter_fails() if INTERPRETED else None


def _interpreter_fails() -> str | None:
    """Triton's interpreter up to 3.6 takes int() of arrays (1,), which NumPy refuses since 2.4."""
    numpy = importlib.util.find_spec("numpy")
    if numpy is None:
        return "Triton's interpreter needs NumPy: pip install numpy"
    found = importlib.metadata.version("numpy")
    if (3,) <= _pair(release()) < (3, 7) and _pair(found) >= (2, 4):
        return f"the interpreter of Triton {release()} needs NumPy older than 2.4, got {found}"
    return None


missing = _missing()  # why there are no Triton kernels; else None
if missing is None:
    _operators = operators.register()


def refusal(device: torch.device) -> str | None:
    """Why the kernels do not run on this device, though they are there; None where they do."""
    if device.type == "cpu":
        if INTERPRETED:
            return None
        return (
            "its kernels run on GPUs; on the CPU only in Triton's interpreter, with "
            "TRITON_INTERPRET=1 in the environment before Python starts"
        )
    if device.type != "cuda":
        return f"its kernels take CUDA and HIP tensors, got one on {device}"
    return _without_compiler() or _too_old(device.index)


@cache
def _without_compiler() -> str | None:
    """Why Triton cannot compile its way to the driver, which it does at the first launch.

    Compilers as triton/runtime/build.py finds them. That Triton's cache may have it from before is
    not looked at: older releases compile more than that.
    """
    loaded = sys.modules.get("triton")
    if INTERPRETED or (loaded is not None and loaded.knobs.build.impl is not None):
        return None
    named = os.environ.get("CC")
    if any(map(shutil.which, ("gcc", "clang") if named is None else (named,))):
        return None
    found = "there is neither gcc nor clang" if named is None else f"CC={named} is none"
    return f"Triton needs a C compiler at its first launch, and {found}"


def _too_old(index: int) -> str | None:
    if torch.version.hip or INTERPRETED:
        return None
    capability = torch.cuda.get_device_capability(index)
    if capability >= OLDEST_CAPABILITY:
        return None
    least = ".".join(map(str, OLDEST_CAPABILITY))
    return f"cuda:{index} has compute capability {capability[0]}.{capability[1]}, needed is {least}"


# What torch.compiler.assume_constant_result sets; that function imports the whole compiler.
refusal._dynamo_marked_constant = True  # type: ignore[attr-defined]


def image_losses(
    metrics: Sequence[Metric],
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    factors: Tensor | SharedFactors,
    options: LossOptions,
    *,
    amplified: bool,
    sums: Sums,
) -> Tensor:
    """As `reference.image_losses`."""
    return calls.image_losses(
        _operators,
        metrics,
        input,
        target,
        weight,
        factors,
        options,
        amplified=amplified,
        sums=sums,
    )


def loss_map(terms: Terms, input: Tensor, target: Tensor, options: LossOptions) -> Tensor:
    """As `reference.loss_map`."""
    return calls.loss_map(_operators, terms, input, target, options)
