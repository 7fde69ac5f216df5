"""The test suite on the device: one process per file, several in parallel.

Each file has its own process because an illegal access destroys the CUDA context of its process:
every later test would fail. This also uses all processors if pytest-xdist is not installed.
"""

import importlib.util
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from checkout import ROOT

from device.phases import FAILED, PASSED, TIMED_OUT, Ended, Job, Phase, run_all

INI = Path(__file__).with_name("pytest.ini")
# The slowest files run first. Each test of these files has its own process.
SPLIT = ("tests/test_fuzz.py",)
SLOWEST = (
    "tests/test_fuzz.py",
    "tests/test_gradients.py",
    "tests/test_ops.py",
    "tests/test_compile.py",
    "tests/test_properties.py",
    "tests/cuda",
)
# Files that also test the Triton kernels on the device. They run last, because each compiles dozens
# of variants.
TRITON = (
    "tests/test_accuracy.py",
    "tests/test_levels.py",
    "tests/test_precision.py",
    "tests/test_determinism.py",
    "tests/cuda",
)
OF_TRITON = " with triton"  # appended to the name of such a file
# Tests of the native kernels alone, run first: kernels that fail them are not worth timing.
FIRST = (
    "tests/cuda/test_cuda_results.py",
    "tests/cuda/test_cuda_streams.py",
    "tests/cuda/test_cuda_graphs.py",
)
QUICK = ("tests/test_range_check.py", "tests/cuda")
# Folders whose tests create no tensor on the device.
ELSEWHERE = {
    "bench": "tests the benchmarks themselves",
    "cpu": "tests the CPU kernels alone",
    "cuda_host": "runs the source of the CUDA kernels on the CPU",
    "install": "tests the installation of the package",
    "mutate": "injects errors into copies of the CPU kernels",
    "python": "tests the training program on the CPU",
    "triton": "interprets the Triton kernels on the CPU and compiles them for every target",
}
FAILURES = 20  # reported per file
XDIST = 3  # processes for each file with Triton
PER_TEST = 120  # seconds, if pytest-timeout is installed
MISSING = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")


