"""Builds and tests the library with several releases of PyTorch: `make matrix`.

Each row of ROWS has a separate environment in build/matrix, made with the row's Python and the
packages that pip finds for it. There the library is built from a copy of the sources, and a short
test suite is run. The CUDA library's bindings, the only file of csrc/cuda that includes PyTorch's
headers, are compiled as well, without nvcc; --cuda builds the whole CUDA library, which takes
minutes and requires nvcc.

--library tests a library that was built with another release, as PyTorch's stable ABI allows: what
a user of a wheel gets. Of the sources, the row then compiles only the bindings, all files that
include PyTorch's headers.

    python3 tests/install/matrix.py                  # all rows
    python3 tests/install/matrix.py oldest newest --library lamp_kernels/_C.abi3.so    # as CI does
    python3 tests/install/matrix.py gpu --cuda --full

Prints a Markdown table; the exit status is 1 if a step or a test failed. PyTorch from PyPI is a
CUDA build of 5 GB: it can be imported without a GPU, but not without the CUDA libraries it links.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "matrix"


class Row(NamedTuple):
    """A Python version and the packages that pip installs."""

    python: str
    packages: tuple[str, ...]


# Triton comes with the CUDA builds of PyTorch, but not with the CPU build of 2.13.0. Triton 3.6's
# interpreter requires NumPy older than 2.4.
ROWS = {
    "oldest": Row("3.10", ("torch==2.10.0", "numpy<2.4")),
    "gpu": Row("3.12", ("torch==2.11.0", "numpy<2.4")),  # common on machines with GPUs
    "development": Row("3.11", ("torch==2.13.0", "triton==3.7.1", "numpy")),
    "newest": Row("3.12", ("torch", "numpy")),
}
# In addition, in the releases pinned by requirements-dev.txt; the last two are CUDA's headers.
TEST_PACKAGES = (
    "hypothesis",
    "ninja",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "nvidia-cuda-runtime",
    "nvidia-cuda-crt",
)
# Additional packages for the whole suite; tests that need a missing one are skipped.
FULL_PACKAGES = (
    "kornia",
    "lightning",
    "matplotlib",
    "pillow",
    "pytorch-msssim",
    "scikit-image",
    "scikit-learn",
    "scipy",
    "torchmetrics",
    "tqdm",
)
# What depends on the release: operators, modules, gradients, torch.compile and export, Triton's
# interpreter. In minutes.
SUITE = (
    "tests/test_compile.py",
    "tests/test_gradients.py",
    "tests/test_modules.py",
    "tests/test_ops.py",
    "tests/test_precision.py",
    "tests/test_self_check.py",
    "tests/test_transforms.py",
    "tests/triton/test_triton_operators.py",
)
# The slowest tests, which `make test` runs with one release: those in which Inductor compiles
# C++ or the compiler traces the many operations of the reference with symbolic sizes, those that
# start processes, and those that repeat others' checks for more options, layouts and shapes.
LEFT_OUT = (
    "tests/test_compile.py::test_a_whole_training_step_under_inductor",
    "tests/test_compile.py::test_inductor_compiles_the_reference_with_dynamic_sizes",
    "tests/test_compile.py::test_dynamic_sizes_from_the_first_call[reference",
    "tests/test_compile.py::test_export_with_dynamic_sides[reference",
    "tests/test_compile.py::test_one_graph_for_every_size[reference-AmplifiedSSIMLoss",
    "tests/test_compile.py::test_options_that_change_between_calls[reference",
    "tests/test_gradients.py::test_all_terms_with_weight",
    "tests/test_gradients.py::test_power",
    "tests/test_gradients.py::test_ssim",
    "tests/test_ops.py::test_data_parallel_training",
    "tests/test_ops.py::test_opcheck_of_every_flag",
    "tests/test_ops.py::test_opcheck_of_every_layout",
    "tests/test_ops.py::test_opcheck_of_weights_and_paddings",
    "tests/test_ops.py::test_fake_kernels_agree_in_shape_strides_and_dtype",
    "tests/triton/test_triton_operators.py::test_opcheck",
    "tests/triton/test_triton_operators.py::test_sums_over_images_and_the_batch",
)
HEADINGS = "| row | Python | torch | triton | build | CUDA | passed | failed | skipped | seconds |"


@dataclass
class Outcome:
    """One line of the table."""

    row: str
    python: str
    torch: str = "-"
    triton: str = "-"
    build: str = "-"
    cuda: str = "-"
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    problem: str | None = None

    def line(self) -> str:
        """The line as Markdown."""
        seconds = ", ".join(f"{name} {spent:.0f}" for name, spent in self.seconds.items()) or "-"
        return (
            f"| {self.row} | {self.python} | {self.torch} | {self.triton} | {self.build} | "
            f"{self.cuda} | {self.passed} | {self.failed} | {self.skipped} | {seconds} |"
        )


class StepError(Exception):
    """A command failed; its output is in the log."""


class Runner:
    """Runs a row's commands and writes their output to the row's log."""

    def __init__(self, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        log.write_text("")

    def __call__(self, *command: str, cwd: Path = ROOT, **environment: str) -> int:
        """Run a command and return its exit status."""
        with self.log.open("a") as out:
            print("$", *command, file=out, flush=True)
            return subprocess.run(
                command, cwd=cwd, env=os.environ | environment, stdout=out, stderr=out, check=False
            ).returncode

    def need(self, step: str, *command: str, cwd: Path = ROOT, **environment: str) -> None:
        """Run a command whose failure ends the row."""
        if self(*command, cwd=cwd, **environment) != 0:
            raise StepError(step)


def interpreter(version: str) -> str | None:
    """The path of this version's interpreter, on PATH or among pyenv's inactive versions."""
    ask = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2], sys.executable)"
    for environment in ({}, {"PYENV_VERSION": version}):
        try:
            answer = subprocess.run(
                [f"python{version}", "-c", ask],
                env=os.environ | environment,
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError:
            return None
        if answer.returncode == 0 and answer.stdout.split()[0] == version:
            return answer.stdout.split()[1]
    return None


def constraints() -> str:
    """The pins of requirements-dev.txt, except for packages that a row chooses."""
    chosen = ("torch==", "triton==", "numpy==", "setuptools==")
    lines = (ROOT / "requirements-dev.txt").read_text().splitlines()
    return "\n".join(line for line in lines if not line.startswith(chosen)) + "\n"


def install(row: Row, python: str, folder: Path, run: Runner, *, full: bool) -> None:
    """Make the environment, unless it already exists with the same packages."""
    environment, ready = folder / "env", folder / "ready"
    tested_with = (*TEST_PACKAGES, *(FULL_PACKAGES if full else ()))
    made_for = "\n".join([python, *row.packages, *tested_with, constraints()])
    if ready.exists() and ready.read_text() == made_for:
        return
    ready.unlink(missing_ok=True)
    (folder / "constraints.txt").write_text(constraints())
    run.need("venv", python, "-m", "venv", "--clear", str(environment))
    pip = (str(environment / "bin/python"), "-m", "pip", "install", "--quiet", "--no-compile")
    # torch is installed first and alone, so that no other package determines its release.
    run.need("install", *pip, row.packages[0])
    wanted = (*row.packages, *tested_with, "setuptools>=77")
    run.need("install", *pip, "-c", str(folder / "constraints.txt"), *wanted)
    ready.write_text(made_for)


def copy_sources(to: Path) -> None:
    """Copy the files that git tracks or would track, so nothing that was built in place."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    shutil.rmtree(to, ignore_errors=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():  # deleted files are still listed
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


