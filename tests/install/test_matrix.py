"""The matrix of PyTorch releases: how its rows are built, and how they fail."""

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests" / "install" / "matrix.py"


@pytest.fixture(scope="module")
def matrix():
    return runpy.run_path(str(PROGRAM))


def test_this_python_is_found_by_its_version(matrix):
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if (found := matrix["interpreter"](version)) is None:
        pytest.skip(f"no python{version} on PATH, this one is {sys.executable}")
    answer = subprocess.run([found, "-V"], capture_output=True, text=True, check=True).stdout
    assert answer.startswith(f"Python {version}.")


def test_a_missing_python_is_reported(matrix):
    assert matrix["interpreter"]("3.99") is None


def test_a_row_chooses_its_torch_and_pins_the_test_packages(matrix):
    names = {line.partition("==")[0] for line in matrix["constraints"]().splitlines()}
    assert names >= {"hypothesis", "pytest", "nvidia-cuda-crt"}
    assert not names & {"torch", "triton", "numpy", "setuptools"}
    assert set(matrix["TEST_PACKAGES"]) <= names


def test_the_files_of_the_suite_exist(matrix):
    assert [name for name in matrix["SUITE"] if not (ROOT / name).is_file()] == []


def test_the_oldest_row_is_the_oldest_that_the_package_supports(matrix):
    project = (ROOT / "pyproject.toml").read_text()
    oldest = matrix["ROWS"]["oldest"]
    assert f'requires-python = ">={oldest.python}"' in project
    release = oldest.packages[0].removeprefix("torch==").removesuffix(".0")
    assert f'dependencies = ["torch>={release}"]' in project


def test_sources_are_copied_without_built_files(matrix, tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    matrix["copy_sources"](tmp_path)
    copied = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert {"setup.py", "csrc/operators.h", "tests/test_ops.py"} <= copied
    assert [name for name in copied if name.endswith(".so")] == []


def test_the_bindings_are_all_files_that_include_pytorchs_headers(matrix):
    ours = {*matrix["CPU_BINDINGS"], matrix["CUDA_BINDINGS"]}
    including = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "csrc").rglob("*.c*")
        if re.search(r'#include ("(\.\./)?operators\.h"|<torch/)', path.read_text())
    }
    assert including == ours


def test_bindings_that_do_not_compile_end_the_row(matrix, tmp_path):
    if not shutil.which("g++"):
        pytest.skip("g++ is not installed")
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    shutil.copy(ROOT / "setup.py", tmp_path)
    broken = tmp_path / "csrc" / "broken.cpp"
    broken.write_text('#include "operators.h"\nTensor t = torch::stable::no_such_function();\n')
    run = matrix["Runner"](tmp_path / "log.txt")
    with pytest.raises(matrix["StepError"], match="bindings"):
        matrix["compile_bindings"](["csrc/broken.cpp"], tmp_path, sys.executable, run)
    assert "no_such_function" in run.log.read_text()


def test_a_missing_library_is_an_error(tmp_path):
    command = [sys.executable, PROGRAM, "oldest", "--library", tmp_path / "no.so"]
    failed = subprocess.run(command, capture_output=True, text=True)
    assert failed.returncode == 2
    assert f"--library must be a file, got {tmp_path}/no.so" in failed.stderr


def test_a_failing_command_ends_the_row_and_is_logged(matrix, tmp_path):
    run = matrix["Runner"](tmp_path / "log.txt")
    with pytest.raises(matrix["StepError"], match="building"):
        run.need("building", sys.executable, "-c", "import sys; sys.exit('no headers')")
    assert "no headers" in run.log.read_text()


def test_an_unknown_row_is_rejected():
    failed = subprocess.run([sys.executable, PROGRAM, "nineties"], capture_output=True, text=True)
    assert failed.returncode == 2
    assert "must be among oldest, gpu, development, newest, got nineties" in failed.stderr
