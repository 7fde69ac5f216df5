"""Builds, of C++ that compiles in a moment: compilers that fail, wheels, folders with spaces."""

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
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="builds are tried on Linux alone")
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")

SAYS = "csrc/cpu/vectors.h:95:10: error: this compiler knows no vectors"
FAILING = f"""#!/bin/sh
case "$*" in
  *" -c "*) echo "In file included from x:" >&2; echo "{SAYS}" >&2; exit 1 ;;
  *) echo "12.2.0" ;;
esac
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return small_project(tmp_path / "a project")


@pytest.fixture
def failing(tmp_path: Path) -> str:
    """A compiler that finds fault with every file."""
    return str(executable(tmp_path / "bin/failing-g++", FAILING))


def wheel(project: Path, code: str = "", **environment: str) -> tuple[Path, str]:
    """A wheel, and what was said on the way."""
    built = run(project, "-c", code + BACKEND.format("wheel", "dist"), **environment)
    assert built.returncode == 0, built.stderr
    return project / "dist" / built.stdout.split()[-1], built.stderr


def files(wheel: Path) -> set[str]:
    """Those in the package that are no modules."""
    names = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]
    kept = [path for path in names if path.parts[0] == "lamp_kernels" and path.suffix != ".py"]
    return {path.name for path in kept} - {"py.typed"}


# ---- A compiler that fails -----------------------------------------------------------------------


@pytest.mark.parametrize("ninja", [True, False])
def test_without_kernels_that_do_not_compile(project, failing, ninja):
    """The plain PyTorch path is installed, and the report gives the compiler's first error."""
    if ninja and not shutil.which("ninja"):
        pytest.skip("needs ninja on PATH")
    path = {} if ninja else {"PATH": os.path.dirname(failing)}
    made, said = wheel(project, CXX=failing, **path)
    assert made.name.endswith("-py3-none-any.whl")
    assert files(made) >= {"_without_native.txt"}
    assert not [name for name in files(made) if name.endswith(".so")]
    reason = (
        f"its native kernels did not compile with {failing} when it was built ({SAYS}), which "
        "LAMP_KERNELS_NATIVE=1 makes an error"
    )
    assert f"\nlamp_kernels goes on with the plain PyTorch path: {reason}.\n" in said
    assert said.index(SAYS) < said.index("lamp_kernels goes on")  # the compiler's own words
    installed = project / "installed"
    zipfile.ZipFile(made).extractall(installed)
    report = run(installed, "-m", "lamp_kernels").stdout
    assert re.search(f"native +{re.escape(reason)}: no _C.abi3.so in the package\n", report)
    assert "a loss of a cpu tensor is computed by: reference\n" in report


@pytest.mark.parametrize("switch", ["LAMP_KERNELS_NATIVE", "LAMP_KERNELS_CUDA"])
def test_kernels_that_are_required_and_do_not_compile(project, failing, tmp_path, switch):
    environment = {"CUDA_HOME": str(make_toolkit(tmp_path / "cuda")), "CXX": failing, switch: "1"}
    failed = run(project, "-c", BACKEND.format("wheel", "dist"), **environment)
    said = error_of(failed)
    assert SAYS in said
    assert f"The native kernels did not compile with {failing}. They need C++20: " in said
    assert "goes on" not in said


def test_in_place_the_note_comes_and_goes(project, failing):
    build = ("setup.py", "build_ext", "--inplace")
    library = project / "lamp_kernels/_C.abi3.so"
    note = project / "lamp_kernels/_without_native.txt"
    library.write_text("of an earlier build")
    assert run(project, *build, CXX=failing).returncode == 0
    assert SAYS in note.read_text()
    assert not library.exists()
    if not shutil.which("g++"):
        pytest.skip("the rest needs g++")
    assert run(project, *build, CXX="g++").returncode == 0
    assert library.exists()
    assert not note.exists()


@needs_compiler
def test_a_wheel_has_no_libraries_of_an_earlier_build(project, failing):
    """Of the same folder, where pip builds too."""
    first, _ = wheel(project, CXX="g++")
    assert "_C.abi3.so" in files(first)
    (library,) = project.glob("build/lib*/lamp_kernels/_C.abi3.so")
    shutil.copy(library, library.with_name("_C_cuda.abi3.so"))
    second, _ = wheel(project, CXX="g++")
    assert files(second) == {"_C.abi3.so", "_without_cuda.txt"}
    third, _ = wheel(project, CXX=failing)
    assert not [name for name in files(third) if name.endswith(".so")]


