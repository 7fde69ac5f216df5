"""Proves on nvcc's own PTX that the SSIM kernels' barriers are right, with sentryward.

    python tests/cuda_host/prove.py [--kernels one,losses,gradients]

For one fixed launch of each kernel, 2 x 2 blocks, on sm_75 and sm_90: in every schedule all threads
of a block reach the same barriers and shuffles, and none waits forever. Of the gradients' kernel on
sm_75 alone: in later code sentryward does not find out how far a loop goes, so that its form with
asynchronous copies is not proved; nor does it for any kernel on sm_120. The launch takes the
kernel's common way. It follows no branch that the images decide on, and the vote on whether a warp
moves its shift is one: what is proved is that the barriers are right where no warp ever does, and
where all do in every row. sentryward also reports races, but it cannot resolve addresses that come
from pointers inside a structure, so that part stays "incomplete": finding races is
ThreadSanitizer's part.
"""

import argparse
import itertools
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

TARGETS = {"one": (75, 90), "losses": (75, 90), "gradients": (75,)}
VOTES = {"one": (False, True), "losses": (False, True), "gradients": (False,)}  # that has none
KERNELS = {
    "one": "ssim_kernel",
    "losses": "ssim_losses_kernel",
    "gradients": "ssim_gradients_kernel",
}
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


def prove(kernel: str, target: int, moves: bool, folder: Path) -> dict[str, Any]:
    """What sentryward says of a kernel compiled for one target; files go to `folder`.

    moves: how warps vote on moving their shift.
    """
    ptx, launch = write_input(kernel, target, moves, folder)
    # Its exit status says nothing of what it found.
    told = call(
        [str(find("sentryward")), str(ptx), "--input", str(launch), "--timeout", str(SECONDS)],
        folder,
    )
    result: dict[str, Any] = json.loads(told)
    return result


def write_input(kernel: str, target: int, moves: bool, folder: Path) -> tuple[Path, Path]:
    """The PTX of all kernels, and the launch of one."""
    host_build.copy(folder)
    ptx, launch = folder / "proof.ptx", folder / "launch.json"
    nvcc = ["nvcc", "-std=c++20", "-Icsrc", "-ptx", f"-arch=compute_{target}"]
    call([*nvcc, "cuda_host/proof.cu", "-o", str(ptx)], folder)
    ptx.write_text(with_votes(without_abs(ptx.read_text()), moves))
    # In a mangled name the length of the identifier stands before it.
    mangled = f"{len(KERNELS[kernel])}{KERNELS[kernel]}"
    entry = re.search(rf"\.entry (\w+{mangled}\w+)\(", ptx.read_text())
    if entry is None:
        raise ValueError(f"nvcc wrote no {KERNELS[kernel]}")
    program = host_build.build_proof_input(folder, host_build.cuda_flags())
    launch.write_text(call([str(program), kernel, entry[1]], folder))
    return ptx, launch


def without_abs(ptx: str) -> str:
    """The same PTX for sentryward 0.1.1, which takes the result of abs.s32 for unknown."""

    def replacement(found: re.Match[str]) -> str:
        to, of = found.groups()
        if to == of:
            raise ValueError(f"{found[0]} needs a register of its own")
        return f"neg.s32 {to}, {of};\n\tmax.s32 {to}, {to}, {of};"

    return re.sub(r"abs\.s32\s+(%r\d+), (%r\d+);", replacement, ptx)


def with_votes(ptx: str, answer: bool) -> str:
    """The same PTX, in which every vote comes out so."""
    test = "eq" if answer else "ne"
    return re.sub(r"vote\.sync\.any\.pred\s+(%p\d+), [^;]+;", rf"setp.{test}.s32 \1, 0, 0;", ptx)


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
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kernels", default=",".join(KERNELS))
    arguments = parser.parse_args()
    if missing := lacking():
        sys.exit(missing)
    wrong = False
    for kernel in arguments.kernels.split(","):
        for target, moves in itertools.product(TARGETS[kernel], VOTES[kernel]):
            with tempfile.TemporaryDirectory() as folder:
                result = prove(kernel, target, moves, Path(folder) / "proof")
            found = complaints(result)
            name = f"{kernel}, sm_{target}, shifts {'move' if moves else 'stay'}"
            print(f"{name}: {result['checks']}", *found, sep="\n  ", flush=True)
            wrong |= bool(found)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
