"""Builds of a trivial project: failing compilers, wheels, and folders with spaces."""

import email
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from projects import BACKEND, error_of, executable, make_toolkit, run, small_project

pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="builds are tested only on Linux")
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")

ERROR = "csrc/cpu/vectors.h:95:10: error: this compiler knows no vectors"
FAILING = f"""#!/bin/sh
case "$*" in
  *" -c "*) echo "In file included from x:" >&2; echo "{ERROR}" >&2; exit 1 ;;
  *) echo "12.2.0" ;;
esac
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return small_project(tmp_path / "a project")


@pytest.fixture
def failing(tmp_path: Path) -> str:
    """A compiler that rejects every file."""
    return str(executable(tmp_path / "bin/failing-g++", FAILING))


def wheel(project: Path, code: str = "", **environment: str) -> tuple[Path, str]:
    """Build a wheel; return it and the build's standard error."""
    built = run(project, "-c", code + BACKEND.format("wheel", "dist"), **environment)
    assert built.returncode == 0, built.stderr
    return project / "dist" / built.stdout.split()[-1], built.stderr


def files(wheel: Path) -> set[str]:
    """The package's files that are not modules."""
    names = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]
    kept = [path for path in names if path.parts[0] == "lamp_kernels" and path.suffix != ".py"]
    return {path.name for path in kept} - {"py.typed"}


# ---- A compiler that fails -----------------------------------------------------------------------


@pytest.mark.parametrize("ninja", [True, False])
def test_failing_native_kernels_are_left_out(project, failing, ninja):
    """The package installs without them, and its report quotes the compiler's first error."""
    if ninja and not shutil.which("ninja"):
        pytest.skip("needs ninja on PATH")
    path = {} if ninja else {"PATH": os.path.dirname(failing)}
    made, said = wheel(project, CXX=failing, **path)
    assert made.name.endswith("-py3-none-any.whl")
    assert files(made) >= {"_without_native.txt"}
    assert not [name for name in files(made) if name.endswith(".so")]
    reason = (
        f"the native kernels failed to compile with {failing} ({ERROR}); LAMP_KERNELS_NATIVE=1 "
        "makes this an error"
    )
    assert f"\nContinuing with plain PyTorch code: {reason}.\n" in said
    assert said.index(ERROR) < said.index("Continuing")  # the compiler's messages come first
    installed = project / "installed"
    zipfile.ZipFile(made).extractall(installed)
    report = run(installed, "-m", "lamp_kernels").stdout
    assert re.search(f"native +not available: {re.escape(reason)} \\(_C.abi3.so is not in", report)
    assert "losses of cpu tensors are computed by: reference\n" in report


@pytest.mark.parametrize("switch", ["LAMP_KERNELS_NATIVE", "LAMP_KERNELS_CUDA"])
def test_failing_kernels_are_an_error_if_required(project, failing, tmp_path, switch):
    environment = {"CUDA_HOME": str(make_toolkit(tmp_path / "cuda")), "CXX": failing, switch: "1"}
    failed = run(project, "-c", BACKEND.format("wheel", "dist"), **environment)
    said = error_of(failed)
    assert ERROR in said
    assert f"The native kernels failed to compile with {failing}. They require C++20; " in said
    assert "Continuing" not in said


def test_an_in_place_build_writes_and_removes_the_note(project, failing):
    build = ("setup.py", "build_ext", "--inplace")
    library = project / "lamp_kernels/_C.abi3.so"
    note = project / "lamp_kernels/_without_native.txt"
    library.write_text("from an earlier build")
    assert run(project, *build, CXX=failing).returncode == 0
    assert ERROR in note.read_text()
    assert not library.exists()
    if not shutil.which("g++"):
        pytest.skip("the rest requires g++")
    assert run(project, *build, CXX="g++").returncode == 0
    assert library.exists()
    assert not note.exists()


@needs_compiler
def test_a_wheel_has_no_libraries_of_an_earlier_build(project, failing):
    """Not even if it was built in the same folder, as pip does."""
    first, _ = wheel(project, CXX="g++")
    assert "_C.abi3.so" in files(first)
    (library,) = project.glob("build/lib*/lamp_kernels/_C.abi3.so")
    shutil.copy(library, library.with_name("_C_cuda.abi3.so"))
    second, _ = wheel(project, CXX="g++")
    assert files(second) == {"_C.abi3.so", "_without_cuda.txt"}
    third, _ = wheel(project, CXX=failing)
    assert not [name for name in files(third) if name.endswith(".so")]


# Makes any PyTorch look like a CUDA build.
WITH_CUDA = "import torch; torch.version.cuda = '13.0'; "


@needs_compiler
def test_failing_cuda_kernels_are_left_out(project, tmp_path):
    toolkit = make_toolkit(tmp_path / "cuda")
    environment = {"CUDA_HOME": str(toolkit), "TORCH_CUDA_ARCH_LIST": "9.0", "CXX": "g++"}
    made, said = wheel(project, WITH_CUDA, **environment)
    assert made.name.endswith("-py3-none-linux_" + os.uname().machine + ".whl")
    assert files(made) == {"_C.abi3.so", "_without_cuda.txt"}
    note = zipfile.ZipFile(made).read("lamp_kernels/_without_cuda.txt").decode()
    assert note == (
        "the CUDA kernels failed to compile with nvcc from CUDA 13.0 "
        "(nvcc fatal : not a real nvcc); LAMP_KERNELS_CUDA=1 makes this an error\n"
    )
    assert f"Continuing without them: {note[:-1]}.\n" in said


