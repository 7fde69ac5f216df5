"""Build, test and measure on a machine with an NVIDIA GPU, within a few minutes, offline.

python bench/gpu_check.py --out runs/gpu/results.json

It takes the Python that it is run with as it is: PyTorch, pytest and hypothesis have to be there,
and for the build nvcc and a C++ compiler. Phases, each within its share of the time and none left
out without a word:

    environment   what the machine is
    build         the kernels, for this device alone, in place
    tests         the test suite with its tensors on the device, and what only CUDA has
    sanitizer     NVIDIA's compute-sanitizer on small shapes, where it is installed
    benchmarks    this library, torch.compile, plain PyTorch and other packages that are installed

A phase that overruns is ended, and the next one begins. The file is written after each. The exit
status is 0 if every phase passed or was left out for a reason that is no fault.
"""

import argparse
import datetime
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from on_gpu import sanitizer, table, testing
from on_gpu.phases import (
    FAILED,
    LEFT_OUT,
    OVERRAN,
    PASSED,
    ROOT,
    Budget,
    Ended,
    Job,
    Phase,
    run_all,
)

SCHEMA = 1


class Check:
    """The phases in their order, and what they found."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self._arguments = arguments
        self._device: str = arguments.device
        self._folder = folder
        self._budget = Budget(60.0 * arguments.minutes)
        self.report: dict[str, Any] = {
            "schema": SCHEMA,
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "device": self._device,
            "minutes": arguments.minutes,
            "quick": arguments.quick,
            "phases": [],
        }

    def run(self) -> bool:
        """All phases; whether none failed and none overran."""
        phases: dict[str, Callable[[float, Path], Phase]] = {
            "environment": self._environment,
            "build": self._build,
            "tests": self._tests,
            "sanitizer": self._sanitizer,
            "benchmarks": self._benchmarks,
        }
        good = True
        for name, function in phases.items():
            phase = self._phase(name, function)
            good = good and phase.status in (PASSED, LEFT_OUT)
            self.report["phases"].append(phase.summary())
            if phase.details:
                self.report[name] = phase.details
            write(self.report, self._arguments.out)
            said = f"{name}: {phase.status} {phase.reason}".rstrip()
            print(f"[{self._budget.elapsed():4.0f} s] {said}", file=sys.stderr, flush=True)
        return good

    def _phase(self, name: str, function: Callable[[float, Path], Phase]) -> Phase:
        begun, limit = self._budget.elapsed(), self._budget.limit(name)
        folder = self._folder / name
        folder.mkdir()
        problem = self.report.get("environment", {}).get("problem")
        if problem:
            phase = Phase(name, LEFT_OUT, problem)
        else:
            print(f"[{begun:4.0f} s] {name}, {limit:.0f} s at most", file=sys.stderr, flush=True)
            try:
                phase = function(limit, folder)
            except Exception:  # a fault of the check must not end it
                phase = Phase(name, FAILED, traceback.format_exc(limit=-3))
        phase.name, phase.limit, phase.seconds = name, limit, self._budget.elapsed() - begun
        return phase

    def _environment(self, limit: float, folder: Path) -> Phase:
        out = folder / "environment.json"
        ended = self._program("environment", out, limit, folder)
        details = _read(out)
        if ended.returncode != 0 or not details:
            told = ended.output[-500:] or ended.state
            details.setdefault("problem", f"the device cannot be used: {told}")
        return _phase_of(ended, details, details.get("problem", ""))

    def _build(self, limit: float, folder: Path) -> Phase:
        if self._arguments.no_build:
            return Phase(
                "build", LEFT_OUT, "--no-build", details={"report": self._installed(folder)}
            )
        environment = {"LAMP_KERNELS_NATIVE": "1", "LAMP_KERNELS_CUDA": "0"}
        environment["MAX_JOBS"] = str(len(os.sched_getaffinity(0)))
        if self._device != "cpu":
            devices = self.report["environment"]["devices"]
            targets = sorted({device["capability"] for device in devices})
            environment |= {"LAMP_KERNELS_CUDA": "1", "TORCH_CUDA_ARCH_LIST": ";".join(targets)}
        # --force: what was built for other targets counts as up to date.
        command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", "--force"]
        (ended,) = run_all([Job("build", command, environment)], limit=limit, folder=folder)
        details = {
            "command": " ".join(["python", *command[1:]]),
            "environment": environment,
            "failed": ended.returncode != 0,
            "output": ended.output,
            "report": self._installed(folder),
        }
        return _phase_of(ended, details, "what was built before is what is tested and measured")

    def _installed(self, folder: Path) -> str:
        """What the package says of itself."""
        program = "from lamp_kernels import backends; print(backends.report())"
        job = Job("installed", [sys.executable, "-c", program])
        (ended,) = run_all([job], limit=30.0, folder=folder)
        return ended.output

    def _tests(self, limit: float, folder: Path) -> Phase:
        return testing.run(
            self._device,
            folder,
            limit,
            quick=self._arguments.quick,
            chosen=self._arguments.tests,
        )

    def _sanitizer(self, limit: float, folder: Path) -> Phase:
        return sanitizer.run(self._device, folder, limit)

    def _benchmarks(self, limit: float, folder: Path) -> Phase:
        out = folder / "benchmarks.json"
        flags = ["--seconds", f"{0.9 * limit:.0f}"]  # the rest is for its start and its last round
        if self._arguments.quick:
            flags.append("--quick")
        ended = self._program("timing", out, limit, folder, flags)
        details = _read(out)
        phase = _phase_of(ended, details)
        ours = [
            row for row in details.get("speed", []) if row["contestant"] == "lamp_kernels native"
        ]
        skipped = [row["skipped"] for row in ours if "skipped" in row]
        if phase.status == PASSED and (skipped or not ours):
            phase.status = FAILED if self._device != "cpu" else PASSED
            reasons = [row["reason"] for row in details["skipped"] if "native" in row["contestant"]]
            phase.reason = f"native was not measured: {', '.join({*skipped, *reasons})}"
        return phase

    def _program(
        self, name: str, out: Path, limit: float, folder: Path, flags: list[str] | None = None
    ) -> Ended:
        command = [sys.executable, "-m", f"on_gpu.{name}", *(flags or [])]
        command += ["--device", self._device, "--out", str(out)]
        (ended,) = run_all([Job(name, command)], limit=limit, folder=folder)
        return ended


def _phase_of(ended: Ended, details: dict[str, Any], besides: str = "") -> Phase:
    if ended.state == "ended" and ended.returncode == 0:
        return Phase(ended.name, PASSED, details=details)
    details.setdefault("output", ended.output)
    told = besides or ended.output[-300:]
    if ended.state != "ended":
        return Phase(ended.name, OVERRAN, f"{ended.state}: {told}", details=details)
    return Phase(ended.name, FAILED, f"exit status {ended.returncode}: {told}", details=details)


def _read(path: Path) -> dict[str, Any]:
    """What a program wrote, as far as it came: it may have been ended in the middle of a file."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def write(report: dict[str, Any], path: Path) -> None:
    """Write the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> int:
    """Run the check, print the table, and say by the exit status whether all is well."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu" / "results.json")
    parser.add_argument("--minutes", type=float, default=9.0, help="altogether (%(default)s)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="a few tests and small shapes")
    parser.add_argument("--no-build", action="store_true", help="take what was built before")
    parser.add_argument("--tests", nargs="+", metavar="FILE", help="these instead of all")
    arguments = parser.parse_args()
    if arguments.minutes <= 0:
        parser.error(f"--minutes must be positive, got {arguments.minutes}")
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        check = Check(arguments, Path(folder))
        good = check.run()
    print(table.text(check.report))
    print(f"\nwritten: {arguments.out}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
