"""Runs a build of the CUDA kernels and compares its time, size and kernel count with their budgets.

Used by `make build-cuda` and `make wheel-cuda`; exits with 1 if a budget is exceeded.
"""

import argparse
import glob
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST_BYTES = 20_000_000
MOST_KERNELS = 90  # instantiations per target
CORES = 2
MOST_MINUTES = 15.0  # on CORES cores, for all targets


def kernels(symbols: str) -> set[str]:
    """The names of the kernels' host stubs among the symbols.

    nvcc generates one stub for each __global__ function, however many targets there are. The
    mangled names of a stub's static variables contain its name, preceded by its length.
    """
    found = re.findall(r"(\d+)(__device_stub__\w+)", symbols)
    return {stub[: int(length)] for length, stub in found}


def symbols_of(objects: Iterable[Path]) -> str:
    """The output of nm for object files, which, unlike the library, are not stripped."""
    command = ["nm", *map(str, objects)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> int:
    """Build and print each figure with its budget; return 0 if all are met, otherwise 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", help="glob pattern of the library or wheel that is built")
    parser.add_argument("command", nargs="+", help="the build command, after --")
    arguments = parser.parse_args()
    begin = time.monotonic()
    status = subprocess.run(arguments.command).returncode
    elapsed = time.monotonic() - begin
    if status != 0:
        return status
    # CPU time, because other work on the machine does not affect it.
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    minutes = (used.ru_utime + used.ru_stime) / CORES / 60
    (built,) = map(Path, glob.glob(arguments.file))
    objects = sorted(ROOT.glob("build/temp*/csrc/cuda/*.o"))
    stubs = kernels(symbols_of(objects))
    names = Counter(re.findall(r"\d([a-z_]+_kernel)(?![a-z])", " ".join(stubs)))
    print(", ".join(f"{count} x {name}" for name, count in sorted(names.items())))
    rows = [
        ("kernels per target", len(stubs), MOST_KERNELS, ""),
        (built.name, built.stat().st_size / 1e6, MOST_BYTES / 1e6, "MB"),
        (f"compiling the changed files on {CORES} cores", minutes, MOST_MINUTES, "min"),
    ]
    for name, found, most, unit in rows:
        verdict = "ok" if found <= most else "EXCEEDED"
        print(f"{name}: {found:.4g} {unit}".rstrip() + f" (budget {most:g}) {verdict}")
    print(f"the build took {elapsed / 60:.1f} min of wall time on this machine")
    return int(not stubs or any(found > most for _, found, most, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
