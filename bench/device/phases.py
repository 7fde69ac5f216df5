"""The time budget of the phases, and processes that are killed when theirs is used up."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any, ClassVar

from checkout import ROOT, python_path

TAIL = 4000  # characters kept from the end of a process's output

PASSED, FAILED, TIMED_OUT, SKIPPED = "passed", "failed", "timed out", "skipped"


@dataclass
class Phase:
    """The result of a phase. reason: why it did not pass; details: for the JSON file."""

    name: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    limit: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """The result without the details, which the file stores separately."""
        row = {"phase": self.name, "status": self.status, "seconds": round(self.seconds, 1)}
        row["limit"] = round(self.limit, 1)
        return {**row, "reason": self.reason} if self.reason else row


class Budget:
    """The seconds of the whole check. Time that a phase does not use goes to later phases."""

    # Seconds of a full run, most informative phases first. nvcc takes a minute or two to compile
    # the kernels for one device; with a bundle nothing is built, and other phases get that share.
    WEIGHTS: ClassVar[dict[str, float]] = {
        "environment": 20.0,
        "build": 200.0,
        "native": 40.0,
        "sanitizer": 30.0,
        "sweep": 45.0,
        "counters": 55.0,
        "timing": 130.0,
        "calls": 20.0,
        "training": 60.0,
        "autotune": 50.0,
        "suite": 110.0,
    }
    ENDING = 0.02  # share of the total reserved for starting, ending and writing
    # Minimum in seconds, whatever the total: without this phase no other can run.
    LEAST: ClassVar[dict[str, float]] = {"environment": 40.0}

    def __init__(self, seconds: float, names: Sequence[str] | None = None) -> None:
        self._seconds = (1.0 - self.ENDING) * seconds
        self._weights = {n: w for n, w in self.WEIGHTS.items() if names is None or n in names}
        self._start = monotonic()

    def elapsed(self) -> float:
        """Seconds since the check began."""
        return monotonic() - self._start

    def limit(self, phase: str) -> float:
        """The seconds that this phase may take from now on: all but the shares of later phases."""
        order = list(self.WEIGHTS)
        later = order[order.index(phase) + 1 :]
        after = sum(self._weights.get(name, 0.0) for name in later)
        reserved = self._seconds * after / sum(self._weights.values())
        left = self._seconds - self.elapsed()
        return max(0.0, min(left, max(left - reserved, self.LEAST.get(phase, 0.0))))


@dataclass(frozen=True)
class Job:
    """A process to run in the root of the checkout."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Ended:
    """How a job ended. state: "ended", "timed out" (and was killed) or "not started"."""

    name: str
    state: str = "not started"
    returncode: int | None = None
    seconds: float = 0.0
    output: str = ""


def ending(ended: Ended, details: dict[str, Any], explanation: str = "") -> Phase:
    """The result of a phase that passes if its process exits with status 0."""
    if ended.state == "ended" and ended.returncode == 0:
        return Phase(ended.name, PASSED, details=details)
    details.setdefault("output", ended.output)
    reason = explanation or ended.output[-300:]
    if ended.state != "ended":
        return Phase(ended.name, TIMED_OUT, f"{ended.state}: {reason}", details=details)
    return Phase(ended.name, FAILED, f"exit status {ended.returncode}: {reason}", details=details)


def run_all(jobs: Sequence[Job], *, limit: float, folder: Path, at_once: int = 1) -> list[Ended]:
    """Run the jobs in order, `at_once` in parallel; after `limit` seconds kill the remaining ones.

    Each job leads a process group, which is killed with it: a test may have started processes.
    """
    deadline = monotonic() + limit
    results = [Ended(job.name) for job in jobs]
    waiting = list(range(len(jobs)))
    running: dict[int, tuple[subprocess.Popen[bytes], float, Path]] = {}
    try:
        while running or (waiting and monotonic() < deadline):
            while waiting and len(running) < at_once and monotonic() < deadline:
                index = waiting.pop(0)
                log = (
                    folder
                    / f"{index}-{''.join(c if c.isalnum() else '-' for c in jobs[index].name)}"
                )
                with log.open("wb") as output:
                    process = subprocess.Popen(
                        jobs[index].command,
                        cwd=ROOT,
                        env={**os.environ, **python_path(), **jobs[index].environment},
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                running[index] = process, monotonic(), log
            for index, (process, started, log) in list(running.items()):
                over = monotonic() >= deadline
                if process.poll() is None and not over:
                    continue
                state = "ended" if process.poll() is not None else "timed out"
                _end(process)
                del running[index]
                results[index] = Ended(
                    jobs[index].name,
                    state,
                    process.returncode if state == "ended" else None,
                    round(monotonic() - started, 2),
                    _tail(log),
                )
            sleep(0.02)
    finally:
        for process, _, _ in running.values():  # left over only if the check itself is interrupted
            _end(process)
    return results


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # the group is already gone
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace")
    return text if len(text) <= TAIL else "..." + text[-TAIL:]
