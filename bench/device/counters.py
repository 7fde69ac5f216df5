"""Hardware counters from Nsight Compute: ncu --set full --csv --page raw, one row per launch.

The metric names are those of the "Metrics Reference" in Nsight Compute's documentation. Metrics
that a release or a device does not support are null.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from device.phases import FAILED, PASSED, SKIPPED, TIMED_OUT, Job, Phase, run_all
from device.toolkit import find_tool

_STALL = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"
# The metrics to keep, by our name; the first available one is used. Stalls are in warps waiting for
# that reason per issued instruction.
METRICS: dict[str, tuple[str, ...]] = {
    "duration": ("gpu__time_duration.sum",),
    "registers": ("launch__registers_per_thread",),
    "waves": ("launch__waves_per_multiprocessor",),
    "issue_active_percent": (
        "smsp__issue_active.avg.pct_of_peak_sustained_active",
        "sm__inst_issued.avg.pct_of_peak_sustained_active",
    ),
    "warps_active_percent": ("sm__warps_active.avg.pct_of_peak_sustained_active",),
    "instructions": ("smsp__inst_executed.sum", "sm__inst_executed.sum"),
    **{
        f"stall_{name}": (_STALL.format(name),)
        for name in (
            "no_instruction",
            "short_scoreboard",
            "long_scoreboard",
            "barrier",
            "math_pipe_throttle",
            "branch_resolving",
        )
    },
    "bank_conflicts": (
        "l1tex__data_bank_conflicts_pipe_lsu.sum",
        "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum",
    ),
    "dram_read": ("dram__bytes_read.sum",),
    "dram_written": ("dram__bytes_write.sum",),
    "l2": ("lts__t_bytes.sum",),
    "cycles_slowest": ("sm__cycles_active.max",),
    "cycles_mean": ("sm__cycles_active.avg",),
}
# ncu chooses each unit by the magnitude of the value.
UNITS = {
    "ns": 1e-9, "nsecond": 1e-9, "us": 1e-6, "usecond": 1e-6, "ms": 1e-3, "msecond": 1e-3,
    "s": 1.0, "second": 1.0,
    "byte": 1.0, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9,
}  # fmt: skip
LAUNCHES = 12  # profiled per program


def run(device: str, sweep: Path | None, limit: float, folder: Path, out: Path) -> Phase:
    """Profile the sweep's kernels, then Triton's and other packages'; `out` gets the raw CSV."""
    if device == "cpu":
        return Phase("counters", SKIPPED, "not available on the CPU: ncu reads GPU counters")
    command = find_tool("ncu")
    if command is None:
        return Phase("counters", SKIPPED, "ncu was not found")
    # --clock-control none: leave the card's clocks as they are.
    ncu = [command, "--clock-control", "none", "--set", "full", "--csv", "--page", "raw",
           "--launch-count", str(LAUNCHES)]  # fmt: skip
    jobs = []
    if sweep is not None:
        jobs.append(Job("sweep", [*ncu, "-k", "regex:ssim_", str(sweep), "--only"]))
    others = [sys.executable, "-m", "device.launches", "--device", device]
    jobs.append(Job("others", [*ncu, "-k", "regex:ssim", *others]))
    programs = []
    with out.open("w", encoding="utf-8") as kept:
        for job in jobs:
            log = folder / f"{job.name}.csv"
            command_line = ["sh", "-c", 'log=$0; exec "$@" >"$log"', str(log), *job.command]
            share = limit / len(jobs)
            (ended,) = run_all([Job(job.name, command_line)], limit=share, folder=folder)
            text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            kept.write(f"==PROGRAM== {job.name}\n{text}")
            kernels = parse(text)
            row: dict[str, Any] = {"program": job.name, "state": ended.state, "kernels": kernels}
            if not kernels:
                row["output"] = (text[-1500:] + ended.output)[-2000:]
            programs.append(row)
    details = {"launches_at_most": LAUNCHES, "programs": programs}
    if sweep is None:
        details["left_out"] = "the CUDA kernels alone: no sweep program, make gpu-bundle builds it"
    read = [row for row in programs if row["kernels"]]
    if len(read) == len(programs):
        return Phase("counters", PASSED, details=details)
    names = ", ".join(row["program"] for row in programs if not row["kernels"])
    refused = [row for row in programs if "Failed to initialize" in row.get("output", "")]
    if refused:
        return Phase("counters", SKIPPED, "ncu cannot read this device's counters", details=details)
    status = TIMED_OUT if any(row["state"] != "ended" for row in programs) else FAILED
    return Phase("counters", status, f"no counters read from: {names}", details=details)


def parse(text: str) -> list[dict[str, Any]]:
    """Parse the launches of a raw page: a row of names, a row of units, a row per launch.

    Output of the program and of ncu itself ("==PROF==") may come before and between them.
    """
    lines = [line for line in text.splitlines() if line.startswith('"')]
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        return []
    names, *rows = csv.reader(lines[start:])
    if not rows:
        return []
    units = dict(zip(names, rows[0], strict=False))
    return [_launch(dict(zip(names, row, strict=False)), units) for row in rows[1:]]


def _launch(row: dict[str, str], units: dict[str, str]) -> dict[str, Any]:
    launch: dict[str, Any] = {
        "kernel": row.get("Kernel Name"),
        "grid": row.get("Grid Size"),
        "block": row.get("Block Size"),
    }
    for name, metrics in METRICS.items():
        launch[name] = _value(row, units, metrics)
    return launch


def _value(row: dict[str, str], units: dict[str, str], metrics: Sequence[str]) -> float | None:
    """The first available metric, in seconds, bytes, percent or counts."""
    for metric in metrics:
        try:
            value = float(row.get(metric, "").replace(",", ""))
        except ValueError:  # missing, or "n/a"
            continue
        return value * UNITS.get(units.get(metric, ""), 1.0)
    return None
