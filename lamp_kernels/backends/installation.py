"""What is installed on this machine."""

import platform
from collections.abc import Mapping

import torch

from lamp_kernels._version import __version__
from lamp_kernels.backends.base import Backend


def devices() -> dict[str, str]:
    """The devices of this machine that losses can be computed on, each with a description."""
    found = {"cpu": f"{torch.get_num_threads()} threads"}
    for index in range(torch.cuda.device_count()):
        found[f"cuda:{index}"] = torch.cuda.get_device_name(index)
    return found


def describe(backends: Mapping[str, Backend]) -> list[str]:
    """Versions, devices, the backends and why others are not available, line by line."""
    lines = [
        f"lamp_kernels {__version__}",
        f"torch {torch.__version__}, Python {platform.python_version()}, {platform.platform()}",
        "devices: " + ", ".join(f"{name} ({what})" for name, what in devices().items()),
        "backends:",
    ]
    for name, backend in backends.items():
        reason = backend.unavailable_reason()
        lines.append(f"  {name:<10} {reason or 'available'}")
        if reason is None:
            lines += [f"  {'':<10} {detail}" for detail in backend.details()]
    return lines
