"""bench/gpu_check.py without a device: its phases, their time limits, and how it reports faults."""

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from device import counters, sanitizer, sweep, table, testing
from device.bundle import Bundle
from device.phases import FAILED, PASSED, SKIPPED, TIMED_OUT, Budget, Job, Phase, run_all

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "bench" / "gpu_check.py"


def python(name: str, program: str, **environment: str) -> Job:
    return Job(name, [sys.executable, "-S", "-c", program], environment)


# ---- Backends -----------------------------------------------------------------------------------


def test_triton_runs_after_the_native_kernels(monkeypatch, tmp_path):
    """On a GPU, with the same test files."""
    jobs = []
    monkeypatch.setattr(testing, "run_all", lambda given, **_: jobs.extend(given) or [])
    monkeypatch.setattr(testing, "outcome", lambda *_: None)
    with pytest.raises(ValueError, match="zip"):  # no job has ended
        testing.run("cuda", tmp_path, 1.0)
    backends = [job.environment["LAMP_KERNELS_TEST_BACKENDS"] for job in jobs]
    assert backends == sorted(backends, key=lambda given: given == "triton")
    natively = {b for b, job in zip(backends, jobs, strict=True) if "tests/cuda/" in job.name}
    assert natively == {"native"}
    assert backends.count("triton") == len(testing.TRITON)
    for job in jobs[-len(testing.TRITON) :]:
        assert job.command[-1] in testing.TRITON
        assert (ROOT / job.command[-1]).exists()


# ---- Time ---------------------------------------------------------------------------------------


def test_unused_time_goes_to_later_phases():
    budget = Budget(580.0, [name for name in Budget.WEIGHTS if name != "build"])
    first = budget.limit("environment")
    assert first == 40.0  # its minimum
    native, suite = budget.limit("native"), budget.limit("suite")
    assert 55.0 < native < 65.0  # its own share and unused time of the environment
    assert suite == pytest.approx(0.98 * 580.0, abs=2)


def test_time_of_steps_that_are_not_selected_goes_to_the_others():
    budget = Budget(100.0, ["environment", "timing"])
    assert budget.limit("timing") == pytest.approx(98.0, abs=1)
    assert 38.0 < budget.limit("environment") < 41.0


def test_no_phase_gets_more_than_the_remaining_time():
    budget = Budget(10.0)
    assert 9.0 < budget.limit("environment") < 10.0  # although its minimum is higher
    assert Budget(0.0).limit("timing") == 0.0


