"""The results as one dictionary: collecting, writing, reading and searching them."""

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from suite import machine
from suite.cases import Size
from suite.contestants import select
from suite.errors import errors
from suite.features import features
from suite.figures import three
from suite.measure import Row, progress
from suite.memory import memory
from suite.peak import peak
from suite.roofline import roofline
from suite.speed import BOTH, equal_work, speed, sweep, thread_scaling
from suite.training_step import training_step

SCHEMA = 1
Results = dict[str, Any]


def collect(size: Size, only: Sequence[str] | None = None) -> Results:
    """Run the suite. only: prefixes of contestants' names; None runs all of them."""
    contestants, skipped = select(only, compiled=size.compiled)
    others = machine.OtherWork()
    highest = peak(size)
    memory_rows = memory(contestants, size)
    bytes_per_element = {
        row["contestant"]: row["bytes_per_element"]
        for row in memory_rows
        if row["pass"] == BOTH and "bytes_per_element" in row
    }
    speed_rows = speed(contestants, size)
    results: Results = {
        "schema": SCHEMA,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "size": size.name,
        "machine": machine.describe(),
        "versions": machine.versions(contestants),
        "skipped": skipped,
        "peak": highest,
        "speed": speed_rows,
        "features": features(size, only),
        "sweep": sweep(contestants, size, bytes_per_element),
        "equal_work": equal_work(contestants, size),
        "threads": thread_scaling(contestants, size),
        "training_step": training_step(size),
        "memory": memory_rows,
        "errors": errors(contestants),
        "roofline": roofline(speed_rows, highest),
    }
    busy = results["machine"]["other_work"] = others.cores()
    if busy is not None and busy > machine.BUSY:
        progress(f"WARNING: other processes kept {busy} cores busy; do not trust these times")
    return results


def write(results: Results, path: Path) -> None:
    """Write the file with one row per line, so that a diff shows which rows changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = []
    for key, value in results.items():
        if isinstance(value, list) and value:
            body = ",\n".join("    " + json.dumps(row) for row in value)
            parts.append(f"  {json.dumps(key)}: [\n{body}\n  ]")
        else:
            parts.append(f"  {json.dumps(key)}: {json.dumps(value)}")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def read(path: Path) -> Results:
    """Read a results file; raise ValueError if its schema is not the current one."""
    results: Results = json.loads(path.read_text(encoding="utf-8"))
    if results.get("schema") != SCHEMA:
        raise ValueError(f"{path} must have schema {SCHEMA}, got schema {results.get('schema')}")
    return results


def every(folder: Path) -> list[Results]:
    """All results in a folder, newest first by the date they record; skips runs of gpu_check."""
    found = [read(path) for path in sorted(folder.glob("*.json")) if not _of_gpu_check(path)]
    if not found:
        raise FileNotFoundError(f"{folder} has no results (*.json)")
    return sorted(found, key=lambda results: str(results["date"]), reverse=True)


def _of_gpu_check(path: Path) -> bool:
    """Whether this is a run of gpu_check; only those have phases, and gpu_report.py reads them."""
    return "phases" in json.loads(path.read_text(encoding="utf-8"))


def newest(folder: Path) -> Results:
    """The newest results in a folder."""
    return every(folder)[0]


def find(rows: Sequence[Row], **fields: Any) -> Row:
    """The first row with these values, or an empty row."""
    return next((r for r in rows if all(r.get(k) == v for k, v in fields.items())), {})


def contestants(results: Results) -> list[str]:
    """The names of all timed contestants, in the suite's order."""
    return list(dict.fromkeys(row["contestant"] for row in results["speed"]))


def shapes(results: Results) -> list[list[int]]:
    """All timed shapes, in the suite's order."""
    return [list(s) for s in dict.fromkeys(tuple(row["shape"]) for row in results["speed"])]


def milliseconds(row: Row) -> str:
    """A row's median to three digits, or a dash if it was not measured."""
    return three(1e3 * row["p50"]) if "p50" in row else "-"
