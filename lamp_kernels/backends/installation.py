"""What is installed on this machine."""

import platform
from collections.abc import Mapping

import torch

from lamp_kernels._version import __version__
from lamp_kernels.backends.base import Backend
from lamp_kernels.spec import DEFAULTS


def devices() -> dict[str, str]:
    """The devices of this machine that losses can be computed on, each with a description."""
    found = {"cpu": f"{torch.get_num_threads()} threads"}
    for index in range(torch.cuda.device_count()):
        found[f"cuda:{index}"] = torch.cuda.get_device_name(index)
    return found


def describe(backends: Mapping[str, Backend]) -> list[str]:
    """The versions, the devices, and each backend or why it is not available, line by line."""
    present = devices()
    lines = [
        f"lamp_kernels {__version__}",
        f"torch {torch.__version__}, Python {platform.python_version()}, {platform.platform()}",
        "devices: " + ", ".join(f"{name} ({what})" for name, what in present.items()),
        "backends:",
    ]
    for name, backend in backends.items():
        reason = backend.unavailable_reason()
        if reason is not None:
            lines.append(f"  {name:<10} not available: {reason}")
            continue
        error = backend.configuration_error(torch.empty(0))
        usable = "available" if error is None else f"not usable on the CPU: {error}"
        lines.append(f"  {name:<10} {usable}{_unused(backend, list(present))}")
        lines += [f"  {'':<10} {detail}" for detail in backend.details()]
    lines.append("  The CUDA and Triton kernels have not run on a GPU yet.")
    return lines


def _unused(backend: Backend, present: list[str]) -> str:
    """Why an available backend computes on no device of this machine, or "" if it does."""
    samples = (torch.empty(0, device=device) for device in present)
    if any(backend.unsupported_reason(DEFAULTS, sample) is None for sample in samples):
        return ""
    return "; needs a GPU" if present == ["cpu"] else "; supports none of these devices"
