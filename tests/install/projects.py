"""Copies of the project to build, and stand-ins for the tools a build finds on the machine."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BACKEND = "from setuptools import build_meta; print(build_meta.build_{}({!r}))"
SWITCHES = ("LAMP_KERNELS_NATIVE", "LAMP_KERNELS_CUDA")
SETTINGS = (
    *SWITCHES,
    "LAMP_KERNELS_LOCAL_VERSION",
    "CXX",
    "CUDA_HOME",
    "NVCC_CCBIN",
    "TORCH_CUDA_ARCH_LIST",
)
NVCC = """#!/bin/sh
case "$1" in
  --version) echo "Cuda compilation tools, release 13.0, V13.0.88" ;;
  --dryrun) echo "#\\$ TOP=$(dirname "$0")/.." >&2 ;;
  *) echo "nvcc fatal   : not a real nvcc" >&2; exit 1 ;;
esac
"""


def copy_tree(folder: Path, *, csrc: bool = True) -> None:
    """Copy the files that pip sees, without anything built in place."""
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copy(ROOT / "CHANGELOG.md", folder)
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.txt")
    for name in ("lamp_kernels", "csrc", "tests") if csrc else ("lamp_kernels",):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)


def small_project(folder: Path) -> Path:
    """The project with trivial C++ and CUDA C++ sources that compile quickly."""
    (folder / "csrc/cpu").mkdir(parents=True)
    (folder / "csrc/cuda").mkdir()
    copy_tree(folder, csrc=False)
    (folder / "csrc/bindings.cpp").write_text("int lamp() { return 0; }\n")
    (folder / "csrc/volumes.cpp").write_text("int lamp_volumes() { return 0; }\n")
    (folder / "csrc/cuda/bindings.cpp").write_text("int lamp_cuda() { return 0; }\n")
    (folder / "csrc/cuda/kernel.cuh").write_text("__global__ void kernel(float* p) { *p = 1; }\n")
    (folder / "csrc/cuda/kernel.cu").write_text(
        '#include "kernel.cuh"\nvoid run(float* p) { kernel<<<1, 1>>>(p); }\n'
    )
    return folder


def run(tree: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the tree, without the caller's compilers and switches."""
    inherited = {k: v for k, v in os.environ.items() if k not in SETTINGS}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )


# At import time, a CUDA build of PyTorch logs that it found a toolkit but no GPU.
LOGGED = re.compile(r"^W\d{4} \S+ \d+ .*torch/utils/cpp_extension\.py:\d+\] .*\n", re.MULTILINE)


def error_of(failed: subprocess.CompletedProcess[str]) -> str:
    """The standard error of a failed command, without PyTorch's log lines."""
    assert failed.returncode != 0
    return LOGGED.sub("", failed.stderr)


def executable(file: Path, text: str) -> Path:
    """Write an executable script."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file


def make_toolkit(root: Path) -> Path:
    """A fake CUDA toolkit with the files setup.py looks for; it compiles nothing."""
    executable(root / "bin/nvcc", NVCC)
    for name in ("include/cuda_runtime.h", "lib64/libcudart_static.a"):
        (root / name).parent.mkdir(parents=True)
        (root / name).touch()
    (root / "include/crt").mkdir()
    (root / "include/crt/host_config.h").write_text(
        "#error -- unsupported GNU version! gcc versions later than 15 are not supported!\n"
        "#error -- unsupported clang version! clang version must be less than 21 and so on\n"
    )
    return root
