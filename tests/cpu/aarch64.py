"""The CPU kernels of aarch64 (NEON) against the textbook in C++, emulated: `make test-aarch64`.

All windows and gradients, with the optimisation of the extension. Needs no Python package, but a
cross-compiler and QEMU, in Debian and Ubuntu the packages of PACKAGES. Where these are missing it
says so and exits with 0, or with 1 if --required; --install lets root's apt-get fetch them first.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import kernel_driver as build

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
PACKAGES = ("g++-aarch64-linux-gnu", "qemu-user")
# The emulator takes ten times as long as the machine.
RUNS = (
    ("--only", "windows"),
    ("--only", "halves"),
    ("--only", "scenes", "--radii", "1,5,7"),
    ("--only", "cases", "--cases", "60", "--work", "3000000"),
)


def missing() -> list[str]:
    """The programs that are not there."""
    return [program for program in (COMPILER, EMULATOR) if not shutil.which(program)]


def install() -> str | None:
    """Fetch what is missing; None, or why it cannot be."""
    if not shutil.which("apt-get") or os.geteuid() != 0:
        return "only root can install them here, and only by apt-get"
    patience = ["-o", "Acquire::http::Timeout=20", "-o", "DPkg::Lock::Timeout=60"]
    fetch = ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES]
    for command in (["apt-get", *patience, "update", "-qq"], ["apt-get", *patience, *fetch]):
        done = subprocess.run(
            command,
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        return f"apt-get install {' '.join(PACKAGES)} failed and said: {said}"
    return None


def test(folder: Path) -> int:
    """Build the driver and run it; the failures."""
    build.copy(folder)
    driver = build.build(
        folder, ["baseline"], compiler=COMPILER, flags=["-O3"], link=["-static", "-s"]
    )
    failures = 0
    for arguments in RUNS:
        done = build.run(driver, "baseline", arguments, emulator=[EMULATOR])
        print(" ".join(arguments), done.stdout, done.stderr, sep="\n", end="", flush=True)
        failures += done.returncode != 0
    return failures


def main() -> int:
    """Install, build and run; 0 where nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--install", action="store_true", help="fetch what is missing by apt-get")
    parser.add_argument("--required", action="store_true", help="fail where it is missing")
    arguments = parser.parse_args()
    reason = install() if arguments.install and missing() else None
    if absent := missing():
        print(
            f"aarch64: not tested, {' and '.join(absent)} not found"
            f"{f' ({reason})' if reason else ''}; Debian's packages are {', '.join(PACKAGES)}"
        )
        return int(arguments.required)
    with tempfile.TemporaryDirectory(prefix="lamp-aarch64-") as folder:
        failures = test(Path(folder))
    print(f"aarch64: {len(RUNS) - failures} passed, {failures} failed")
    return int(failures != 0)


if __name__ == "__main__":
    sys.exit(main())