def test_a_job_that_times_out_is_killed_with_its_children(tmp_path):
    child = "import time; time.sleep(60)"
    program = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-S', '-c', {child!r}])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()"
    )
    jobs = [python("slow", program), python("after", "print('never')")]
    slow, after = run_all(jobs, limit=2.0, folder=tmp_path)
    assert (slow.state, slow.returncode) == ("timed out", None)
    assert slow.seconds < 20.0
    assert after.state == "not started"
    status = Path(f"/proc/{int(slow.output)}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()  # a zombie


def test_jobs_run_in_parallel_and_keep_their_order(tmp_path):
    wait = f"import pathlib, time\nfile = pathlib.Path({str(tmp_path / 'there')!r})\n"
    jobs = [
        python("waits", wait + "while not file.exists(): time.sleep(0.01)"),
        python("fails", wait + "file.touch(); print('so'); raise SystemExit(3)"),
        python("third", "import os; print(os.environ['GIVEN'])", GIVEN="this"),
    ]
    ended = run_all(jobs, limit=60.0, folder=tmp_path, at_once=2)
    assert [(job.name, job.state, job.returncode) for job in ended] == [
        ("waits", "ended", 0), ("fails", "ended", 3), ("third", "ended", 0),
    ]  # fmt: skip
    assert [job.output for job in ended[1:]] == ["so\n", "this\n"]


# ---- Tests --------------------------------------------------------------------------------------


def outcomes_of(tmp_path: Path, limit: float = 60.0, **files: str) -> Phase:
    """The result of the suite phase for test files with these contents."""
    paths = []
    for name, content in files.items():
        paths.append(tmp_path / f"test_made_up_{name}.py")
        paths[-1].write_text(content)
    folder = tmp_path / "logs"
    folder.mkdir()
    return testing.run("cpu", folder, limit, chosen=[str(path) for path in paths])


def test_failures_are_reported_per_file(tmp_path):
    phase = outcomes_of(
        tmp_path,
        mixed="import pytest\n"
        "def test_good(): pass\n"
        "@pytest.mark.timeout(5)\n"
        "def test_bad(): assert 'left' == 'right'\n"
        "@pytest.mark.skip(reason='so it is')\n"
        "def test_skipped(): pass\n"
        "def test_of_a_package(): import no_such_package\n",
        import_="import no_such_package.part\ndef test_good(): pass\n",
        broken="raise ValueError('broken')\n",
        crash="import os\ndef test_good(): pass\ndef test_crash(): os._exit(7)\n",
        library="import warnings\n"
        "def test_warns(): warnings.warn('lamp_kernels computes it otherwise')\n"
        "def test_others(): warnings.warn('of another package')\n",
    )
    mixed, missing, broken, crash, library = phase.details["files"]
    assert phase.status == FAILED
    assert mixed["status"] == "failed"
    assert [mixed[k] for k in ("passed", "failed", "skipped", "without_package")] == [1, 1, 1, 1]
    assert mixed["skips"] == {"so it is": 1}
    assert mixed["failures"][0]["test"].endswith("::test_bad")
    assert "'right'" in mixed["failures"][0]["text"]
    assert missing["status"] == "without a package"
    assert missing["missing_packages"] == ["no_such_package"]
    assert broken["status"] == "failed"
    assert "ValueError: broken" in broken["failures"][0]["text"]
    assert crash["status"] == "crashed"
    assert crash["last"].endswith("::test_crash")
    assert (library["passed"], library["failed"]) == (1, 1)
    assert library["failures"][0]["test"].endswith("::test_warns")


def test_a_missing_package_is_not_a_failure(tmp_path):
    phase = outcomes_of(
        tmp_path,
        one="import no_such_package\n",
        two="def test_good(): pass\n",
        three="import pytest\n@pytest.mark.skip(reason='so it is')\ndef test_skipped(): pass\n",
    )
    assert phase.status == PASSED
    states = [file["status"] for file in phase.details["files"]]
    assert states == ["without a package", "passed", "skipped"]


def test_a_file_that_times_out_is_killed_and_reported(tmp_path):
    phase = outcomes_of(
        tmp_path,
        6.0,
        slow="import time\ndef test_good(): pass\ndef test_slow(): time.sleep(600)\n",
    )
    (slow,) = phase.details["files"]
    assert phase.status == TIMED_OUT
    assert slow["status"] == "timed out"
    if slow["passed"]:  # on a busy machine it may not have got that far
        assert slow["last"].endswith("::test_slow")


def test_every_test_file_is_run_or_reported_as_skipped():
    root = ROOT
    units = {unit.partition("::")[0] for unit in testing.everything()}
    left_out = {row["folder"] for row in testing._elsewhere()}
    for path in root.glob("tests/**/test_*.py"):
        name = path.relative_to(root)
        assert name.as_posix() in units or name.parent.as_posix() in left_out
    assert "tests/test_levels.py" in units
    assert [unit for unit in testing.everything() if unit.endswith("test_fuzz.py::test_float16")]


# ---- A fake sanitizer ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "status", "expected"),
    [
        ("========= ERROR SUMMARY: 0 errors", 0, PASSED),
        ("========= ERROR SUMMARY: 2 errors", sanitizer.FOUND, FAILED),
        ("nothing to check: no CUDA kernels", 3, FAILED),
        ("", 0, FAILED),  # no summary: it cannot have checked anything
    ],
)
def test_the_status_follows_the_sanitizer(tmp_path, monkeypatch, says, status, expected):
    fake = tmp_path / "compute-sanitizer"
    fake.write_text(f"#!/bin/sh\necho '{says}'\nexit {status}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    phase = sanitizer.run("cuda", tmp_path, 30.0)
    assert phase.status == expected
    assert [tool["tool"] for tool in phase.details["tools"]] == ["memcheck", "racecheck"]
    assert phase.details["tools"][0]["summary"] == says.strip("= ") * ("SUMMARY" in says)


def test_a_device_that_the_sanitizer_does_not_support_is_skipped(tmp_path, monkeypatch):
    fake = tmp_path / "compute-sanitizer"
    fake.write_text("#!/bin/sh\necho '========= Error: Device not supported.'\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sanitizer, "find_tool", lambda _: str(fake))
    phase = sanitizer.run("cuda", tmp_path, 30.0, tmp_path / "sweep")
    assert phase.status == SKIPPED
    assert "does not support this device" in phase.reason
    assert phase.details["checked"] == "sweep --check"


def test_a_missing_sanitizer_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(sanitizer, "find_tool", lambda _: None)
    phase = sanitizer.run("cuda", tmp_path, 30.0)
    assert (phase.status, phase.reason) == (SKIPPED, "compute-sanitizer was not found")
    assert sanitizer.run("cpu", tmp_path, 30.0).status == SKIPPED


# ---- Fake sweep and counters --------------------------------------------------------------------

LINE = {
    "shape": [8, 3, 256, 256], "gradients": 1, "border": "reflect", "design": "one", "threads": 64,
    "strips": 2, "bands": 3, "warm_ms": 0.05, "error": 1e-7,
}  # fmt: skip


def swept(tmp_path: Path, *lines: dict) -> Phase:
    """The sweep phase with a program that prints these lines."""
    printed = tmp_path / "printed"
    printed.write_text("".join(json.dumps(line) + "\n" for line in lines))
    program = tmp_path / "sweep"
    program.write_text(f"#!/bin/sh\ncat {printed}\n")
    program.chmod(0o755)
    return sweep.run("cuda", program, 30.0, tmp_path, tmp_path / "sweep.jsonl")


def test_the_fastest_tilings_are_reported_with_the_default(tmp_path):
    phase = swept(
        tmp_path,
        {**LINE, "own": True, "cold_ms": 0.09},
        {**LINE, "own": False, "cold_ms": 0.06, "threads": 128},
        {**LINE, "own": False, "cold_ms": 0.07},
        {**LINE, "own": False, "cold_ms": 0.045, "design": "two", "second": {"threads": 32}},
        {"problem": "shared memory"},
    )
    assert phase.status == PASSED
    assert [row["cold_ms"] for row in phase.details["best"]] == [0.09, 0.06, 0.045]
    assert phase.details["best"][2]["default_over_this"] == 2.0
    assert phase.details["problems"] == ["shared memory"]
    assert len((tmp_path / "sweep.jsonl").read_text().splitlines()) == 5
    assert "best of design two" in table.text({"date": "", "phases": [], "sweep": phase.details})


@pytest.mark.parametrize("error", [1e-3, float("nan")])
def test_a_tiling_with_a_different_gradient_fails(tmp_path, error):
    phase = swept(tmp_path, {**LINE, "own": True, "cold_ms": 0.09, "error": error})
    assert phase.status == FAILED
    assert "1 tilings have a gradient that differs" in phase.reason


def test_without_the_program_the_sweep_is_skipped(tmp_path):
    phase = sweep.run("cuda", None, 1.0, tmp_path, tmp_path / "sweep.jsonl")
    assert (phase.status, "gpu-bundle" in phase.reason) == (SKIPPED, True)
    phase = sweep.run("cpu", tmp_path / "sweep", 1.0, tmp_path, tmp_path / "sweep.jsonl")
    assert (phase.status, "CUDA kernels" in phase.reason) == (SKIPPED, True)


# Follows the documentation of "ncu --csv --page raw": names, units, one row per launch.
RAW = Path(__file__).with_name("ncu_raw.csv").read_text(encoding="utf-8")


def test_counters_are_read_from_the_raw_page():
    first, second = counters.parse(RAW)
    assert first["kernel"] == "void ssim_kernel<float, 5, 1>(Arguments)"
    assert first["dram_read"] == pytest.approx(12.58e6)
    assert first["duration"] == pytest.approx(61.44e-6)
    assert (first["registers"], first["instructions"]) == (247, 1234567)
    assert first["stall_barrier"] == 0.31
    assert first["waves"] is None  # not in this file
    assert (second["dram_read"], second["stall_barrier"]) == (None, None)
    assert counters.parse("==ERROR== nothing") == []


@pytest.mark.parametrize(
    ("says", "expected", "reason"),
    [
        (RAW, PASSED, ""),
        ("==ERROR== Failed to initialize the profiler", SKIPPED, "cannot read"),
        ("==ERROR== something else", FAILED, "no counters read from: sweep, others"),
    ],
)
def test_the_status_follows_ncu(tmp_path, monkeypatch, says, expected, reason):
    (tmp_path / "said").write_text(says)
    fake = tmp_path / "ncu"
    fake.write_text(f"#!/bin/sh\ncat {tmp_path / 'said'}\n")
    fake.chmod(0o755)
    monkeypatch.setattr(counters, "find_tool", lambda _: str(fake))
    out = tmp_path / "counters.csv"
    phase = counters.run("cuda", tmp_path / "sweep", 30.0, tmp_path, out)
    assert phase.status == expected
    assert reason in phase.reason
    assert says in out.read_text()


# ---- The bundle ---------------------------------------------------------------------------------


def test_a_bundle_is_installed(tmp_path):
    folder, package = tmp_path / "gpu-bundle", tmp_path / "package"
    assert Bundle.find(folder) is None
    (folder / "lamp_kernels").mkdir(parents=True)
    (folder / "wheels").mkdir()
    package.mkdir()
    with pytest.raises(FileNotFoundError, match=r"_C\.abi3\.so, _C_cuda\.abi3\.so"):
        Bundle.find(folder)
    for name in ("_C.abi3.so", "_C_cuda.abi3.so"):
        (folder / "lamp_kernels" / name).write_text(name)
    with zipfile.ZipFile(folder / "wheels" / "peer-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("peer/__init__.py", "")
    bundle = Bundle.find(folder)
    assert bundle.sweep is None
    bundle.install(package)
    assert (package / "_C_cuda.abi3.so").read_text() == "_C_cuda.abi3.so"
    places = bundle.unpack(tmp_path / "packages")
    assert (Path(places[-1]) / "peer" / "__init__.py").exists()


# ---- The whole check ----------------------------------------------------------------------------


def check(out: Path, *arguments: str) -> tuple[int, dict, str, str]:
    command = [sys.executable, str(PROGRAM), "--out", str(out), *arguments]
    # Ignore a bundle that this checkout may have.
    command += ["--bundle", str(out / "no-bundle")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return done.returncode, report, done.stdout, done.stderr


@pytest.mark.timeout(300)  # the machine may be busy with other tests
def test_quick_run_on_the_cpu(tmp_path):
    status, report, output, errors = check(
        tmp_path / "out", "--device", "cpu", "--quick", "--no-build", "--minutes", "4"
    )
    assert status == 0, output + errors
    phases = {row["phase"]: row for row in report["phases"]}
    assert {name: row["status"] for name, row in phases.items()} == {
        "environment": "passed",
        "build": "skipped",
        "native": "skipped",
        "sanitizer": "skipped",
        "sweep": "skipped",
        "counters": "skipped",
        "timing": "passed",
        "calls": "passed",
        "training": "passed",
        "autotune": "skipped",
        "suite": "passed",
    }
    assert phases["build"]["reason"] == "--no-build"
    assert phases["sanitizer"]["reason"].startswith("not available on the CPU")
    assert report["environment"]["packages"]["pytest"]
    files = {file["file"]: file for file in report["suite"]["files"]}
    assert files["tests/test_range_check.py"]["passed"] >= 7
    assert list(files["tests/cuda"]["skips"]) in ([], ["no CUDA device"])
    measured = report["timing"]
    assert measured["complete"]
    assert measured["copy"]["bytes_per_s"] > 0
    timed = {row["contestant"] for row in measured["speed"] if "p50" in row}
    assert {"lamp_kernels reference", "textbook SSIM", "torch MSELoss"} <= timed
    assert all(row["p10"] <= row["p50"] <= row["p90"] for row in measured["speed"] if "p50" in row)
    assert measured["memory"][0]["skipped"].startswith("not available on the CPU")
    assert all(row["status"] != "skipped" or row["reason"] for row in phases.values())
    assert {row["how"] for row in report["training"]["rows"] if "p50" in row} == {"eager"}
    assert report["calls"]["complete"]
    assert (tmp_path / "out" / "table.txt").read_text(encoding="utf-8").strip() in output
    assert len(list((tmp_path / "out").iterdir())) <= 8
    for word in ("textbook SSIM, float32", "copy of 16 MiB", "backends:"):
        assert word in output


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None or __import__("torch").cuda.is_available(),
    reason="has a CUDA device",
)
def test_without_a_device_every_phase_reports_it(tmp_path):
    status, report, output, _ = check(tmp_path / "out", "--minutes", "2")
    assert status == 1
    first, *others = report["phases"]
    assert (first["phase"], first["status"]) == ("environment", "failed")
    for row in others:
        assert row["status"] == "skipped"
        assert "finds no CUDA device" in row["reason"]
    assert "finds no CUDA device" in output


def test_the_table_of_a_failed_run():
    """Benchmarks that were killed halfway, a failed build, tests without a package."""
    shape = [8, 3, 256, 256]
    row = {"shape": shape, "dtype": "float32", "contestant": "lamp_kernels native"}
    timed = {"p10": 1e-4, "p50": 1.234e-4, "p90": 2e-4, "rounds": 50}
    report = {
        "date": "2026-01-02",
        "phases": [Phase("build", FAILED, "exit status 1", 3.0, 100.0).summary()],
        "environment": {
            "devices": [{"name": "A GPU", "capability": "9.0", "memory_gib": 79.6}],
            "packages": {"torch": "2.11.0"},
        },
        "build": {"failed": True, "output": "nvcc: error", "report": "lamp_kernels 0.1"},
        "suite": {
            "files": [
                {
                    "file": "tests/test_peers.py", "status": "without a package", "passed": 0,
                    "failed": 0, "skipped": 0, "seconds": 3.2, "missing_packages": ["kornia"],
                }
            ],
            "left_out": [{"folder": "tests/cpu", "reason": "tests the CPU kernels alone"}],
        },
        "sanitizer": {"tools": [{"tool": "memcheck", "status": "passed", "summary": "0 errors"}]},
        "timing": {
            "how": "CUDA events",
            "copy": {"bytes": 2**29, "bytes_per_s": 2.5e12},
            "speed": [
                {**row, **timed, "bytes_per_s": 1.5e11, "share_of_copy": 0.06},
                {**row, "contestant": "fused-ssim", "skipped": "RuntimeError: no kernel image"},
            ],
            "host": [{"contestant": "torch MSELoss", "returned_s": 4e-5, "computed_s": 6e-5}],
            "memory": [],
            "skipped": [{"contestant": "kornia", "reason": "kornia is not installed"}],
        },
    }  # fmt: skip
    text = table.text(report)
    for words in (
        "A GPU (sm_90, 80 GiB), torch 2.11.0", "exit status 1", "nvcc: error", "0 errors",
        "not installed: kornia", "skipped: tests/cpu", "copy of 256 MiB: 2500 GB/s",
        "0.123", "6.0 %", "no kernel image", "skipped: kornia", "benchmarks did not finish",
    ):  # fmt: skip
        assert words in text


def test_missing_packages_are_reported_before_any_step(tmp_path):
    """`-S` hides the installed packages."""
    command = [sys.executable, "-S", str(ROOT / "bench" / "gpu_check.py"), "--device", "cpu"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "has no torch, pytest, hypothesis" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