# As a PyTorch with CUDA says it; this one may have none.
WITH_CUDA = "import torch; torch.version.cuda = '13.0'; "


@needs_compiler
def test_without_cuda_kernels_that_do_not_compile(project, tmp_path):
    toolkit = make_toolkit(tmp_path / "cuda")
    environment = {"CUDA_HOME": str(toolkit), "TORCH_CUDA_ARCH_LIST": "9.0", "CXX": "g++"}
    made, said = wheel(project, WITH_CUDA, **environment)
    assert made.name.endswith("-py3-none-linux_" + os.uname().machine + ".whl")
    assert files(made) == {"_C.abi3.so", "_without_cuda.txt"}
    note = zipfile.ZipFile(made).read("lamp_kernels/_without_cuda.txt").decode()
    assert note == (
        "its CUDA kernels did not compile with nvcc of CUDA 13.0 when it was built "
        "(nvcc fatal : this is none), which LAMP_KERNELS_CUDA=1 makes an error\n"
    )
    assert f"goes on without them: {note[:-1]}.\n" in said


def test_without_native_kernels_there_are_no_cuda_kernels(project, failing, tmp_path):
    toolkit = make_toolkit(tmp_path / "cuda")
    made, said = wheel(project, WITH_CUDA, CUDA_HOME=str(toolkit), CXX=failing)
    assert made.name.endswith("-py3-none-any.whl")
    assert files(made) == {"_without_native.txt"}
    assert "nvcc" not in said


def test_a_compiler_that_does_not_even_tell_its_version_is_not_nvcc(project, tmp_path):
    broken = executable(tmp_path / "bin/broken-g++", "#!/bin/sh\nexit 3\n")
    toolkit = make_toolkit(tmp_path / "cuda")
    made, said = wheel(project, WITH_CUDA, CUDA_HOME=str(toolkit), CXX=str(broken))
    assert files(made) == {"_without_native.txt"}
    assert f"native kernels did not compile with {broken}" in said
    assert "nvcc" not in said


# ---- Wheels, and names with spaces ---------------------------------------------------------------

PYTHONS = [("3.10", "cp310"), ("3.13", "cp313"), ("3.13", "cp313t"), ("3.14", "cp314t")]


@needs_compiler
def test_a_wheel_with_kernels_is_for_every_python(project, tmp_path):
    made, _ = wheel(project, LAMP_KERNELS_NATIVE="1", CXX="g++")
    platform = f"linux_{os.uname().machine}"
    assert made.name.endswith(f"-py3-none-{platform}.whl")
    contents = zipfile.ZipFile(made)
    (file,) = [name for name in contents.namelist() if name.endswith(".dist-info/WHEEL")]
    fields = email.message_from_bytes(contents.read(file))
    assert fields.get_all("Tag") == [f"py3-none-{platform}"]
    assert fields["Root-Is-Purelib"] == "false"
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip("the rest needs pip")
    for python, abi in PYTHONS:
        folder = tmp_path / abi
        asked = ["--python-version", python, "--implementation", "cp", "--abi", abi]
        asked += ["--platform", platform, "--only-binary=:all:", "--no-deps", "--no-index"]
        command = ["-m", "pip", "install", "--quiet", *asked, "--target", str(folder), str(made)]
        installed = run(project, *command)
        assert installed.returncode == 0, installed.stderr
        assert (folder / "lamp_kernels/_C.abi3.so").exists()


@needs_compiler
def test_a_compiler_in_a_folder_with_spaces_and_one_with_flags(project, tmp_path):
    compiler = executable(tmp_path / "a folder/g++", '#!/bin/sh\nexec g++ "$@"\n')
    for command in (str(compiler), f"'{compiler}' -DLAMP=1"):
        made, _ = wheel(project, LAMP_KERNELS_NATIVE="1", CXX=command)
        assert "_C.abi3.so" in files(made)


# Root may write everywhere, so the folder only seems read-only.
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
    assert list(tmp_path.glob("lamp_kernels-*")) == [made]  # of its own folder nothing is left


@needs_compiler
@pytest.mark.skipif(not shutil.which("nvcc"), reason="needs nvcc")
def test_cuda_in_a_folder_with_spaces(project):
    environment = {"LAMP_KERNELS_CUDA": "1", "TORCH_CUDA_ARCH_LIST": "9.0", "CXX": "g++"}
    made, _ = wheel(project, **environment)
    assert files(made) == {"_C.abi3.so", "_C_cuda.abi3.so"}


# ---- The Makefile --------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_setup_takes_torch_alone_from_its_index():
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
