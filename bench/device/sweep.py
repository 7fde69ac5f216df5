"""The sweep of tilings: every line of the stand-alone program, the clocks beside it, the quickest.

A tiling whose gradient is not that of the default one is a fault of the kernels, not a slow tiling.
"""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from device.phases import FAILED, LEFT_OUT, PASSED, Job, Phase, ending, run_all

LIMIT = 1e-5  # relative L2 distance; other tilings add in another order, no more
QUERY = "timestamp,clocks.sm,clocks.mem,power.draw,temperature.gpu,clocks_event_reasons.active"
PERIOD = 200  # ms between two samples of the clocks

Line = dict[str, Any]


def run(device: str, program: Path | None, limit: float, folder: Path, out: Path) -> Phase:
    """Run it to its end or to the limit; `out` gets its lines as they come."""
    if device == "cpu":
        return Phase("sweep", LEFT_OUT, "not on this device: it runs CUDA kernels")
    if program is None:
        return Phase("sweep", LEFT_OUT, "no sweep program: make gpu-bundle builds it")
    job = Job("sweep", ["sh", "-c", 'exec "$0" >"$1"', str(program), str(out)])
    with clocks(folder / "clocks.csv") as sampled:
        (ended,) = run_all([job], limit=limit, folder=folder)
    lines, problems = read(out)
    wrong = [line for line in lines if not line.get("error", 0.0) <= LIMIT]  # NaN is wrong, too
    details = {
        "tilings": len(lines),
        "problems": problems,
        "wrong": wrong,
        "best": best(lines),
        "clocks": sampled(),
    }
    phase = ending(ended, details)
    if wrong:
        reason = f"{len(wrong)} tilings whose gradient differs from the default one's"
        return Phase("sweep", FAILED, reason, details=details)
    if phase.status == PASSED and not lines:
        return Phase("sweep", FAILED, "it measured nothing", details=details)
    return phase


def read(path: Path) -> tuple[list[Line], list[str]]:
    """The lines that were measured, and what the program says it left out.

    The last line may be cut off where the program was ended.
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
    """Of each shape, pass and border: the default tiling and the quickest of each design, cold."""
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
    """Sample the clocks beside what runs inside; yields a function that gives the samples."""
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
