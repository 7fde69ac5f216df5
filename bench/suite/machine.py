"""The machine: what it is, and what it can do at most."""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import torch

from suite.cases import Size
from suite.contestants import Contestant
from suite.measure import Entry, interleave, progress

STAT = Path("/proc/stat")
BUSY = 0.2  # cores; what a desktop or a container's own services take stays below
COPIED = 64 * 2**20  # floats; far more than any cache holds


def describe() -> dict[str, str | int | float]:
    """Processor, cores, threads, memory and system."""
    return {
        "cpu": _cpu(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


class OtherWork:
    """How many cores other processes keep busy, on average since it was made.

    Two threads that share a core with somebody else wait for each other in every operator: torch
    was seen to take 50 times as long. Figures from such a run are worth nothing, so it is told.
    """

    def __init__(self) -> None:
        self._start = perf_counter(), _busy_seconds(), _own_seconds()

    def cores(self) -> float | None:
        """The average, or None where the system does not tell."""
        start, busy, own = self._start
        now_busy = _busy_seconds()
        if busy is None or now_busy is None:
            return None
        elapsed = max(perf_counter() - start, 1e-9)
        return round(max(0.0, now_busy - busy - (_own_seconds() - own)) / elapsed, 2)


def versions(contestants: Sequence[Contestant]) -> dict[str, str]:
    """The version of every package that takes part, torch and numpy included."""
    names = {"torch", *(contestant.distribution for contestant in contestants)}
    found = {c.distribution: c.version for c in contestants if c.version is not None}
    for name in (*names, "numpy"):
        try:
            found.setdefault(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            continue
    return dict(sorted(found.items()))


def peak(size: Size) -> dict[str, float | str]:
    """The measured peak: multiply-adds per second of a matrix product, bytes per second of a copy.

    Both by torch in float32, on the threads that the contestants use, at the p10 of the times:
    what the machine can do when nothing disturbs it.
    """
    progress("peak of the machine")
    side = size.matmul_side
    a, b = torch.rand(2, side, side).unbind()
    source = torch.rand(COPIED)
    destination = torch.empty_like(source).zero_()
    product = torch.empty(side, side)
    rows = interleave(
        [
            Entry({"what": "matmul"}, lambda: torch.mm(a, b, out=product)),
            Entry({"what": "copy"}, lambda: destination.copy_(source)),
        ],
        budget=3.0,
        min_rounds=5,
        max_rounds=20,
    )
    seconds = {row["what"]: row["p10"] for row in rows}
    return {
        "multiply_adds_per_s": float(f"{side**3 / seconds['matmul']:.4g}"),
        "copy_bytes_per_s": float(f"{2 * 4 * COPIED / seconds['copy']:.4g}"),
        "how": (
            f"torch, float32, {torch.get_num_threads()} threads: matrix product of side {side}; "
            f"copy of {4 * COPIED // 2**20} MiB, read and written bytes counted"
        ),
    }


def _own_seconds() -> float:
    """Processor time of this process and of its finished children."""
    return sum(os.times()[:4])


def _busy_seconds() -> float | None:
    """Processor time of the whole machine, idling and waiting for disks not counted."""
    if not STAT.exists():
        return None
    user, nice, system, _, _, irq, softirq, *_ = map(
        int, STAT.read_text(encoding="ascii").splitlines()[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
