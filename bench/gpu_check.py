"""Test and measure on a machine with an NVIDIA GPU, in a few minutes and offline.

python bench/gpu_check.py --out runs/gpu
python bench/gpu_check.py --device cpu --quick    a rehearsal on a machine without a GPU

If `make gpu-bundle` wrote a bundle, nothing is built here; otherwise nvcc and a C++ compiler are
required, in addition to PyTorch, pytest and hypothesis. Each step gets a share of the time, and a
skipped step reports its reason:

    environment   describes the machine
    build         installs the bundle's libraries, or builds the kernels for this device only
    native        the tests that most quickly show whether the native kernels are correct
    sanitizer     NVIDIA's compute-sanitizer, if installed
    sweep         all tilings of the sweep program, while recording the GPU clocks
    counters      hardware counters from Nsight Compute, if installed
    timing        this library, torch.compile, plain PyTorch and other packages, on the device
    calls         wall-clock time of calls in a loop, eager and replayed from a CUDA graph
    training      a training step of an autoencoder
    autotune      the tiles that Triton autotuning selects
    suite         the rest of the test suite, native before Triton

`--steps` selects some of them. A step that exceeds its time is killed, and the next one starts. The
output folder receives results.json, rewritten after each step; sweep.jsonl and counters.csv, the
raw data; and table.txt. The exit status is 0 if no step failed or timed out; some may be skipped.
"""

import argparse
import datetime
import importlib.util
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from checkout import ROOT
from device import counters, sanitizer, sweep, table, testing
from device.bundle import FOLDER, Bundle
from device.phases import (
    FAILED,
    PASSED,
    SKIPPED,
    Budget,
    Ended,
    Job,
    Phase,
    ending,
    run_all,
)

SCHEMA = 2


