"""Tests the aarch64 (NEON) CPU kernels in an emulator: `make test-aarch64`.

Compares all windows and gradients with the textbook implementation in C++, using the extension's
optimization flags. Requires a cross-compiler and QEMU (the Debian and Ubuntu packages in PACKAGES),
but no Python packages. If they are missing, reports that and exits with 0, or with 1 if --required;
--install first installs them with apt-get, if run as root.
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
# The emulator is ten times slower than the machine.
VOLUMES = (2,)  # radii of the kernels of volumes, which take a third of the time to compile


def runs(radii: str) -> list[tuple[str, ...]]:
    """The driver's arguments, run by run. radii: of the windows, such as 1,5,7."""
    return [
        ("--only", "windows", "--radii", radii),
        ("--only", "halves"),
        ("--only", "cosine", "--cases", "100"),
        ("--only", "volumes", "--radii", ",".join(map(str, VOLUMES))),
        ("--only", "scenes", "--radii", ",".join(sorted({*radii.split(",")} & {"1", "5", "7"}))),
        ("--only", "cases", "--cases", "60", "--work", "3000000", "--radii", radii),
    ]


def missing() -> list[str]:
    """Required programs that are not installed."""
    return [program for program in (COMPILER, EMULATOR) if not shutil.which(program)]


def install() -> str | None:
    """Install the missing programs; return the reason if that fails, otherwise None."""
    if not shutil.which("apt-get") or os.geteuid() != 0:
        return "installing them requires root and apt-get"
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
        return f"apt-get install {' '.join(PACKAGES)} failed: {said}"
    return None


def test(folder: Path, radii: str) -> int:
    """Build the driver and run it; return the number of failures."""
    build.copy(folder)
    build.keep_radii(folder, [int(radius) for radius in radii.split(",")], VOLUMES)
    driver = build.build(
        folder, ["baseline"], compiler=COMPILER, flags=["-O3"], link=["-static", "-s"]
    )
    failures = 0
    for arguments in runs(radii):
        done = build.run(driver, "baseline", arguments, emulator=[EMULATOR])
        print(" ".join(arguments), done.stdout, done.stderr, sep="\n", end="", flush=True)
        failures += done.returncode != 0
    return failures


def main() -> int:
    """Install, build and run; return 0 if nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--install", action="store_true", help="install them with apt-get")
    parser.add_argument("--required", action="store_true", help="fail if they are missing")
    parser.add_argument("--radii", default="1,2,3,4,5,6,7", help="of the windows (default: all)")
    arguments = parser.parse_args()
    reason = install() if arguments.install and missing() else None
    if absent := missing():
        print(
            f"aarch64: not tested, {' and '.join(absent)} not found"
            f"{f' ({reason})' if reason else ''}; install the Debian packages {', '.join(PACKAGES)}"
        )
        return int(arguments.required)
    with tempfile.TemporaryDirectory(prefix="lamp-aarch64-") as folder:
        failures = test(Path(folder), arguments.radii)
    print(f"aarch64: {len(runs(arguments.radii)) - failures} passed, {failures} failed")
    return int(failures != 0)


if __name__ == "__main__":
    sys.exit(main())