def test_without_native_kernels_there_are_no_cuda_kernels(project, failing, tmp_path):
    toolkit = make_toolkit(tmp_path / "cuda")
    made, said = wheel(project, WITH_CUDA, CUDA_HOME=str(toolkit), CXX=failing)
    assert made.name.endswith("-py3-none-any.whl")
    assert files(made) == {"_without_native.txt"}
    assert "nvcc" not in said


def test_a_broken_cxx_compiler_is_named_as_the_cause(project, tmp_path):
    broken = executable(tmp_path / "bin/broken-g++", "#!/bin/sh\nexit 3\n")
    toolkit = make_toolkit(tmp_path / "cuda")
    made, said = wheel(project, WITH_CUDA, CUDA_HOME=str(toolkit), CXX=str(broken))
    assert files(made) == {"_without_native.txt"}
    assert f"native kernels failed to compile with {broken}" in said
    assert "nvcc" not in said


# ---- The build's output --------------------------------------------------------------------------


@needs_compiler
@pytest.mark.skipif(not shutil.which("ninja"), reason="needs ninja on PATH")
@pytest.mark.parametrize("verbose", [False, True])
def test_the_build_prints_short_lines_unless_verbose(project, verbose):
    arguments = (*(["--verbose"] if verbose else []), "build_ext", "--inplace")
    built = run(project, "setup.py", *arguments, LAMP_KERNELS_NATIVE="1", CXX="g++")
    lines = built.stderr.splitlines()
    short = [
        re.compile(r"\[\d/2\] CXX csrc/bindings\.cpp"),
        re.compile(r"LINK lamp_kernels/_C\.abi3\.so"),
    ]
    found = [any(map(pattern.fullmatch, lines)) for pattern in short]
    assert found == [not verbose, not verbose]
    full = [line for line in lines if "-fvisibility=hidden" in line and "csrc/bindings.cpp" in line]
    assert bool(full) == verbose


# ---- Wheels and folders with spaces --------------------------------------------------------------

PYTHONS = [("3.10", "cp310"), ("3.13", "cp313"), ("3.13", "cp313t"), ("3.14", "cp314t")]


@needs_compiler
def test_a_wheel_with_kernels_installs_on_every_python(project, tmp_path):
    made, _ = wheel(project, LAMP_KERNELS_NATIVE="1", CXX="g++")
    platform = f"linux_{os.uname().machine}"
    assert made.name.endswith(f"-py3-none-{platform}.whl")
    contents = zipfile.ZipFile(made)
    (file,) = [name for name in contents.namelist() if name.endswith(".dist-info/WHEEL")]
    fields = email.message_from_bytes(contents.read(file))
    assert fields.get_all("Tag") == [f"py3-none-{platform}"]
    assert fields["Root-Is-Purelib"] == "false"
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip("the rest requires pip")
    for python, abi in PYTHONS:
        folder = tmp_path / abi
        asked = ["--python-version", python, "--implementation", "cp", "--abi", abi]
        asked += ["--platform", platform, "--only-binary=:all:", "--no-deps", "--no-index"]
        command = ["-m", "pip", "install", "--quiet", *asked, "--target", str(folder), str(made)]
        installed = run(project, *command)
        assert installed.returncode == 0, installed.stderr
        assert (folder / "lamp_kernels/_C.abi3.so").exists()


@needs_compiler
def test_cxx_may_contain_spaces_and_flags(project, tmp_path):
    compiler = executable(tmp_path / "a folder/g++", '#!/bin/sh\nexec g++ "$@"\n')
    for command in (str(compiler), f"'{compiler}' -DLAMP=1"):
        made, _ = wheel(project, LAMP_KERNELS_NATIVE="1", CXX=command)
        assert "_C.abi3.so" in files(made)


# Root may write anywhere, so the folder only pretends to be read-only.
READ_ONLY = (
    "import os; may = os.access; "
    "os.access = lambda path, mode, **other: mode != os.W_OK and may(path, mode, **other); "
)


@needs_compiler
def test_a_read_only_project_is_built_elsewhere(project, tmp_path):
    before = set(project.rglob("*"))
    code = READ_ONLY + BACKEND.format("wheel", str(tmp_path))
    built = run(project, "-c", code, LAMP_KERNELS_NATIVE="1", CXX="g++", TMPDIR=str(tmp_path))
    assert built.returncode == 0, built.stderr
    (made,) = tmp_path.glob("*.whl")
    assert "_C.abi3.so" in files(made)
    assert set(project.rglob("*")) == before
    assert list(tmp_path.glob("lamp_kernels-*")) == [made]  # the build folder is gone


@needs_compiler
@pytest.mark.skipif(not shutil.which("nvcc"), reason="needs nvcc")
def test_cuda_kernels_build_in_a_folder_with_spaces(project):
    environment = {"LAMP_KERNELS_CUDA": "1", "TORCH_CUDA_ARCH_LIST": "9.0", "CXX": "g++"}
    made, _ = wheel(project, **environment)
    assert files(made) == {"_C.abi3.so", "_C_cuda.abi3.so"}


# ---- The Makefile --------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_setup_uses_torch_index_for_torch_alone():
    root = Path(__file__).resolve().parents[2]
    asked = ["make", "--dry-run", "--always-make", "setup"]

    def installs(*settings: str) -> list[str]:
        done = subprocess.run([*asked, *settings], cwd=root, capture_output=True, text=True)
        return [line for line in done.stdout.splitlines() if " pip install " in line]

    assert not [line for line in installs() if "--index-url" in line]
    torch, *others = installs("TORCH_INDEX=https://example.org/cpu")
    assert '--index-url "https://example.org/cpu"' in torch
    assert "torch==" in torch
    assert others
    assert not [line for line in others if "--index-url" in line]
