"""The sweep of tilings: all lines of the stand-alone program, the GPU clocks, the fastest tilings.

A tiling whose gradient differs from that of the default tiling is a bug in the kernels.
"""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from device.phases import FAILED, PASSED, SKIPPED, Job, Phase, ending, run_all

LIMIT = 1e-5  # relative L2 distance; tilings differ only in the order of their additions
QUERY = "timestamp,clocks.sm,clocks.mem,power.draw,temperature.gpu,clocks_event_reasons.active"
PERIOD = 200  # ms between samples of the clocks

Line = dict[str, Any]


def run(device: str, program: Path | None, limit: float, folder: Path, out: Path) -> Phase:
    """Run the program until it ends or the time is up; `out` receives its lines as they come."""
    if device == "cpu":
        return Phase("sweep", SKIPPED, "not available on the CPU: it runs CUDA kernels")
    if program is None:
        return Phase("sweep", SKIPPED, "no sweep program: make gpu-bundle builds it")
    job = Job("sweep", ["sh", "-c", 'exec "$0" >"$1"', str(program), str(out)])
    with clocks(folder / "clocks.csv") as sampled:
        (ended,) = run_all([job], limit=limit, folder=folder)
    lines, problems = read(out)
    wrong = [line for line in lines if not line.get("error", 0.0) <= LIMIT]  # also true for NaN
    details = {
        "tilings": len(lines),
        "problems": problems,
        "wrong": wrong,
        "best": best(lines),
        "clocks": sampled(),
    }
    phase = ending(ended, details)
    if wrong:
        reason = f"{len(wrong)} tilings have a gradient that differs from the default tiling's"
        return Phase("sweep", FAILED, reason, details=details)
    if phase.status == PASSED and not lines:
        return Phase("sweep", FAILED, "the program measured nothing", details=details)
    return phase


def read(path: Path) -> tuple[list[Line], list[str]]:
    """The measured lines, and the problems that the program reports.

    The last line may be cut off if the program was killed.
    """
    lines: list[Line] = []
    problems: list[str] = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            problems.append(f"not JSON: {line[:100]}")
            continue
        if "problem" in found:
            problems.append(found["problem"])
        else:
            lines.append(found)
    return lines, problems


def best(lines: Sequence[Line]) -> list[Line]:
    """For each shape, pass and border: the default tiling and the fastest of each design, cold."""
    rows: list[Line] = []
    cases: dict[str, list[Line]] = {}
    for line in lines:
        key = json.dumps([line.get(k) for k in ("shape", "gradients", "border")])
        cases.setdefault(key, []).append(line)
    for case in cases.values():
        own = next((line for line in case if line.get("own")), None)
        chosen = [own] if own else []
        for design in dict.fromkeys(line.get("design") for line in case):
            chosen.append(
                min((x for x in case if x.get("design") == design), key=lambda x: x["cold_ms"])
            )
        for line in chosen:
            gain = None if own is None else round(own["cold_ms"] / line["cold_ms"], 3)
            rows.append({**line, "default_over_this": gain})
    return rows


@contextlib.contextmanager
def clocks(path: Path) -> Iterator[Any]:
    """Sample the GPU clocks meanwhile; yields a function that returns the samples."""
    program = shutil.which("nvidia-smi")
    if program is None:
        yield lambda: {"skipped": "nvidia-smi was not found"}
        return
    with path.open("w", encoding="utf-8") as file:
        command = [program, f"--query-gpu={QUERY}", "--format=csv", f"--loop-ms={PERIOD}"]
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield lambda: {"period_ms": PERIOD, "csv": path.read_text(encoding="utf-8").splitlines()}
    finally:
        process.kill()
        process.wait()
