"""The machine: what it is, and what else it does."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import torch

from lamp_kernels.backends import BACKENDS, native
from suite.contestants import Contestant

STAT = Path("/proc/stat")
BUSY = 0.2  # cores; what a desktop or a container's own services take stays below


def describe() -> dict[str, str | int | float]:
    """Processor, cores, threads, memory and system."""
    return {
        "cpu": _cpu(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "kernels": BACKENDS["native"].unavailable_reason() or native.instruction_set(),
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
    return {**dict(sorted(found.items())), "source": _source()}


def _source() -> str:
    """The commit that was measured, with "-dirty" where the sources differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "not a clone"
    return done.stdout.strip()


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
