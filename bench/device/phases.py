"""Time for the phases, and processes that cannot take more of it than they were given."""

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

TAIL = 4000  # characters of a process's output that are kept

PASSED, FAILED, OVERRAN, LEFT_OUT = "passed", "failed", "overran", "left out"


@dataclass
class Phase:
    """What became of a phase. reason: of whatever is not "passed"; details: for the JSON file."""

    name: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    limit: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Without the details, which have a place of their own in the file."""
        row = {"phase": self.name, "status": self.status, "seconds": round(self.seconds, 1)}
        row["limit"] = round(self.limit, 1)
        return {**row, "reason": self.reason} if self.reason else row


class Budget:
    """The seconds of the whole check. What a phase leaves over goes to those after it."""

    # Seconds of a full run, in the order of what is most worth knowing. Kernels for one device take
    # nvcc a minute or two; with a bundle there is nothing to build, and its share is spread.
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
    ENDING = 0.02  # of the whole, for starting, ending and writing
    # Seconds, whatever the whole is: without it there is nothing to go on with.
    LEAST: ClassVar[dict[str, float]] = {"environment": 40.0}

    def __init__(self, seconds: float, names: Sequence[str] | None = None) -> None:
        self._seconds = (1.0 - self.ENDING) * seconds
        self._weights = {n: w for n, w in self.WEIGHTS.items() if names is None or n in names}
        self._start = monotonic()

    def elapsed(self) -> float:
        """Seconds since the check began."""
        return monotonic() - self._start

    def limit(self, phase: str) -> float:
        """What this phase may take from now on: all but the shares of the phases after it."""
        order = list(self.WEIGHTS)
        later = order[order.index(phase) + 1 :]
        after = sum(self._weights.get(name, 0.0) for name in later)
        reserved = self._seconds * after / sum(self._weights.values())
        left = self._seconds - self.elapsed()
        return max(0.0, min(left, max(left - reserved, self.LEAST.get(phase, 0.0))))


@dataclass(frozen=True)
class Job:
    """A process to run in the root of the project."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Ended:
    """How a job ended. state: "ended", "overran" (and was killed) or "not started"."""

    name: str
    state: str = "not started"
    returncode: int | None = None
    seconds: float = 0.0
    output: str = ""


def ending(ended: Ended, details: dict[str, Any], besides: str = "") -> Phase:
    """The phase of a process that passes where its exit status is 0."""
    if ended.state == "ended" and ended.returncode == 0:
        return Phase(ended.name, PASSED, details=details)
    details.setdefault("output", ended.output)
    told = besides or ended.output[-300:]
    if ended.state != "ended":
        return Phase(ended.name, OVERRAN, f"{ended.state}: {told}", details=details)
    return Phase(ended.name, FAILED, f"exit status {ended.returncode}: {told}", details=details)


def run_all(jobs: Sequence[Job], *, limit: float, folder: Path, at_once: int = 1) -> list[Ended]:
    """Run the jobs in their order, `at_once` side by side; after `limit` seconds kill what is left.

    Each is the leader of a process group, which ends with it: a test may have started others.
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
                state = "ended" if process.poll() is not None else "overran"
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
        for process, _, _ in running.values():  # where the check itself is interrupted
            _end(process)
    return results


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it and its own are gone
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace")
    return text if len(text) <= TAIL else "..." + text[-TAIL:]
