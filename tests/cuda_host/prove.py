"""Proves with sentryward, on nvcc's PTX, that the barriers of the SSIM kernels are correct.

    python tests/cuda_host/prove.py [--kernels one,losses,gradients]

The proof covers one fixed launch of each kernel, with 2 x 2 blocks, on sm_75 and sm_90: in every
schedule, all threads of a block reach the same barriers and shuffles, and none waits forever. The
gradients kernel is proved only on sm_75, because sentryward cannot determine a loop's bound in code
for later targets; the version with asynchronous copies is therefore not proved. The same holds for
every kernel on sm_120. The launch takes the kernel's common path. sentryward does not follow
branches that depend on the images. The vote on whether a warp moves its shift is such a branch, so
the barriers are proved for two cases: no warp ever moves its shift, or all warps move it in every
row. sentryward also reports races, but it cannot resolve addresses that come from pointers inside a
structure, so its memory check stays "incomplete"; ThreadSanitizer is used to find races instead.
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
# Answers of votes that are proved; the gradients kernel has no vote.
VOTES = {"one": (False, True), "losses": (False, True), "gradients": (False,)}
KERNELS = {
    "one": "ssim_kernel",
    "losses": "ssim_losses_kernel",
    "gradients": "ssim_gradients_kernel",
}
SECONDS = 800  # time limit of a proof, which takes about 150 s on an idle core, and 9 GB
BARRIERS_RIGHT = "passed"
MEMORY_AT_WORST = ("passed", "incomplete")


def lacking() -> str:
    """Name a required program that is not installed; empty if all are installed."""
    for program in ("sentryward", "nvcc", "g++"):
        if not find(program):
            return f"{program} is not installed"
    return ""


def find(program: str) -> str | None:
    """The program's path, on PATH or in the folder of the running Python."""
    return shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))


def prove(kernel: str, target: int, moves: bool, folder: Path) -> dict[str, Any]:
    """The result of sentryward for a kernel compiled for one target; writes files to `folder`.

    moves: the answer of warps' votes on moving their shift.
    """
    ptx, launch = write_input(kernel, target, moves, folder)
    # The exit status does not depend on the result.
    told = call(
        [str(find("sentryward")), str(ptx), "--input", str(launch), "--timeout", str(SECONDS)],
        folder,
    )
    result: dict[str, Any] = json.loads(told)
    return result


def write_input(kernel: str, target: int, moves: bool, folder: Path) -> tuple[Path, Path]:
    """Write the PTX of all kernels and the launch of one."""
    host_build.copy(folder)
    ptx, launch = folder / "proof.ptx", folder / "launch.json"
    nvcc = ["nvcc", "-std=c++20", "-Icsrc", "-ptx", f"-arch=compute_{target}"]
    call([*nvcc, "cuda_host/proof.cu", "-o", str(ptx)], folder)
    ptx.write_text(with_votes(without_abs(ptx.read_text()), moves))
    # A mangled name contains the identifier, preceded by its length.
    mangled = f"{len(KERNELS[kernel])}{KERNELS[kernel]}"
    entry = re.search(rf"\.entry (\w+{mangled}\w+)\(", ptx.read_text())
    if entry is None:
        raise ValueError(f"nvcc wrote no {KERNELS[kernel]}")
    program = host_build.build_proof_input(folder, host_build.cuda_flags())
    launch.write_text(call([str(program), kernel, entry[1]], folder))
    return ptx, launch


def without_abs(ptx: str) -> str:
    """Replace abs.s32, whose result sentryward 0.1.1 treats as unknown."""

    def replacement(found: re.Match[str]) -> str:
        to, of = found.groups()
        if to == of:
            raise ValueError(f"{found[0]} must write another register than it reads")
        return f"neg.s32 {to}, {of};\n\tmax.s32 {to}, {to}, {of};"

    return re.sub(r"abs\.s32\s+(%r\d+), (%r\d+);", replacement, ptx)


def with_votes(ptx: str, answer: bool) -> str:
    """Replace every vote with a constant answer."""
    test = "eq" if answer else "ne"
    return re.sub(r"vote\.sync\.any\.pred\s+(%p\d+), [^;]+;", rf"setp.{test}.s32 \1, 0, 0;", ptx)


def call(command: list[str], folder: Path) -> str:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def complaints(result: dict[str, Any]) -> list[str]:
    """The reasons why a result is not accepted; empty if it is."""
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