class Check:
    """Runs the steps in order and collects their results."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self._arguments = arguments
        self._device: str = arguments.device
        self._folder = folder
        self._out: Path = arguments.out
        self._bundle = Bundle.find(arguments.bundle)
        self._sweep_program = self._bundle.sweep if self._bundle else None
        # The environment step always runs: the others need to know about the device.
        chosen = [s for s in Budget.WEIGHTS if s == "environment" or s in arguments.steps]
        weighted = [s for s in chosen if s != "build" or not (self._bundle or arguments.no_build)]
        self._steps = chosen
        self._budget = Budget(60.0 * arguments.minutes, weighted)
        self.report: dict[str, Any] = {
            "schema": SCHEMA,
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "device": self._device,
            "minutes": arguments.minutes,
            "quick": arguments.quick,
            "phases": [],
        }

    def run(self) -> bool:
        """Run all steps; return whether none failed or timed out."""
        if self._bundle:
            places = [*self._bundle.unpack(self._folder / "packages"), os.environ.get("PYTHONPATH")]
            os.environ["PYTHONPATH"] = os.pathsep.join(place for place in places if place)
        good = True
        for name in Budget.WEIGHTS:
            phase = self._phase(name, getattr(self, f"_{name}"))
            good = good and phase.status in (PASSED, SKIPPED)
            self.report["phases"].append(phase.summary())
            if phase.details:
                self.report[name] = phase.details
            write(self.report, self._out)
            said = f"{name}: {phase.status} {phase.reason}".rstrip()
            print(f"[{self._budget.elapsed():4.0f} s] {said}", file=sys.stderr, flush=True)
        return good

    def _phase(self, name: str, function: Callable[[float, Path], Phase]) -> Phase:
        if name not in self._steps:
            return Phase(name, SKIPPED, "not selected by --steps")
        begun, limit = self._budget.elapsed(), self._budget.limit(name)
        folder = self._folder / name
        folder.mkdir()
        problem = self.report.get("environment", {}).get("problem")
        if problem:
            phase = Phase(name, SKIPPED, problem)
        else:
            print(f"[{begun:4.0f} s] {name}, at most {limit:.0f} s", file=sys.stderr, flush=True)
            try:
                phase = function(limit, folder)
            except Exception:  # a bug in one step must not end the check
                phase = Phase(name, FAILED, traceback.format_exc(limit=-3))
        phase.name, phase.limit, phase.seconds = name, limit, self._budget.elapsed() - begun
        return phase

    def _environment(self, limit: float, folder: Path) -> Phase:
        out = folder / "environment.json"
        ended = self._program("environment", out, limit, folder)
        details = _read(out)
        if ended.returncode != 0 or not details:
            output = ended.output[-500:] or ended.state
            details.setdefault("problem", f"the device cannot be used: {output}")
        return ending(ended, details, details.get("problem", ""))

    def _build(self, limit: float, folder: Path) -> Phase:
        if self._bundle:
            installed = self._bundle.install(ROOT / "lamp_kernels")
            found = {"bundle": installed, "report": self._installed(folder)}
            return Phase("build", PASSED, details=found)
        if self._arguments.no_build:
            return Phase(
                "build", SKIPPED, "--no-build", details={"report": self._installed(folder)}
            )
        environment = {"LAMP_KERNELS_NATIVE": "1", "LAMP_KERNELS_CUDA": "0"}
        environment["MAX_JOBS"] = str(len(os.sched_getaffinity(0)))
        if self._device != "cpu":
            devices = self.report["environment"]["devices"]
            targets = sorted({device["capability"] for device in devices})
            environment |= {"LAMP_KERNELS_CUDA": "1", "TORCH_CUDA_ARCH_LIST": ";".join(targets)}
        # --force: otherwise a build for other targets counts as up to date.
        command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", "--force"]
        (ended,) = run_all([Job("build", command, environment)], limit=limit, folder=folder)
        details: dict[str, Any] = {
            "command": " ".join(["python", *command[1:]]),
            "environment": environment,
            "failed": ended.returncode != 0,
            "output": ended.output,
            "report": self._installed(folder),
        }
        return ending(ended, details, "testing and measuring the previous build instead")

    def _installed(self, folder: Path) -> str:
        """The package's own report on its backends."""
        program = "from lamp_kernels import backends; print(backends.report())"
        job = Job("installed", [sys.executable, "-c", program])
        (ended,) = run_all([job], limit=30.0, folder=folder)
        return ended.output

    def _native(self, limit: float, folder: Path) -> Phase:
        if self._device == "cpu":
            return Phase("native", SKIPPED, "not available on the CPU: tests the CUDA kernels")
        return testing.run(self._device, folder, limit, first=True)

    def _sanitizer(self, limit: float, folder: Path) -> Phase:
        return sanitizer.run(self._device, folder, limit, self._sweep_program)

    def _sweep(self, limit: float, folder: Path) -> Phase:
        out = self._out / "sweep.jsonl"
        return sweep.run(self._device, self._sweep_program, limit, folder, out)

    def _counters(self, limit: float, folder: Path) -> Phase:
        out = self._out / "counters.csv"
        return counters.run(self._device, self._sweep_program, limit, folder, out)

    def _timing(self, limit: float, folder: Path) -> Phase:
        phase = self._measure("timing", limit, folder)
        ours = [
            row
            for row in phase.details.get("speed", [])
            if row["contestant"] == "lamp_kernels native"
        ]
        skipped = [row["skipped"] for row in ours if "skipped" in row]
        if phase.status == PASSED and (skipped or not ours):
            phase.status = FAILED if self._device != "cpu" else PASSED
            left_out = phase.details["skipped"]
            reasons = [row["reason"] for row in left_out if "native" in row["contestant"]]
            phase.reason = f"native was not measured: {', '.join({*skipped, *reasons})}"
        return phase

    def _calls(self, limit: float, folder: Path) -> Phase:
        return self._measure("calls", limit, folder)

    def _training(self, limit: float, folder: Path) -> Phase:
        return self._measure("training", limit, folder)

    def _autotune(self, limit: float, folder: Path) -> Phase:
        if self._device == "cpu":
            return Phase("autotune", SKIPPED, "not available on the CPU: times Triton kernels")
        # Triton's cache keeps compiled kernels but no timings, so every candidate is timed here.
        return self._measure("autotune", limit, folder, {"LAMP_KERNELS_TRITON_AUTOTUNE": "1"})

    def _suite(self, limit: float, folder: Path) -> Phase:
        quick, chosen = self._arguments.quick, self._arguments.tests
        return testing.run(self._device, folder, limit, quick=quick, chosen=chosen)

    def _measure(
        self, name: str, limit: float, folder: Path, environment: Mapping[str, str] | None = None
    ) -> Phase:
        """Run a measuring program that ends by itself before the time limit kills it."""
        out = folder / f"{name}.json"
        flags = ["--seconds", f"{0.85 * limit:.0f}"]  # the rest is for startup and the last round
        flags += ["--quick"] if self._arguments.quick else []
        return ending(self._program(name, out, limit, folder, flags, environment), _read(out))

    def _program(
        self,
        name: str,
        out: Path,
        limit: float,
        folder: Path,
        flags: list[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        command = [sys.executable, "-m", f"device.{name}", *(flags or [])]
        command += ["--device", self._device, "--out", str(out)]
        (ended,) = run_all([Job(name, command, environment or {})], limit=limit, folder=folder)
        return ended


def _read(path: Path) -> dict[str, Any]:
    """What a program has written; empty if it was killed in the middle of writing."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def write(report: dict[str, Any], folder: Path) -> None:
    """Rewrite the results file and the table of the results so far."""
    text = json.dumps(report, indent=1, ensure_ascii=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    (folder / "table.txt").write_text(table.text(report) + "\n", encoding="utf-8")


def main() -> int:
    """Run the check and print the table; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu", metavar="FOLDER")
    parser.add_argument("--minutes", type=float, default=9.6, help="in total (%(default)s)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="a few tests and small shapes")
    parser.add_argument("--no-build", action="store_true", help="use the previous build")
    parser.add_argument(
        "--bundle",
        type=Path,
        default=FOLDER,
        help="folder that make gpu-bundle wrote (%(default)s)",
    )
    parser.add_argument("--tests", nargs="+", metavar="FILE", help="test files of the suite (all)")
    parser.add_argument(
        "--steps", type=_steps, default=list(Budget.WEIGHTS), help="comma-separated steps (all)"
    )
    arguments = parser.parse_args()
    needed = ["torch"]
    if {"native", "suite"} & set(arguments.steps):
        needed += ["pytest", "hypothesis"]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        parser.error(
            f"{sys.executable} has no {', '.join(missing)}: use a Python that has them, as in "
            "`make gpu-check PYTHON=.venv/bin/python`"
        )
    if arguments.minutes <= 0:
        parser.error(f"--minutes must be positive, got {arguments.minutes}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        check = Check(arguments, Path(folder))
        good = check.run()
    print(table.text(check.report))
    print(f"\nwrote {arguments.out}")
    return 0 if good else 1


def _steps(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in Budget.WEIGHTS]
    if unknown:
        known = ", ".join(Budget.WEIGHTS)
        raise argparse.ArgumentTypeError(f"steps must be among {known}, got {', '.join(unknown)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