def run(
    device: str,
    folder: Path,
    limit: float,
    *,
    first: bool = False,
    quick: bool = False,
    chosen: Sequence[str] | None = None,
) -> Phase:
    """Run the `chosen` files, or all that use the device; a quick run takes two entries.

    first: only the short tests of the native kernels.
    """
    name = "native" if first else "suite"
    units = list(FIRST if first else chosen or (QUICK if quick else everything()))
    processors = os.cpu_count() or 1
    at_once = max(1, min(8, processors // 2)) if device != "cpu" else min(2, processors)
    threads = str(max(1, processors // at_once))
    environment = {"LAMP_KERNELS_TEST_DEVICE": device, "OMP_NUM_THREADS": threads}
    if device != "cpu" and not (first or quick or chosen):
        units += [f"{file}{OF_TRITON}" for file in TRITON]
    reports = [folder / f"{index}.jsonl" for index in range(len(units))]
    jobs = [
        Job(
            unit,
            _command(unit, report),
            {**environment, "LAMP_KERNELS_TEST_BACKENDS": _backends_of(unit, first=first)},
        )
        for unit, report in zip(units, reports, strict=True)
    ]
    ended = run_all(jobs, limit=limit, folder=folder, at_once=at_once)
    files = [outcome(*pair) for pair in zip(ended, reports, strict=True)]
    totals = Counter[str]()
    for file in files:
        totals.update({k: file[k] for k in ("passed", "failed", "skipped", "without_package")})
    left_out = [] if first or quick or chosen else _elsewhere()
    details = {
        "device": device, "at_once": at_once, **totals, "files": files, "left_out": left_out,
    }  # fmt: skip
    failed = [file["file"] for file in files if file["status"] in ("failed", "crashed")]
    unfinished = [file["file"] for file in files if file["status"] in ("timed out", "not started")]
    if failed:
        return Phase(name, FAILED, "failed: " + ", ".join(failed), details=details)
    if unfinished:
        return Phase(name, TIMED_OUT, "not finished: " + ", ".join(unfinished), details=details)
    return Phase(name, PASSED, details=details)


def _backends_of(unit: str, *, first: bool) -> str:
    """The backends that the tests of a unit use."""
    if first or (unit.startswith("tests/cuda") and not unit.endswith(OF_TRITON)):
        return "native"
    return "triton" if unit.endswith(OF_TRITON) else "native,reference"


def everything() -> list[str]:
    """The test files that run on any device, and those that need CUDA."""
    units: list[str] = []
    for path in [*sorted(ROOT.glob("tests/test_*.py")), *sorted(ROOT.glob("tests/cuda/test_*.py"))]:
        name = path.relative_to(ROOT).as_posix()
        tests = re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        units += [f"{name}::{test}" for test in tests] if name in SPLIT else [name]

    def place(unit: str) -> int:
        return next((i for i, name in enumerate(SLOWEST) if unit.startswith(name)), len(SLOWEST))

    return sorted(units, key=place)


def _elsewhere() -> list[dict[str, str]]:
    folders = sorted({path.parent.name for path in ROOT.glob("tests/*/test_*.py")} - {"cuda"})
    return [
        {
            "folder": f"tests/{name}",
            "reason": ELSEWHERE.get(name, "creates no tensor on the device"),
        }
        for name in folders
    ]


def _command(unit: str, report: Path) -> list[str]:
    shared = unit.endswith(OF_TRITON) and importlib.util.find_spec("xdist") is not None
    command = [sys.executable, "-m", "pytest", "-c", str(INI), "--rootdir", str(ROOT), "-q"]
    command += ["-p", "device.reporter", "--gpu-report", str(report)]
    # Disable plugins that change how tests run or that cause warnings.
    for plugin in ("cacheprovider", "benchmark", *(() if shared else ("xdist",))):
        command += ["-p", f"no:{plugin}"]
    if shared:  # most of the time goes to Triton compiling one variant after another
        command += ["-n", str(XDIST)]
    if importlib.util.find_spec("pytest_timeout") is not None:
        command += ["-o", f"timeout={PER_TEST}"]
    return [*command, unit.removesuffix(OF_TRITON)]


def outcome(ended: Ended, report: Path) -> dict[str, Any]:
    """The result of a file, from the lines that its process wrote and from how it ended."""
    text = report.read_text(encoding="utf-8") if report.exists() else ""
    lines = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
    counts = Counter(line["outcome"] for line in lines if line["what"] == "test")
    skips = Counter(line["text"] for line in lines if line.get("outcome") == "skipped")
    bad = [line for line in lines if line.get("outcome") == "failed"]
    missing = [line for line in bad if MISSING.search(line["text"])]
    failures = [line for line in bad if line not in missing]
    started = [line["test"] for line in lines if line["what"] == "start"]
    done = {line["test"] for line in lines if line["what"] == "test"}
    file: dict[str, Any] = {
        "file": ended.name,
        "status": _status(ended, lines, bool(failures), bool(missing)),
        "seconds": ended.seconds,
        "passed": counts["passed"],
        "failed": len(failures),
        "skipped": sum(skips.values()),
        "without_package": len(missing),
    }
    if skips:
        file["skips"] = dict(skips)
    if missing:
        found = {match[1] for line in missing for match in MISSING.finditer(line["text"])}
        file["missing_packages"] = sorted(found)
    if failures:
        file["failures"] = [{"test": f["test"], "text": f["text"]} for f in failures[:FAILURES]]
    if file["status"] in ("crashed", "timed out"):
        file["last"] = next((test for test in reversed(started) if test not in done), None)
        file["output"] = ended.output
    return file


def _status(ended: Ended, lines: list[dict[str, Any]], failures: bool, missing: bool) -> str:
    if ended.state != "ended":
        return ended.state
    if not any(line["what"] == "end" for line in lines):
        return "crashed"
    if failures:
        return "failed"
    # 0: passed. 5: no test collected. 2: collection interrupted, here by a missing package.
    if ended.returncode not in ((0, 1, 2, 5) if missing else (0, 5)):
        return "crashed"
    if missing:
        return "without a package"
    done = {line["outcome"] for line in lines if line["what"] == "test"}
    return "skipped" if done == {"skipped"} else "passed"
