"""Memory that one call needs beyond the images, each measured in its own process.

The figure is the peak resident size of the process during the call minus its size just before,
divided by the number of elements (pixels times channels). By then the images exist and have been
touched, and the same call has run once, so whatever it imports, compiles or caches does not count.
The C library returns large freed blocks to the system at once, so the first call's planes are gone
again. MALLOC_MMAP_THRESHOLD_ fixes the size that counts as large; otherwise the C library raises it
to the size of the blocks freed so far.

`ru_maxrss` does not work here: it never falls, so the first call would hide the second, and Linux
passes it from parent to child through fork and exec, so a large parent would hide the child. VmHWM
in /proc/self/status is the same number for this process alone, and writing 5 to
/proc/self/clear_refs resets it to the current size. Without /proc, memory is not measured.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from math import prod
from pathlib import Path

import torch
from checkout import BENCH

from suite.cases import Shape, Size, textured_pair
from suite.contestants import CONTESTANTS, Contestant
from suite.measure import Row, digits, progress
from suite.speed import BOTH, FORWARD, PASSES, SWEPT

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
MMAP_THRESHOLD = 2**20  # bytes
TIMEOUT = 300  # seconds per probe, including compilation


def memory(contestants: Sequence[Contestant], size: Size) -> list[Row]:
    """Rows with the bytes per element beyond the images, for each contestant and pass."""
    rows: list[Row] = []
    for contestant in contestants:
        if size.memory_brief and contestant.name not in SWEPT:
            continue
        for which in (BOTH,) if size.memory_brief else PASSES:
            progress(f"memory, {contestant.name}, {which}")
            row: Row = {
                "contestant": contestant.name,
                "pass": which,
                "shape": list(size.memory_shape),
            }
            try:
                row["bytes_per_element"] = _in_subprocess(
                    contestant.name, which, size.memory_shape, torch.get_num_threads()
                )
            except RuntimeError as error:
                row["skipped"] = str(error)
            rows.append(row)
    return rows


def probe(contestant: Contestant, which: str, shape: Shape) -> float:
    """Bytes per element that one call needs, measured in this process."""
    input, target = textured_pair(shape)
    passes = contestant.setup(input, target)
    call = passes.forward if which == FORWARD else passes.forward_backward
    call()
    CLEAR.write_text("5")
    before = _resident("VmRSS")
    call()
    return digits(max(0, _resident("VmHWM") - before) / prod(shape), 3)


def _resident(field: str) -> int:
    """VmRSS or VmHWM from /proc/self/status, in bytes."""
    for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(field + ":"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"{STATUS} has no {field}")


def _in_subprocess(name: str, which: str, shape: Shape, threads: int) -> float:
    if not CLEAR.exists():
        raise RuntimeError("requires /proc, as on Linux")
    command = [sys.executable, "-m", "suite.memory", name, which, *map(str, shape)]
    command += ["--threads", str(threads)]
    try:
        done = subprocess.run(
            command,
            cwd=BENCH,
            env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(MMAP_THRESHOLD)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"took more than {TIMEOUT} s") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        raise RuntimeError(last[:200])
    return float(done.stdout)


def main() -> None:
    """Run in the child process: print the bytes per element of one contestant's call."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=[c.name for c in CONTESTANTS])
    parser.add_argument("which", choices=PASSES)
    parser.add_argument("shape", type=int, nargs=4)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    (contestant,) = (c for c in CONTESTANTS if c.name == arguments.name)
    n, c, h, w = arguments.shape
    print(probe(contestant, arguments.which, (n, c, h, w)))


if __name__ == "__main__":
    main()
