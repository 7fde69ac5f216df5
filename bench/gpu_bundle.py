"""Build on this machine, without a GPU, what gpu_check needs on a rented machine.

python bench/gpu_bundle.py --targets 9.0

Writes to gpu-bundle/ (see device/bundle.py): both libraries for these targets, the sweep program,
and wheels of other packages. Leaves gpu-bundle/site/ alone; put fused_ssim there to include it.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from checkout import ROOT
from device.bundle import FOLDER

MOST = 64 * 2**20  # bytes, the upload limit of a rented machine
SWEEP = ROOT / "bench" / "sweep.cu"
# The machine that the bundle is for, not this one.
PLATFORM = ["--python-version", "3.12", "--implementation", "cp"]
for tag in ("manylinux_2_28", "manylinux_2_17", "manylinux2014"):
    PLATFORM += ["--platform", f"{tag}_x86_64"]


def nvcc() -> str:
    """Find nvcc as setup.py does: in CUDA_HOME, or else on PATH or in /usr/local/cuda."""
    home = os.environ.get("CUDA_HOME")
    path = os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/local/cuda/bin"
    found = shutil.which("nvcc", path=str(Path(home, "bin")) if home else path)
    if found is None:
        raise SystemExit(f"CUDA_HOME={home} has no nvcc" if home else "nvcc was not found")
    return found


def libraries(folder: Path, targets: str) -> None:
    """Build both libraries into `folder`; those in the source tree stay as they are."""
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--force"]
    command += ["--build-lib", str(folder), "--build-temp", str(ROOT / "build" / "gpu-bundle")]
    switches = {"LAMP_KERNELS_NATIVE": "1", "LAMP_KERNELS_CUDA": "1"}
    run(command, {**switches, "TORCH_CUDA_ARCH_LIST": targets})


def sweep(folder: Path, targets: str, source: Path = SWEEP) -> None:
    """Build the stand-alone program with machine code for every target."""
    kernels = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
    generate = []
    for target in targets.replace(" ", ";").split(";"):
        number = target.removesuffix("+PTX").replace(".", "")
        generate += ["-gencode", f"arch=compute_{number},code=sm_{number}"]
    command = [nvcc(), "-O3", "-std=c++20", *generate, "-I", str(ROOT / "csrc"), str(source)]
    run([*command, *map(str, kernels), "-o", str(folder / "sweep")])


def wheels(folder: Path) -> None:
    """Download other packages, pinned as for the benchmarks, for the rented machine's Python."""
    shutil.rmtree(folder / "wheels", ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", *PLATFORM, "-d", str(folder / "wheels")]
    run([*command, "-r", str(ROOT / "bench" / "requirements-gpu.txt")])


def size(folder: Path) -> int:
    """The total size of all files, in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    """Print the command and run it."""
    print(" ".join(command).replace(f"{ROOT}/", ""), file=sys.stderr, flush=True)
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **(environment or {})}, check=False)
    if done.returncode != 0:
        raise SystemExit(f"exit status {done.returncode}: {command[0]}")


def main() -> None:
    """Build the bundle and print its size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--targets", default="9.0", help="compute capabilities, e.g. 8.0;9.0")
    arguments = parser.parse_args()
    folder: Path = arguments.out.resolve()
    (folder / "site").mkdir(parents=True, exist_ok=True)
    libraries(folder, arguments.targets)
    if SWEEP.exists():
        sweep(folder, arguments.targets)
    else:
        print("skipped: the sweep program; bench/sweep.cu does not exist", file=sys.stderr)
    wheels(folder)
    fused = [path.name for path in folder.glob("site/fused_ssim*")]
    print(f"fused-ssim: {', '.join(fused) or 'skipped, not in site/'}")
    total = size(folder)
    print(f"{arguments.out}: {total / 2**20:.1f} MiB")
    if total > MOST:
        raise SystemExit(f"a rented machine accepts at most {MOST // 2**20} MiB")


if __name__ == "__main__":
    main()
