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

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"
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

    # Of the whole; the rest is for starting, ending and writing. Kernels for one device take nvcc
    # a minute or two; tests and benchmarks have an order, and leave out what they do not reach.
    SHARES: ClassVar[dict[str, float]] = {
        "environment": 0.06,
        "build": 0.36,
        "tests": 0.29,
        "sanitizer": 0.09,
        "benchmarks": 0.18,
    }

    # Seconds, whatever the whole is: without it there is nothing to go on with.
    LEAST: ClassVar[dict[str, float]] = {"environment": 40.0}

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._start = monotonic()

    def elapsed(self) -> float:
        """Seconds since the check began."""
        return monotonic() - self._start

    def limit(self, phase: str) -> float:
        """What this phase may take from now on: all but the shares of the phases after it."""
        names = list(self.SHARES)
        after = sum(self.SHARES[name] for name in names[names.index(phase) + 1 :])
        ending = 1.0 - sum(self.SHARES.values())
        left = self._seconds * (1.0 - ending) - self.elapsed()
        return max(0.0, min(left, max(left - self._seconds * after, self.LEAST.get(phase, 0.0))))


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


def python_path() -> dict[str, str]:
    """The environment in which the package and `bench/` are found without being installed."""
    places = [str(ROOT), str(BENCH), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(place for place in places if place)}


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
