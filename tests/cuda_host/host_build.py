"""Builds programs that run the CUDA kernels on the CPU, with g++ and NVIDIA's headers alone."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import kernel_driver

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# Checks by calls instead of in place: a third of the time to compile, and twice that to run.
CALLS = ["--param", "asan-instrumentation-with-call-threshold=0"]
ADDRESS = kernel_driver.SANITIZE
THREAD = ["-fsanitize=thread", "-fno-omit-frame-pointer", "-g1"]
COMMON = ["-O1", "-Icuda_host"]  # -O2 takes twice as long to compile, and finds nothing more
KERNEL = ["-x", "c++", "-include", "cuda_host/cuda_host.h"]
# Where NVIDIA's Python packages are used, of three of these.
HEADERS = ("cuda_fp16.h", "cuda_runtime.h", "crt/host_config.h", "nv/target")
FOUND = 66  # exit status where ThreadSanitizer or AddressSanitizer found something
EMULATION = {  # compiled once, and most of what a run without sanitizers does
    f"cuda_host/{name}.cpp": ["-O2"] for name in ("engine", "fiber", "runtime")
}
KERNELS = ("float", "double", "two")
LAUNCH = {f"csrc/cuda/{name}.cu": KERNEL for name in ("launch", "plan")}


class NotFoundError(Exception):
    """What the emulation needs is not installed."""


def cuda_flags() -> list[str]:
    """Flags that make NVIDIA's headers found."""
    if not shutil.which("g++"):
        raise NotFoundError("g++ is not installed")
    for folder in include_folders():
        folders = [folder, folder / "cccl"]
        if all(any((path / name).exists() for path in folders) for name in HEADERS):
            return [f"-isystem{path}" for path in folders if path.exists()]
    raise NotFoundError(
        "no CUDA headers: neither CUDA_HOME is set, nor nvcc on PATH, nor are the Python packages "
        "nvidia-cuda-runtime, nvidia-cuda-crt and nvidia-cuda-cccl installed"
    )


def include_folders() -> list[Path]:
    """Where the headers may be, the most explicit place first."""
    folders = []
    if home := os.environ.get("CUDA_HOME"):
        folders.append(Path(home) / "include")
    if nvcc := shutil.which("nvcc"):  # perhaps a script that calls another one: it says where
        done = subprocess.run(
            [nvcc, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True, check=False
        )
        folders += [
            Path(path) for path in re.findall(r'^#\$ INCLUDES="-I([^"]+)"', done.stderr, re.M)
        ]
        folders.append(Path(nvcc).resolve().parents[1] / "include")
    with contextlib.suppress(metadata.PackageNotFoundError):
        files = metadata.files("nvidia-cuda-runtime") or []
        folders += [Path(f.locate()).parent for f in files if f.name == "cuda_runtime.h"]
    return folders


def copy(folder: Path) -> None:
    """Kernels, cases and emulation, to `folder`."""
    kernel_driver.copy(folder)
    shutil.copytree(
        HERE, folder / "cuda_host", ignore=shutil.ignore_patterns("*.py", "__pycache__")
    )


def build_driver(
    folder: Path, cuda: Sequence[str], flags: Sequence[str] = (), radii: Sequence[int] | None = None
) -> Path:
    """The driver of the kernels, from a folder that `copy` filled; `radii` alone, or all."""
    if radii:
        kernels = {"cuda_host/variants.cpp": [*KERNEL, f"-DRADII={','.join(map(str, radii))}"]}
    else:
        kernels = {f"csrc/cuda/ssim_{name}.cu": KERNEL for name in KERNELS}
    objects = compile_driver(folder, cuda) + compile_around(folder, cuda, flags)
    objects += compile_some(folder, kernels, cuda, flags)
    return link(folder, "driver", objects, flags)


def build_self_test(folder: Path, cuda: Sequence[str], flags: Sequence[str] = ()) -> Path:
    """The program that tests the emulation itself."""
    sources = {"cuda_host/self_test.cpp": KERNEL} | EMULATION
    return link(folder, "self_test", compile_some(folder, sources, cuda, flags), flags)


def build_proof_input(folder: Path, cuda: Sequence[str]) -> Path:
    """The program that writes a launch down for sentryward."""
    sources = {"cuda_host/proof_input.cpp": KERNEL} | EMULATION
    return link(folder, "proof_input", compile_some(folder, sources, cuda, []), [])


def build_sweep(folder: Path, cuda: Sequence[str]) -> Path:
    """bench/sweep.cu, which a test has copied to `folder`, for radius 5."""
    kernels = {"cuda_host/variants.cpp": [*KERNEL, "-DRADII=5"], "sweep.cu": KERNEL}
    sources = kernels | LAUNCH | EMULATION | {"cuda_host/memory.cpp": []}
    return link(folder, "sweep", compile_some(folder, sources, cuda, []), [])


def compile_driver(folder: Path, cuda: Sequence[str]) -> list[str]:
    """What checks the kernels: slow enough without the sanitizers, and none of their business."""
    sources = {"cpu/cases.cpp": [], "cuda_host/driver.cpp": [], "cpu/textbook.cpp": ["-O2"]}
    return compile_some(folder, sources, cuda, [])


def compile_around(folder: Path, cuda: Sequence[str], flags: Sequence[str]) -> list[str]:
    """What lies between the driver and the SSIM kernels."""
    return compile_some(folder, LAUNCH | EMULATION, cuda, flags)


def compile_some(
    folder: Path, sources: dict[str, list[str]], cuda: Sequence[str], flags: Sequence[str]
) -> list[str]:
    return kernel_driver.compile_all(folder, sources, "g++", [*COMMON, *cuda, *flags])


def link(folder: Path, name: str, objects: Sequence[str], flags: Sequence[str]) -> Path:
    program = folder / name
    kernel_driver.call(["g++", *flags, "-pthread", *objects, "-o", str(program)], folder)
    return program


def run(
    program: Path, arguments: Sequence[str] = (), timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """`program` with these arguments; a finding of TSan or ASan ends with status FOUND."""
    options = f"exitcode={FOUND}:halt_on_error=1"  # a report of each race takes seconds
    return subprocess.run(
        [str(program), *arguments],
        env=os.environ | {"TSAN_OPTIONS": options, "ASAN_OPTIONS": options},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
