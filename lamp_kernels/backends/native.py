"""The native kernels (C++, CUDA C++) as a backend.

There are two libraries: `_C` has the operators and their CPU kernels, `_C_cuda` adds CUDA kernels
to the same operators. The second may be missing; it loads on machines without CUDA too.
"""

from pathlib import Path

import torch
from torch import Tensor

from lamp_kernels import ops
from lamp_kernels.backends.base import KernelBackend, unsupported_window
from lamp_kernels.spec import LossSpec

_PACKAGE = Path(__file__).parents[1]
_LIBRARY = _PACKAGE / "_C.abi3.so"
_CUDA_LIBRARY = _PACKAGE / "_C_cuda.abi3.so"
_HOW_TO_GET_CUDA = (
    "install a wheel with a CUDA release in its version (+cu130), or build with nvcc installed and "
    "LAMP_KERNELS_CUDA=1"
)


class NativeBackend(KernelBackend):
    """Serves CPU tensors, and CUDA tensors where the second library is there."""

    name = "native"

    def __init__(self) -> None:
        self.missing = _load(_LIBRARY, "_without_native.txt")
        if self.missing is None and torch.ops.lamp_kernels.schemas() != _schemas():
            self.missing = (
                f"{_LIBRARY.name} and the Python sources come from different versions: rebuild it"
            )
        self.cuda_missing = _load_cuda(self.missing)
        if self.missing is None:
            self.register("lamp_kernels", scale=self.cuda_missing is None)
        self.cpu_error = self._ask_cpu()

    def _ask_cpu(self) -> str | None:
        """The error of every call with CPU tensors if LAMP_KERNELS_CPU_ISA is wrong, else None."""
        if self.missing is None:
            try:
                instruction_set()
            except RuntimeError as error:
                return str(error)
        return None

    def unavailable_reason(self) -> str | None:
        """See `Backend.unavailable_reason`."""
        return self.missing

    def unsupported_reason(self, spec: LossSpec, input: Tensor) -> str | None:
        """See `Backend.unsupported_reason`."""
        if input.device.type == "cuda":
            reason = self.cuda_missing or cuda_refusal(input.device.index)
            if reason is not None:
                return f"no CUDA kernels for a tensor on {input.device}: {reason}"
        elif input.device.type != "cpu":
            return f"it supports CPU and CUDA tensors, got one on {input.device}"
        return unsupported_window(spec)

    def auto_skip_reason(self, spec: LossSpec, input: Tensor) -> str | None:
        """Selected automatically wherever it serves."""
        return None

    def configuration_error(self, input: Tensor) -> str | None:
        """LAMP_KERNELS_CPU_ISA names an instruction set that this machine lacks."""
        return self.cpu_error if input.device.type == "cpu" else None

    def details(self) -> list[str]:
        """The CPU's instruction set, and the CUDA kernels or why there are none."""
        return [
            f"CPU instruction set: {self.cpu_error or instruction_set()}",
            f"CUDA kernels: {self.cuda_missing or _registered()}",
        ]


def _load(library: Path, note: str) -> str | None:
    """Load a library; None, or why there is none. setup.py leaves the reason in a note."""
    if not library.exists():
        left = _PACKAGE / note
        reason = left.read_text(encoding="utf-8").strip() if left.exists() else "it was not built"
        return f"{reason}: no {library.name} in the package"
    try:
        torch.ops.load_library(library)
    except OSError as error:
        return f"{library.name} does not load: {error}"
    return None


def _load_cuda(missing: str | None) -> str | None:
    """Load the CUDA kernels; None, or why there are none and how to get them."""
    reason = missing or _load(_CUDA_LIBRARY, "_without_cuda.txt")
    if reason is not None:
        return f"{reason}; {_HOW_TO_GET_CUDA}"
    operators = torch.ops.lamp_kernels
    built_for = operators.cuda_schemas() if hasattr(operators, "cuda_schemas") else None
    if built_for != operators.schemas():
        names = f"{_LIBRARY.name} and {_CUDA_LIBRARY.name}"
        return f"{names} come from different builds; rebuild both"
    return None


def _schemas() -> str:
    """The schemas that these sources call the library by."""
    return f"image_losses{ops.IMAGE_LOSSES_SCHEMA}loss_map{ops.LOSS_MAP_SCHEMA}"


def instruction_set() -> str:
    """The instruction set that the CPU kernels use on this machine: avx512, avx2 or baseline.

    Raises:
        RuntimeError: LAMP_KERNELS_CPU_ISA names none that this machine has.
    """
    return str(torch.ops.lamp_kernels.cpu_isa())


def cuda_targets() -> tuple[str, ...]:
    """The targets the CUDA kernels are compiled for: sm_75 and so on, compute_120 for PTX."""
    return tuple(str(torch.ops.lamp_kernels.cuda_targets()).split(","))


def cuda_release() -> str:
    """The CUDA release that the CUDA kernels are built with, such as 13.0."""
    return str(torch.ops.lamp_kernels.cuda_release())


def cuda_refusal(device: int) -> str | None:
    """Why the CUDA kernels do not run on this CUDA device, or None if they do."""
    if device not in _cuda_refusals:
        _cuda_refusals[device] = _ask_cuda(device)
    return _cuda_refusals[device]


_cuda_refusals: dict[int, str | None] = {}
# What torch.compiler.assume_constant_result sets; that function imports the whole compiler.
cuda_refusal._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _ask_cuda(device: int) -> str | None:
    error = str(torch.ops.lamp_kernels.cuda_error())
    if error:
        return f"CUDA {cuda_release()} runtime error: {error}"
    capability = torch.cuda.get_device_capability(device)
    targets = cuda_targets()
    if any(_runs_on(target, capability) for target in targets):
        return None
    return (
        f"the CUDA kernels are compiled for {', '.join(targets)}, but cuda:{device} is "
        f"sm_{capability[0]}{capability[1]}: build them on this machine with LAMP_KERNELS_CUDA=1"
    )


def _runs_on(target: str, capability: tuple[int, int]) -> bool:
    """Machine code serves the later devices of its generation, PTX (compute_) all later ones."""
    kind, _, number = target.partition("_")
    if not number.isdecimal():  # sm_90a, for that device alone
        return number.rstrip("abcdefgh") == f"{capability[0]}{capability[1]}"
    compiled = divmod(int(number), 10)
    return compiled <= capability and (kind == "compute" or compiled[0] == capability[0])


def _registered() -> str:
    """The targets of the CUDA kernels, and which devices of this machine they do not serve."""
    targets = f"registered for {', '.join(cuda_targets())} (CUDA {cuda_release()})"
    count = torch.cuda.device_count()
    reasons = {index: cuda_refusal(index) for index in range(count)}
    refused = [f"cuda:{index}: {reason}" for index, reason in reasons.items() if reason]
    return "; ".join([targets, *(refused if count else ["no CUDA device"])])
