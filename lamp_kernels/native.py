"""The native kernels (C++, CUDA C++) as a backend: from its interface to the operators.

Two libraries: `_C` has the operators and their CPU kernels, `_C_cuda` only adds CUDA kernels to
them. The second may be missing, and loads on machines without CUDA too.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lamp_kernels import calls, ops
from lamp_kernels.levels import SharedFactors
from lamp_kernels.options import LossOptions, Metric, Sums, Terms

WINDOW_SIZES = range(3, 16, 2)  # that the kernels are compiled for

_PACKAGE = Path(__file__).parent
_LIBRARY = _PACKAGE / "_C.abi3.so"
_CUDA_LIBRARY = _PACKAGE / "_C_cuda.abi3.so"
_HOW_TO_GET_CUDA = (
    "install a wheel with a CUDA release in its version (+cu130), or build where nvcc is, with "
    "LAMP_KERNELS_CUDA=1"
)


def _load(library: Path, note: str) -> str | None:
    """Load a library, once; None, or why there is none. setup.py leaves the reason in a note."""
    if not library.exists():
        left = _PACKAGE / note
        reason = left.read_text(encoding="utf-8").strip() if left.exists() else "it was not built"
        return f"{reason}: no {library.name} in the package"
    try:
        torch.ops.load_library(library)
    except OSError as error:
        return f"{library.name} does not load: {error}"
    return None


def _load_cuda() -> str | None:
    reason = missing or _load(_CUDA_LIBRARY, "_without_cuda.txt")
    if reason is not None:
        return f"{reason}; {_HOW_TO_GET_CUDA}"
    operators = torch.ops.lamp_kernels
    built_for = operators.cuda_schemas() if hasattr(operators, "cuda_schemas") else None
    if built_for != operators.schemas():
        return f"{_CUDA_LIBRARY.name} is of another build than {_LIBRARY.name}: build both again"
    return None


missing = _load(_LIBRARY, "_without_native.txt")
cuda_missing = _load_cuda()  # why there are no CUDA kernels, and how to get them; else None
if missing is None:
    ops.register_once("lamp_kernels")
    _scale = "scale_" if cuda_missing is None else None
    _operators = ops.register("lamp_kernels", "image_losses", "loss_map", _scale)


def instruction_set() -> str:
    """The instruction set that the CPU kernels use on this machine: v4, v3 or baseline.

    Raises:
        RuntimeError: LAMP_KERNELS_CPU_ISA names none that this machine has.
    """
    return str(torch.ops.lamp_kernels.cpu_isa())


def _refusal() -> str | None:
    if missing is None:
        try:
            instruction_set()
        except RuntimeError as error:
            return str(error)
    return None


# The error of every call with CPU tensors, where LAMP_KERNELS_CPU_ISA is wrong; else None.
refusal = _refusal()


def cuda_targets() -> tuple[str, ...]:
    """What the CUDA kernels are compiled for: sm_75 and so on, compute_120 for what comes after."""
    return tuple(str(torch.ops.lamp_kernels.cuda_targets()).split(","))


def cuda_release() -> str:
    """The CUDA release that the CUDA kernels are of, as 13.0."""
    return str(torch.ops.lamp_kernels.cuda_release())


def cuda_refusal(device: int) -> str | None:
    """Why the CUDA kernels do not run on this CUDA device, or None where they do."""
    if device not in _cuda_refusals:
        _cuda_refusals[device] = _ask_cuda(device)
    return _cuda_refusals[device]


_cuda_refusals: dict[int, str | None] = {}
# What torch.compiler.assume_constant_result sets; that function imports the whole compiler.
cuda_refusal._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _ask_cuda(device: int) -> str | None:
    error = str(torch.ops.lamp_kernels.cuda_error())
    if error:
        return f"CUDA {cuda_release()}, which its CUDA kernels are of, says: {error}"
    capability = torch.cuda.get_device_capability(device)
    targets = cuda_targets()
    if any(_runs_on(target, capability) for target in targets):
        return None
    return (
        f"its CUDA kernels are compiled for {', '.join(targets)}, and cuda:{device} is "
        f"sm_{capability[0]}{capability[1]}: build them here, with LAMP_KERNELS_CUDA=1"
    )


def _runs_on(target: str, capability: tuple[int, int]) -> bool:
    """Machine code serves the later devices of its generation, PTX (compute_) all later ones."""
    kind, _, number = target.partition("_")
    if not number.isdecimal():  # sm_90a, for that device alone
        return number.rstrip("abcdefgh") == f"{capability[0]}{capability[1]}"
    compiled = divmod(int(number), 10)
    return compiled <= capability and (kind == "compute" or compiled[0] == capability[0])


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
