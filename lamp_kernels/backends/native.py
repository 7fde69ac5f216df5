"""The native kernels (C++, CUDA C++) as a backend.

There are two libraries: `_C` has the operators and their CPU kernels, and `_C_cuda` adds CUDA
kernels to the same operators. The second is optional; it also loads on machines without CUDA.
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
    """Supports CPU tensors, and CUDA tensors if the second library loads."""

    name = "native"

    def __init__(self) -> None:
        self.cpu_unavailable_reason = _load(_LIBRARY, "_without_native.txt")
        if self.cpu_unavailable_reason is None and torch.ops.lamp_kernels.schemas() != _schemas():
            self.cpu_unavailable_reason = (
                f"{_LIBRARY.name} and the Python sources come from different versions; rebuild it"
            )
        self.cuda_unavailable_reason = _load_cuda(self.cpu_unavailable_reason)
        if self.cpu_unavailable_reason is None:
            self.register(
                "lamp_kernels",
                scale=self.cuda_unavailable_reason is None,
                volumes="lamp_kernels_volumes",
            )
        self.cpu_error = self._find_cpu_error()

    def _find_cpu_error(self) -> str | None:
        """The error of all calls with CPU tensors if LAMP_KERNELS_CPU_ISA is invalid, else None."""
        if self.cpu_unavailable_reason is None:
            try:
                instruction_set()
            except RuntimeError as error:
                return str(error)
        return None

    def unavailable_reason(self) -> str | None:
        """See `Backend.unavailable_reason`."""
        return self.cpu_unavailable_reason

    def unsupported_reason(self, spec: LossSpec, input: Tensor) -> str | None:
        """See `Backend.unsupported_reason`."""
        if input.device.type == "cuda":
            reason = self.cuda_unavailable_reason or cuda_unsupported_reason(input.device.index)
            if reason is not None:
                return f"no CUDA kernels for a tensor on {input.device}: {reason}"
        elif input.device.type != "cpu":
            return f"it supports CPU and CUDA tensors, got one on {input.device}"
        return self.unsupported_feature(spec, input.device.type)

    def unsupported_feature(self, spec: LossSpec, device_type: str) -> str | None:
        """See `Backend.unsupported_feature`."""
        if device_type == "cuda":
            if spec.masked:
                return "its CUDA kernels do not support a mask"
            if spec.has_gms:
                return "its CUDA kernels do not compute GMS"
            if spec.has_cosine:
                return "its CUDA kernels do not compute the cosine loss"
        if spec.masked and spec.of_volumes:
            return "it does not support a mask of volumes"
        return unsupported_window(spec, volumes=device_type == "cpu")

    def auto_skip_reason(self, spec: LossSpec, input: Tensor) -> str | None:
        """Never skipped where it is supported."""
        return None

    def configuration_error(self, input: Tensor) -> str | None:
        """The error for CPU tensors if LAMP_KERNELS_CPU_ISA is invalid on this machine."""
        return self.cpu_error if input.device.type == "cpu" else None

    def details(self) -> list[str]:
        """The CPU's instruction set, and the CUDA kernels or why they are not available."""
        cpu = [] if self.cpu_error else [f"CPU instruction set: {instruction_set()}"]
        return [*cpu, f"CUDA kernels: {self.cuda_unavailable_reason or _cuda_summary()}"]


def _load(library: Path, note: str) -> str | None:
    """Load a library; return None, or the reason why it is not available.

    note: the file in which setup.py leaves the reason if it did not build the library.
    """
    if not library.exists():
        path = _PACKAGE / note
        reason = path.read_text(encoding="utf-8").strip() if path.exists() else "not built"
        return f"{reason} ({library.name} is not in the package)"
    try:
        torch.ops.load_library(library)
    except OSError as error:
        return f"{library.name} failed to load: {error}"
    return None


def _load_cuda(cpu_unavailable_reason: str | None) -> str | None:
    """Load the CUDA kernels; return None, or why they are not available and how to get them."""
    reason = cpu_unavailable_reason or _load(_CUDA_LIBRARY, "_without_cuda.txt")
    if reason is not None:
        return f"{reason}; {_HOW_TO_GET_CUDA}"
    operators = torch.ops.lamp_kernels
    built_for = operators.cuda_schemas() if hasattr(operators, "cuda_schemas") else None
    if built_for != operators.schemas():
        names = f"{_LIBRARY.name} and {_CUDA_LIBRARY.name}"
        return f"{names} come from different builds; rebuild both"
    return None


def _schemas() -> str:
    """The schemas with which these Python sources call the library."""
    return f"image_losses{ops.IMAGE_LOSSES_SCHEMA}loss_map{ops.LOSS_MAP_SCHEMA}"


def instruction_set() -> str:
    """The instruction set that the CPU kernels use on this machine: avx512, avx2 or baseline.

    Raises:
        RuntimeError: LAMP_KERNELS_CPU_ISA names an instruction set that this machine lacks.
    """
    return str(torch.ops.lamp_kernels.cpu_isa())


def cuda_targets() -> tuple[str, ...]:
    """The targets of the CUDA kernels: sm_75 and so on for machine code, compute_120 for PTX."""
    return tuple(str(torch.ops.lamp_kernels.cuda_targets()).split(","))


def cuda_release() -> str:
    """The CUDA release that the CUDA kernels were built with, such as 13.0."""
    return str(torch.ops.lamp_kernels.cuda_release())


def cuda_unsupported_reason(device: int) -> str | None:
    """Why the CUDA kernels do not run on this CUDA device, or None if they do."""
    if device not in _cuda_unsupported_reasons:
        _cuda_unsupported_reasons[device] = _find_cuda_unsupported_reason(device)
    return _cuda_unsupported_reasons[device]


_cuda_unsupported_reasons: dict[int, str | None] = {}
# torch.compiler.assume_constant_result sets the same attribute, but imports the whole compiler.
cuda_unsupported_reason._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _find_cuda_unsupported_reason(device: int) -> str | None:
    error = str(torch.ops.lamp_kernels.cuda_error())
    if error:
        return f"CUDA {cuda_release()} runtime error: {error}"
    capability = torch.cuda.get_device_capability(device)
    targets = cuda_targets()
    if any(_runs_on(target, capability) for target in targets):
        return None
    return (
        f"the CUDA kernels are compiled for {', '.join(targets)}, but cuda:{device} is "
        f"sm_{capability[0]}{capability[1]}; build them on this machine with LAMP_KERNELS_CUDA=1"
    )


def _runs_on(target: str, capability: tuple[int, int]) -> bool:
    """Whether code for the target runs on a device of this compute capability.

    Machine code (sm_) runs on later devices of its generation, PTX (compute_) on all later devices.
    """
    kind, _, number = target.partition("_")
    if not number.isdecimal():  # sm_90a runs only on sm_90
        return number.rstrip("abcdefgh") == f"{capability[0]}{capability[1]}"
    compiled = divmod(int(number), 10)
    return compiled <= capability and (kind == "compute" or compiled[0] == capability[0])


def _cuda_summary() -> str:
    """The targets of the CUDA kernels, and the devices of this machine that they do not support."""
    targets = f"compiled for {', '.join(cuda_targets())} (CUDA {cuda_release()})"
    count = torch.cuda.device_count()
    reasons = {index: cuda_unsupported_reason(index) for index in range(count)}
    unsupported = [f"cuda:{index}: {reason}" for index, reason in reasons.items() if reason]
    return "; ".join([targets, *(unsupported if count else ["no CUDA device"])])
