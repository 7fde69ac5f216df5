"""Which implementation computes: "native" (C++ and CUDA C++), "triton", or "reference".

An explicit request, by argument or by the environment variable LAMP_KERNELS_BACKEND (read at
import), is met or is a ValueError with the reason. The automatic choice takes the fastest that
serves the input and may fall through: native, then Triton on the tensors of a GPU, NVIDIA's or
AMD's, then the reference. Triton's interpreter has to be asked for: it is there for tests.

Under `torch.onnx.export`, either exporter, the automatic choice takes the reference: ONNX has its
operators, and none of the others'.
"""

import os
import platform
import warnings
from types import ModuleType

import torch
from torch import Tensor

from lamp_kernels import native, triton
from lamp_kernels._version import __version__
from lamp_kernels.options import check_choice, check_window_size
from lamp_kernels.tensors import being_traced, in_torchscript
from lamp_kernels.triton import autotune

BACKENDS = ("native", "triton", "reference")  # in the order of the automatic choice
ENVIRONMENT_VARIABLE = "LAMP_KERNELS_BACKEND"

_from_environment = os.environ.get(ENVIRONMENT_VARIABLE) or None
_warned_of_cuda = False


def unavailable(name: str) -> str | None:
    """Why this installation lacks the backend, or None where it has it."""
    if name == "reference":
        return None
    return native.missing if name == "native" else triton.missing


def available() -> tuple[str, ...]:
    """The names of the backends of this installation, fastest first."""
    return tuple(name for name in BACKENDS if unavailable(name) is None)


def resolve(requested: str | None, input: Tensor, *, window_size: int | None = 11) -> str:
    """The backend that will compute a loss of `input`.

    Args:
        requested: a name, or None for LAMP_KERNELS_BACKEND and, without it, the automatic choice.
        input: a tensor of the device and dtype in question; its values are not read.
        window_size: the SSIM window, in pixels; None for a loss without SSIM.

    Returns:
        "native", "triton" or "reference"; under `torch.onnx.export` without a name "reference".

    Raises:
        ValueError: an explicit request names no backend, or one that cannot serve this input;
            `input` is on the CPU, and LAMP_KERNELS_CPU_ISA names no instruction set of it.
        TypeError: `requested` is neither a string nor None, `input` no tensor.
    """
    if not isinstance(input, Tensor):
        raise TypeError(f"input must be a torch.Tensor, got {type(input).__name__}")
    if window_size is not None:
        check_window_size(window_size)
    source = "backend"
    name = check_request(requested)
    if name is None:
        source = ENVIRONMENT_VARIABLE
        name = check_request(_from_environment, source)
    if name is not None:
        reason = unserved(name, input, window_size)
        if reason is not None:
            raise ValueError(f"{source}={name!r} cannot serve this input: {reason}")
    else:
        name = next(name for name in BACKENDS if _not_by_itself(name, input, window_size) is None)
        if name == "reference":
            _warn_of_slow_cuda(input, window_size)
    if name == "native" and native.refusal is not None and input.device.type == "cpu":
        raise ValueError(native.refusal)
    return name


def passed_over(input: Tensor, *, window_size: int | None = 11) -> dict[str, str]:
    """Backends faster than the one that computes a loss of `input`, and why each is not taken."""
    name = resolve(None, input, window_size=window_size)
    if _from_environment is not None:
        said = f"{ENVIRONMENT_VARIABLE}={name}"
        return dict.fromkeys(BACKENDS[: BACKENDS.index(name)], said)
    reasons = {other: _not_by_itself(other, input, window_size) for other in BACKENDS}
    return {
        other: reason
        for other, reason in reasons.items()
        if reason is not None and BACKENDS.index(other) < BACKENDS.index(name)
    }


def _not_by_itself(name: str, input: Tensor, window_size: int | None) -> str | None:
    """Why the automatic choice leaves the backend out, or None where it does not."""
    if name == "triton" and (triton.INTERPRETED or not input.is_cuda):
        return "its interpreter has to be asked for"
    return unavailable(name) or unserved(name, input, window_size)