# Compiles bindings, the arguments, with setup.py's flags.
BINDINGS = """
import os, runpy, shlex, subprocess, sys, sysconfig
import setuptools
from torch.utils import cpp_extension
setuptools.setup = lambda **told: None
os.environ.update(LAMP_KERNELS_NATIVE="0", LAMP_KERNELS_CUDA="0")
setup = runpy.run_path("setup.py")
cuda = sysconfig.get_path("purelib") + "/nvidia/cu13/include"
command = [*shlex.split(setup["compiler"]()), "-fsyntax-only", *setup["STYLE"]]
command += [*setup["STABLE_ABI"], *(f"-I{path}" for path in [*cpp_extension.include_paths(), cuda])]
sys.exit(subprocess.run([*command, *sys.argv[1:]]).returncode)
"""
CPU_BINDINGS, CUDA_BINDINGS = ("csrc/bindings.cpp", "csrc/volumes.cpp"), "csrc/cuda/bindings.cpp"


def build(sources: Path, python: Path, run: Runner, *, cuda: bool, jobs: int) -> str:
    """Build in place; return the table's entry for CUDA."""
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    switches = {
        "LAMP_KERNELS_NATIVE": "1",
        "LAMP_KERNELS_CUDA": str(int(cuda)),
        "MAX_JOBS": str(jobs),
        "PATH": path,
    }
    if cuda:
        switches["TORCH_CUDA_ARCH_LIST"] = os.environ.get("TORCH_CUDA_ARCH_LIST") or "9.0"
    command = (str(python), "setup.py", "--quiet", "build_ext", "--inplace")
    run.need("build", *command, cwd=sources, **switches)
    if cuda:
        return "built for " + switches["TORCH_CUDA_ARCH_LIST"]
    compile_bindings([CUDA_BINDINGS], sources, python, run)
    return "bindings compiled"


def compile_bindings(files: Sequence[str], sources: Path, python: Path, run: Runner) -> None:
    """Check that the files compile with the release's headers, without generating code."""
    command = (str(python), "-W", "ignore", "-c", BINDINGS, *files)
    run.need("bindings", *command, cwd=sources)


