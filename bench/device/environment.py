"""Describes the machine: python -m device.environment --device cuda --out FILE.json.

Fails if the requested device is not available.
"""

import argparse
import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from suite import machine

from device.toolkit import find_tool

PACKAGES = (
    "torch", "triton", "numpy", "ninja", "pytest", "hypothesis", "pytest-timeout", "pytest-xdist",
    "fused-ssim", "pytorch-msssim", "kornia", "torchmetrics", "scikit-image", "scipy",
)  # fmt: skip
# Everything nvidia-smi reports that may slow down a measurement.
QUERY = (
    "index,name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,"
    "temperature.gpu,utilization.gpu,memory.used"
)


def describe(device: str) -> dict[str, Any]:
    """Describe the machine; "problem" is set if the device cannot be used, and says why."""
    found: dict[str, Any] = {
        "platform": platform.platform(),
        **machine.describe(),
        "packages": _versions(),
        "programs": {name: _program(name) for name in ("nvcc", "g++", "ninja")},
        "cuda_of_torch": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
        "nvidia_smi": _output("nvidia-smi", f"--query-gpu={QUERY}", "--format=csv"),
        "devices": [],
    }
    if device == "cpu":
        return found
    if not torch.cuda.is_available():
        return {**found, "problem": f"torch {torch.__version__} finds no CUDA device"}
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        found["devices"].append(
            {
                "name": about.name,
                "capability": f"{about.major}.{about.minor}",
                "memory_gib": round(about.total_memory / 2**30, 1),
                "multiprocessors": about.multi_processor_count,
                "l2_mib": round(getattr(about, "L2_cache_size", 0) / 2**20, 1),
            }
        )
    driver = getattr(torch._C, "_cuda_getDriverVersion", None)
    found["cuda_of_driver"] = driver() if driver else None
    torch.ones(1, device=device).add_(1).item()  # a visible device may still fail
    return found


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _program(name: str) -> str | None:
    """The version line that a program prints, or None if it is not found."""
    command = find_tool(name)
    lines = (_output(command, "--version") or "").splitlines() if command else []
    printed = [
        line for line in lines if any(c.isdigit() for c in line) and "(c)" not in line.lower()
    ]
    return (printed[-1] if name == "nvcc" else printed[0]) if printed else None


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def main() -> int:
    """Write the file; return 1 if the device cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    found = describe(arguments.device)
    arguments.out.write_text(json.dumps(found), encoding="utf-8")
    return 1 if "problem" in found else 0


if __name__ == "__main__":
    sys.exit(main())
