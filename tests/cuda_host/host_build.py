"""Builds programs that run the CUDA kernels on the CPU, using only g++ and NVIDIA's headers."""

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
ADDRESS = kernel_driver.SANITIZE
THREAD = ["-fsanitize=thread", "-fno-omit-frame-pointer", "-g1"]
COMMON = ["-O1", "-Icuda_host"]  # -O2 takes twice as long to compile and finds no more errors
KERNEL = ["-x", "c++", "-include", "cuda_host/cuda_host.h"]
# If NVIDIA's Python packages are used, these come from three of them.
HEADERS = ("cuda_fp16.h", "cuda_runtime.h", "crt/host_config.h", "nv/target")
FOUND = 66  # exit status if ThreadSanitizer or AddressSanitizer found an error
EMULATION = {  # compiled once; takes most of the time of a run without sanitizers
    f"cuda_host/{name}.cpp": ["-O2"] for name in ("engine", "fiber", "runtime")
}
KERNELS = ("float", "double", "two")
LAUNCH = {f"csrc/cuda/{name}.cu": KERNEL for name in ("launch", "plan")}


class NotFoundError(Exception):
    """A requirement of the emulation is not installed."""


def cuda_flags() -> list[str]:
    """Compiler flags for NVIDIA's headers."""
    if not shutil.which("g++"):
        raise NotFoundError("g++ is not installed")
    for folder in include_folders():
        folders = [folder, folder / "cccl"]
        if all(any((path / name).exists() for path in folders) for name in HEADERS):
            return [f"-isystem{path}" for path in folders if path.exists()]
    raise NotFoundError(
        "no CUDA headers found; set CUDA_HOME, put nvcc on PATH, or install the Python packages "
        "nvidia-cuda-runtime, nvidia-cuda-crt and nvidia-cuda-cccl"
    )


def include_folders() -> list[Path]:
    """Folders that may contain the headers, the most explicit first."""
    folders = []
    if home := os.environ.get("CUDA_HOME"):
        folders.append(Path(home) / "include")
    if nvcc := shutil.which("nvcc"):  # may be a script; nvcc's output names the toolkit
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
    """Copy the kernels, the cases and the emulation to `folder`."""
    kernel_driver.copy(folder)
    shutil.copytree(
        HERE, folder / "cuda_host", ignore=shutil.ignore_patterns("*.py", "__pycache__")
    )


def build_driver(
    folder: Path, cuda: Sequence[str], flags: Sequence[str] = (), radii: Sequence[int] | None = None
) -> Path:
    """Build the driver in a folder that `copy` has filled, for `radii` or for all radii."""
    if radii:
        kernels = {"cuda_host/variants.cpp": [*KERNEL, f"-DRADII={','.join(map(str, radii))}"]}
    else:
        kernels = {f"csrc/cuda/ssim_{name}.cu": KERNEL for name in KERNELS}
    objects = compile_driver(folder, cuda) + compile_around(folder, cuda, flags)
    objects += compile_some(folder, kernels, cuda, flags)
    return link(folder, "driver", objects, flags)


def build_self_test(folder: Path, cuda: Sequence[str], flags: Sequence[str] = ()) -> Path:
    """Build the program that tests the emulation itself."""
    sources = {"cuda_host/self_test.cpp": KERNEL} | EMULATION
    return link(folder, "self_test", compile_some(folder, sources, cuda, flags), flags)


def build_proof_input(folder: Path, cuda: Sequence[str]) -> Path:
    """Build the program that prints a launch as input for sentryward."""
    sources = {"cuda_host/proof_input.cpp": KERNEL} | EMULATION
    return link(folder, "proof_input", compile_some(folder, sources, cuda, []), [])


def build_sweep(folder: Path, cuda: Sequence[str]) -> Path:
    """Build bench/sweep.cu, which a test has copied to `folder`, for radius 5."""
    kernels = {"cuda_host/variants.cpp": [*KERNEL, "-DRADII=5"], "sweep.cu": KERNEL}
    sources = kernels | LAUNCH | EMULATION | {"cuda_host/memory.cpp": []}
    return link(folder, "sweep", compile_some(folder, sources, cuda, []), [])


def compile_driver(folder: Path, cuda: Sequence[str]) -> list[str]:
    """Compile the code that checks the kernels: slow, not under test, hence without sanitizers."""
    sources = {"cpu/cases.cpp": [], "cuda_host/driver.cpp": [], "cpu/textbook.cpp": ["-O2"]}
    return compile_some(folder, sources, cuda, [])


def compile_around(folder: Path, cuda: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Compile the launch code and the emulation."""
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
    """Run `program`; the exit status is FOUND if TSan or ASan reports an error."""
    options = f"exitcode={FOUND}:halt_on_error=1"  # each report of a race takes seconds
    return subprocess.run(
        [str(program), *arguments],
        env=os.environ | {"TSAN_OPTIONS": options, "ASAN_OPTIONS": options},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