def test(
    outcome: Outcome, sources: Path, python: Path, run: Runner, *, full: bool, jobs: int
) -> None:
    """Run the test suite and count its results."""
    report = sources.parent / "tests.xml"
    report.unlink(missing_ok=True)
    parallel = ("-n", str(jobs), "--dist", "worksteal") if jobs > 1 else ()
    chosen = () if full else (*SUITE, *(f"--deselect={test}" for test in LEFT_OUT))
    status = run(
        *(str(python), "-m", "pytest", "-q", f"--junitxml={report}", *parallel, *chosen),
        cwd=sources,
        OMP_NUM_THREADS="1",
        CI="true",
        PYTHONPATH=str(sources),  # for programs that tests start in other folders
    )
    if report.exists():
        counts = ET.parse(report).getroot()[0].attrib
        outcome.failed = int(counts["failures"]) + int(counts["errors"])
        outcome.skipped = int(counts["skipped"])
        outcome.passed = int(counts["tests"]) - outcome.failed - outcome.skipped
    if status != 0 or not outcome.passed:
        raise StepError("tests")


def run_row(name: str, arguments: argparse.Namespace, jobs: int) -> Outcome:
    """Install, build and test one row."""
    row = ROWS[name]
    outcome = Outcome(name, row.python)
    python = interpreter(row.python)
    if python is None:
        outcome.build = f"not run: python{row.python} not found"
        return outcome
    folder = FOLDER / name
    run = Runner(folder / "log.txt")
    sources, in_environment = folder / "sources", folder / "env" / "bin" / "python"

    def timed(step: str, begin: float) -> None:
        outcome.seconds[step] = time.monotonic() - begin

    try:
        begin = time.monotonic()
        install(row, python, folder, run, full=arguments.full)
        timed("install", begin)
        outcome.torch, outcome.triton = versions(in_environment)
        begin = time.monotonic()
        copy_sources(sources)
        outcome.build = "FAILED"
        if arguments.library:
            compile_bindings([*CPU_BINDINGS, CUDA_BINDINGS], sources, in_environment, run)
            shutil.copy2(arguments.library, sources / "lamp_kernels" / "_C.abi3.so")
            outcome.build = outcome.cuda = "bindings compiled"
        else:
            outcome.cuda = build(sources, in_environment, run, cuda=arguments.cuda, jobs=jobs)
            outcome.build = "ok"
        timed("build", begin)
        begin = time.monotonic()
        test(outcome, sources, in_environment, run, full=arguments.full, jobs=jobs)
        timed("tests", begin)
    except StepError as error:
        outcome.problem = str(error)
    if arguments.discard:
        for part in ("env", "sources", "ready"):
            path = folder / part
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return outcome


def versions(python: Path) -> tuple[str, str]:
    """The installed versions of torch and triton."""
    ask = "from importlib.metadata import version as v; print(v('torch'), v('triton'))"
    answer = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
    torch, triton = answer.stdout.split()
    return torch, triton


def main() -> int:
    """Run the rows and print the table; return 0 if nothing failed, otherwise 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", help=f"{', '.join(ROWS)} (default: all)")
    parser.add_argument("--cuda", action="store_true", help="build the CUDA library; requires nvcc")
    parser.add_argument(
        "--library", type=Path, metavar="FILE", help="test this library, built with another release"
    )
    parser.add_argument("--full", action="store_true", help="run the whole suite")
    parser.add_argument("--discard", action="store_true", help="remove the environments afterwards")
    parser.add_argument(
        "--at-once", type=int, default=2, metavar="N", help="rows run in parallel (default: 2)"
    )
    arguments = parser.parse_args()
    names = arguments.rows or list(ROWS)
    if arguments.library and not arguments.library.is_file():
        parser.error(f"--library must be a file, got {arguments.library}")
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"rows must be among {', '.join(ROWS)}, got {', '.join(unknown)}")
    at_once = max(1, min(arguments.at_once, len(names)))
    jobs = max(1, (os.cpu_count() or 1) // at_once)
    with ThreadPoolExecutor(at_once) as pool:
        outcomes = list(pool.map(lambda name: run_row(name, arguments, jobs), names))
    print(HEADINGS, "|".join(["", *["---"] * HEADINGS.count("| "), ""]), sep="\n")
    for outcome in outcomes:
        print(outcome.line())
    failed = [outcome for outcome in outcomes if outcome.problem]
    for outcome in failed:
        log = FOLDER / outcome.row / "log.txt"
        print(f"\n{outcome.row}: {outcome.problem} failed; last lines of {log.relative_to(ROOT)}:")
        print("\n".join(log.read_text().splitlines()[-40:]))
    ran = [outcome for outcome in outcomes if outcome.torch != "-"]
    return int(bool(failed) or not ran)


if __name__ == "__main__":
    sys.exit(main())
