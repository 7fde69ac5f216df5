"""Proves on nvcc's own PTX that the SSIM kernel's barriers are right, with sentryward.

    python tests/cuda_host/prove.py

For one fixed launch, 2 x 2 blocks, on the oldest and the newest target: every thread of a block
comes to the same barriers and shuffles in every schedule, and none waits for ever. Whether memory
accesses race it reports too, as far as it can tell: it does not resolve addresses that come from
pointers inside a structure, so that part stays "incomplete"; races are ThreadSanitizer's part.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "cpu")]

import host_build  # noqa: E402

TARGETS = (75, 120)
SECONDS = 800  # at most, for a proof; with a core to itself it takes some 150, and 9 GB
BARRIERS_RIGHT = "passed"
MEMORY_AT_WORST = ("passed", "incomplete")


def lacking() -> str:
    """What is not installed that a proof needs, or nothing."""
    for program in ("sentryward", "nvcc", "g++"):
        if not find(program):
            return f"{program} is not installed"
    return ""


def find(program: str) -> str | None:
    """On PATH, or beside the Python that runs this."""
    return shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))


def prove(target: int, folder: Path) -> dict[str, Any]:
    """What sentryward says of the kernel compiled for one target; files go to `folder`."""
    host_build.copy(folder)
    ptx, launch = folder / "proof.ptx", folder / "launch.json"
    nvcc = ["nvcc", "-std=c++20", "-Icsrc", "-ptx", f"-arch=compute_{target}"]
    call([*nvcc, "cuda_host/proof.cu", "-o", str(ptx)], folder)
    entry = re.search(r"\.entry (\w+)\(", ptx.read_text())
    if entry is None:
        raise ValueError("nvcc wrote no kernel")
    program = host_build.build_proof_input(folder, host_build.cuda_flags())
    launch.write_text(call([str(program), entry[1]], folder))
    # Its exit status says nothing of what it found.
    told = call(
        [str(find("sentryward")), str(ptx), "--input", str(launch), "--timeout", str(SECONDS)],
        folder,
    )
    result: dict[str, Any] = json.loads(told)
    return result


def call(command: list[str], folder: Path) -> str:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def complaints(result: dict[str, Any]) -> list[str]:
    """What stands against a kernel."""
    checks = result["checks"]
    found = [
        f"{name}: {checks[name]}"
        for name, fine in (("synchronization", (BARRIERS_RIGHT,)), ("memory", MEMORY_AT_WORST))
        if checks[name] not in fine
    ]
    if result.get("race_count"):
        found.append(f"{result['race_count']} races")
    return [*found, *(d["message"] for d in result["diagnostics"])] if found else []


def main() -> int:
    if missing := lacking():
        sys.exit(missing)
    wrong = False
    for target in TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            result = prove(target, Path(folder) / "proof")
        print(f"sm_{target}: {result['checks']}", *complaints(result), sep="\n  ")
        wrong |= bool(complaints(result))
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