def unserved(name: str, input: Tensor, window_size: int | None) -> str | None:
    """Why the backend, though there, cannot compute this, or None where it can."""
    if name == "reference":
        return None
    if _exporting_to_onnx():
        return "its operators do not exist in ONNX; without a name the reference is exported"
    reason = _without_device(name, input)
    kernels: ModuleType = native if name == "native" else triton
    if reason is None and window_size is not None and window_size not in kernels.WINDOW_SIZES:
        return f"its kernels have odd windows of 3 to 15, got window_size={window_size}"
    return reason


def _exporting_to_onnx() -> bool:
    """Asked in each call, so the two questions that cost nothing come first."""
    traced = in_torchscript() or torch.compiler.is_exporting()
    return traced and torch.onnx.is_in_onnx_export()


# Dynamo, which the exporter tries where all else fails, would take is_in_onnx_export for false.
_exporting_to_onnx._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _without_device(name: str, input: Tensor) -> str | None:
    """Why the backend has no kernels for the input's device, or None where it has."""
    if name == "triton":
        return triton.refusal(input.device)
    if input.device.type == "cuda":
        reason = native.cuda_missing or native.cuda_refusal(input.device.index)
        if reason is not None:
            return f"no CUDA kernels for a tensor on {input.device}: {reason}"
    elif input.device.type != "cpu":
        return f"its kernels take CPU and CUDA tensors, got one on {input.device}"
    return None


def check_request(name: str | None, source: str = "backend") -> str | None:
    """`name` if it is None or a backend of this installation, else an error naming `source`."""
    if name is None:
        return None
    check_choice(source, name, BACKENDS)
    reason = unavailable(name)
    if reason is not None:
        raise ValueError(
            f"{source}={name!r} is not available: {reason}. Available: {', '.join(available())}"
        )
    return name


def report() -> str:
    """Versions, devices, the backends and why others are not available, as text."""
    lines = [
        f"lamp_kernels {__version__}",
        f"torch {torch.__version__}, Python {platform.python_version()}, {platform.platform()}",
        "devices: " + ", ".join(f"{name} ({what})" for name, what in devices().items()),
        "backends:",
    ]
    for name in BACKENDS:
        reason = unavailable(name)
        details = _details(name) if reason is None else []
        lines.append(f"  {name:<10} {reason or 'available'}")
        lines += [f"  {'':<10} {detail}" for detail in details]
    if _from_environment is not None:
        lines.append(f"  {ENVIRONMENT_VARIABLE}={_from_environment}")
    return "\n".join(lines)


def _details(name: str) -> list[str]:
    if name == "reference":
        return []
    if name == "triton":
        return [
            f"Triton {triton.release()}, "
            + ("interpreted (TRITON_INTERPRET)" if triton.INTERPRETED else "compiled at first use"),
            *([f"{autotune.ENVIRONMENT_VARIABLE}={autotune.VALUE}"] if autotune.VALUE else []),
            "not yet run on a GPU",
        ]
    return [
        f"CPU instruction set: {native.refusal or native.instruction_set()}",
        f"CUDA kernels: {native.cuda_missing or _registered()}",
    ]


def _registered() -> str:
    """What the CUDA kernels are compiled for, and what of that is of use here."""
    targets = f"registered for {', '.join(native.cuda_targets())} (CUDA {native.cuda_release()})"
    count = torch.cuda.device_count()
    reasons = {index: native.cuda_refusal(index) for index in range(count)}
    refused = [f"cuda:{index}: {reason}" for index, reason in reasons.items() if reason]
    return "; ".join([targets, *(refused if count else ["no CUDA device"])])


def devices() -> dict[str, str]:
    """The devices of this machine that losses are computed on, each with what it is."""
    found = {"cpu": f"{torch.get_num_threads()} threads"}
    for index in range(torch.cuda.device_count()):
        found[f"cuda:{index}"] = torch.cuda.get_device_name(index)
    return found


def _warn_of_slow_cuda(input: Tensor, window_size: int | None) -> None:
    """Say once that a CUDA tensor is served by plain PyTorch; silent where a graph is made."""
    global _warned_of_cuda
    if input.is_cuda and not being_traced() and not _warned_of_cuda:
        _warned_of_cuda = True
        reasons = {name: _not_by_itself(name, input, window_size) for name in BACKENDS}
        warnings.warn(
            "lamp_kernels computes this CUDA tensor by its plain PyTorch reference; "
            + "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason)
            + ". backend='reference' asks for it without this warning.",
            stacklevel=2,
        )
