"""Selection of the implementation: "native" (C++ and CUDA C++), "triton", or "reference".

An explicit request, by argument or by the environment variable LAMP_KERNELS_BACKEND (read at import
time), is either met or raises a ValueError with the reason. The automatic choice takes the first
backend that supports the loss and the tensors: native, then Triton on NVIDIA or AMD GPUs, then the
reference. Triton's interpreter is meant for tests and has to be requested.

Under `torch.onnx.export`, with either exporter, the automatic choice takes the reference, because
ONNX has equivalents of its operators but not of the kernels.
"""

import os
import warnings

import torch
from torch import Tensor

from lamp_kernels.backends.base import Backend
from lamp_kernels.backends.installation import describe, devices
from lamp_kernels.backends.native import NativeBackend
from lamp_kernels.backends.reference import ReferenceBackend
from lamp_kernels.backends.triton import TritonBackend
from lamp_kernels.checks import check_choice
from lamp_kernels.spec import DEFAULTS, LossSpec, Term, check_window_size
from lamp_kernels.tensors import being_traced, in_torchscript

__all__ = [
    "Backend",
    "available",
    "choose",
    "devices",
    "report",
    "resolve",
    "skipped_backends",
    "unsupported_reason",
]

# In the order of the automatic choice.
BACKENDS: dict[str, Backend] = {
    backend.name: backend for backend in (NativeBackend(), TritonBackend(), ReferenceBackend())
}
NAMES = tuple(BACKENDS)
ENVIRONMENT_VARIABLE = "LAMP_KERNELS_BACKEND"

_from_environment = os.environ.get(ENVIRONMENT_VARIABLE) or None
_warned_of_cuda = False


def available() -> tuple[str, ...]:
    """The names of the backends available in this installation, fastest first."""
    return tuple(name for name in NAMES if BACKENDS[name].unavailable_reason() is None)


def resolve(
    requested: str | None, input: Tensor, *, window_size: int | None = DEFAULTS.window_size
) -> str:
    """The name of the backend that will compute a loss of `input`.

    Args:
        requested: a name, or None for LAMP_KERNELS_BACKEND or, if that is not set, the automatic
            choice.
        input: a tensor on the device in question, with the dtype in question; its values are not
            read.
        window_size: the SSIM window in pixels; None for a loss without SSIM.

    Returns:
        "native", "triton" or "reference". Under `torch.onnx.export` the automatic choice is
        "reference".

    Raises:
        ValueError: the requested backend does not exist, is not available, or does not support
            this input; or `input` is on the CPU, and LAMP_KERNELS_CPU_ISA names an instruction set
            that this machine lacks.
        TypeError: `requested` is neither a string nor None, or `input` is not a tensor.
    """
    return choose(requested, _spec_of(window_size), input).name


def unsupported_reason(
    name: str, input: Tensor, *, window_size: int | None = DEFAULTS.window_size
) -> str | None:
    """Why the backend of this name cannot compute a loss of `input`, or None if it can.

    Arguments as in `resolve`; `name` must be one of the backends' names.
    """
    check_choice("name", name, NAMES)
    backend, spec = BACKENDS[name], _spec_of(window_size)
    return backend.unavailable_reason() or _unsupported_reason(backend, spec, input)


def skipped_backends(
    input: Tensor, *, window_size: int | None = DEFAULTS.window_size
) -> dict[str, str]:
    """The backends before the automatic choice for `input`, and why each is skipped.

    Arguments and errors as in `resolve`, which would return the chosen backend.
    """
    spec = _spec_of(window_size)
    chosen = choose(None, spec, input).name
    faster = NAMES[: NAMES.index(chosen)]
    if _from_environment is not None:
        return dict.fromkeys(faster, f"{ENVIRONMENT_VARIABLE}={chosen}")
    return {name: _auto_skip_reason(BACKENDS[name], spec, input) or "" for name in faster}


def _spec_of(window_size: int | None) -> LossSpec:
    if window_size is None:
        return LossSpec(terms=(Term("mse"),))
    return LossSpec(window_size=check_window_size(window_size))


def choose(requested: str | None, spec: LossSpec, input: Tensor) -> Backend:
    """The backend that will compute this loss of `input`; arguments and errors as in `resolve`."""
    if not isinstance(input, Tensor):
        raise TypeError(f"input must be a torch.Tensor, got {type(input).__name__}")
    source = "backend"
    name = check_request(requested)
    if name is None:
        source = ENVIRONMENT_VARIABLE
        name = check_request(_from_environment, source)
    if name is not None:
        chosen = BACKENDS[name]
        reason = _unsupported_reason(chosen, spec, input)
        if reason is not None:
            raise ValueError(f"{source}={name!r} does not support this input: {reason}")
    else:
        chosen = next(
            backend
            for backend in BACKENDS.values()
            if _auto_skip_reason(backend, spec, input) is None
        )
        if chosen.name == "reference":
            _warn_of_slow_cuda(spec, input)
    error = chosen.configuration_error(input)
    if error is not None:
        raise ValueError(error)
    return chosen


def _auto_skip_reason(backend: Backend, spec: LossSpec, input: Tensor) -> str | None:
    """Why the automatic choice skips the backend, or None if it does not."""
    return (
        backend.unavailable_reason()
        or backend.auto_skip_reason(spec, input)
        or _unsupported_reason(backend, spec, input)
    )


def _unsupported_reason(backend: Backend, spec: LossSpec, input: Tensor) -> str | None:
    """Why the available backend cannot compute this here, or None if it can."""
    if backend.name != "reference" and _exporting_to_onnx():
        return "its operators do not exist in ONNX; export with backend='reference'"
    return backend.unsupported_reason(spec, input)


def _exporting_to_onnx() -> bool:
    """Whether `torch.onnx.export` is running. Every call asks this, so cheap checks come first."""
    traced = in_torchscript() or torch.compiler.is_exporting()
    return traced and torch.onnx.is_in_onnx_export()


# Dynamo, the exporter's last fallback, would evaluate is_in_onnx_export to false.
_exporting_to_onnx._dynamo_marked_constant = True  # type: ignore[attr-defined]


def check_request(name: str | None, source: str = "backend") -> str | None:
    """Return `name` if it is None or an available backend, else raise an error naming `source`."""
    if name is None:
        return None
    check_choice(source, name, NAMES)
    reason = BACKENDS[name].unavailable_reason()
    if reason is not None:
        raise ValueError(
            f"{source}={name!r} is not available: {reason}. Available: {', '.join(available())}"
        )
    return name


def _warn_of_slow_cuda(spec: LossSpec, input: Tensor) -> None:
    """Warn once that plain PyTorch computes the loss of a CUDA tensor, but not while tracing."""
    global _warned_of_cuda
    if input.is_cuda and not being_traced() and not _warned_of_cuda:
        _warned_of_cuda = True
        reasons = {
            name: _auto_skip_reason(backend, spec, input) for name, backend in BACKENDS.items()
        }
        warnings.warn(
            "lamp_kernels falls back to its plain PyTorch reference for this CUDA tensor: "
            + "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason)
            + ". Pass backend='reference' to silence this warning.",
            stacklevel=2,
        )


def report() -> str:
    """The versions, the devices, and each backend or why it is not available, as text."""
    lines = describe(BACKENDS)
    if _from_environment is not None:
        lines.append(f"  {ENVIRONMENT_VARIABLE}={_from_environment}")
    return "\n".join(lines)
