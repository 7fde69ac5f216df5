"""setup.py: its switch, its flags, what a source distribution and a built library contain."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import setuptools

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "lamp_kernels" / "_C.abi3.so"
BACKEND = "from setuptools import build_meta; print(build_meta.build_{}({!r}))"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what pip sees, without what was built in place."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copy(ROOT / "CHANGELOG.md", copy)
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.txt")
    for name in ("lamp_kernels", "csrc", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    return copy


@pytest.fixture
def no_compiler(tmp_path: Path) -> dict[str, str]:
    return {"PATH": str(tmp_path)}


def run(tree: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python in the tree; without the compiler and the switch of whoever runs the tests."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("CXX", "LAMP_KERNELS_NATIVE")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def note_after_build_py(tree: Path, folder: Path, **environment: str) -> str:
    built = run(tree, "setup.py", "build_py", "--build-lib", str(folder), **environment)
    assert built.returncode == 0, built.stderr
    assert not list(tree.glob("lamp_kernels/*.txt"))
    return (folder / "lamp_kernels" / "_without_native.txt").read_text()


def declared(monkeypatch: pytest.MonkeyPatch, switch: str) -> dict[str, Any]:
    """What setup.py tells setuptools."""
    told: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", told.update)
    monkeypatch.setenv("LAMP_KERNELS_NATIVE", switch)
    runpy.run_path(str(ROOT / "setup.py"))
    return told


def test_without_compiler_the_note_says_so(tree, tmp_path, no_compiler):
    note = note_after_build_py(tree, tmp_path / "lib", **no_compiler)
    assert note == "no C++ compiler was found when it was installed\n"


def test_a_missing_compiler_is_named(tree, tmp_path):
    note = note_after_build_py(tree, tmp_path / "lib", CXX="no-such-c++ -m64")
    assert note == "CXX=no-such-c++ -m64 was not found when it was installed\n"


def test_switched_off_the_note_says_so(tree, tmp_path):
    note = note_after_build_py(tree, tmp_path / "lib", LAMP_KERNELS_NATIVE="0")
    assert note == "it was installed with LAMP_KERNELS_NATIVE=0\n"


def test_switched_on_without_compiler_fails(tree, no_compiler):
    failed = run(tree, "setup.py", "build_py", LAMP_KERNELS_NATIVE="1", **no_compiler)
    assert failed.returncode != 0
    assert failed.stderr == "LAMP_KERNELS_NATIVE=1, but no C++ compiler was found; CXX names one\n"


def test_unknown_switch_fails(tree):
    failed = run(tree, "setup.py", "build_py", LAMP_KERNELS_NATIVE="yes")
    assert failed.returncode != 0
    assert failed.stderr == "LAMP_KERNELS_NATIVE must be auto, 0 or 1; got 'yes'\n"


def test_without_torch_the_build_says_what_to_do(tree):
    hide = "import runpy, sys; sys.modules['torch'] = None; runpy.run_path('setup.py')"
    failed = run(tree, "-c", hide, CXX=sys.executable, LAMP_KERNELS_NATIVE="1")
    assert failed.returncode != 0
    assert re.search("needs PyTorch.*Install it first.*LAMP_KERNELS_NATIVE=0", failed.stderr)


def test_switched_off_nothing_is_compiled(monkeypatch):
    assert "ext_modules" not in declared(monkeypatch, "0")


def test_documents_name_values_of_the_switch():
    text = "".join((ROOT / name).read_text() for name in ("README.md", "Makefile", ".ci/run"))
    named = re.findall(r"LAMP_KERNELS_NATIVE=(\w*)", text)
    assert named
    assert set(named) <= {"auto", "0", "1"}


def test_wheel_without_kernels(tree, tmp_path):
    built = run(tree, "-c", BACKEND.format("wheel", str(tmp_path)), LAMP_KERNELS_NATIVE="0")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    package = {name for name in names if name.startswith("lamp_kernels/")}
    modules = {f"lamp_kernels/{path.name}" for path in ROOT.glob("lamp_kernels/*.py")}
    assert package == modules | {"lamp_kernels/py.typed", "lamp_kernels/_without_native.txt"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"lamp_kernels"}


def test_sdist_has_what_a_build_needs(tree, tmp_path):
    built = run(tree, "-c", BACKEND.format("sdist", str(tmp_path)), LAMP_KERNELS_NATIVE="0")
    assert built.returncode == 0, built.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as contents:
        names = {name.partition("/")[2] for name in contents.getnames()}
    needed = {"setup.py", "pyproject.toml", "README.md", "LICENSE", "lamp_kernels/py.typed"}
    for folder in ("csrc", "lamp_kernels"):
        files = [path for path in (tree / folder).rglob("*") if path.is_file()]
        needed |= {path.relative_to(tree).as_posix() for path in files}
    assert needed <= names
    assert not [name for name in names if name.startswith("tests") or name.endswith(".so")]


# What would let a file use instructions that the machine may lack, or hide NaN. Passed to the
# linker, -ffast-math turns denormal numbers off for the whole process.
FORBIDDEN = re.compile(r"-m(arch|tune|cpu|avx|fma|sse)|-Ofast|(fast|unsafe|finite)-math")


def test_flags_suit_every_machine_and_keep_nan(monkeypatch):
    pytest.importorskip("torch")
    (extension,) = declared(monkeypatch, "1")["ext_modules"]
    flags = [*extension.extra_compile_args, *extension.extra_link_args]
    assert not [flag for flag in flags if FORBIDDEN.search(flag)]
    assert "-DTORCH_TARGET_VERSION=0x020a000000000000" in flags
    assert "-DTORCH_STABLE_ONLY" in flags
    assert extension.py_limited_api


def test_kernels_with_avx_keep_it_to_themselves(tmp_path):
    """Else the linker might take a std::max from there for the whole library.

    Without optimisation, which leaves no function inlined: any weak one can be seen.
    """
    gcc = shutil.which("g++")
    if gcc is None or shutil.which("objdump") is None:
        pytest.skip("needs g++ and objdump")
    defined = subprocess.run([gcc, "-dM", "-E", "-x", "c++", os.devnull], capture_output=True)
    if b"__x86_64__" not in defined.stdout:
        pytest.skip("these kernels are of x86-64")
    flags = ["-O0", "-std=c++20", "-fPIC", "-Wno-psabi", "-c", "-o", tmp_path / "kernel.o"]
    for name, vectors in (("v3", "%ymm"), ("v4", "%zmm")):
        source = ROOT / f"csrc/cpu/kernel_{name}.cpp"
        subprocess.run([gcc, *flags, source], check=True)
        outside, inside = avx_functions(tmp_path / "kernel.o", f"lamp_kernels::{name}::", vectors)
        assert inside, f"{source.name} was compiled without {vectors}"
        assert not outside


def avx_functions(file: Path, namespace: str, vectors: str) -> tuple[list[str], list[str]]:
    """The functions outside `namespace` with any AVX, and those inside that use `vectors`."""
    command = ["objdump", "-d", "-C", "--no-show-raw-insn", file]
    code = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    outside, inside = [], []
    for function in code.split("\n\n"):
        title, _, body = function.partition("\n")
        if namespace in title and vectors in body:
            inside.append(title)
        if namespace not in title and re.search(r"\tv[a-z0-9]+ .*%[xyz]mm", body):
            outside.append(title)
    return outside, inside


needs_library = pytest.mark.skipif(not LIBRARY.exists(), reason="needs the native kernels in place")
needs_binutils = pytest.mark.skipif(not shutil.which("readelf"), reason="needs readelf and nm")


@needs_library
@needs_binutils
def test_library_links_to_torch_and_the_system_only():
    dynamic = subprocess.run(["readelf", "-d", LIBRARY], capture_output=True, text=True).stdout
    needed = set(re.findall(r"\(NEEDED\).*\[(\w[\w+-]*)\.so", dynamic))
    assert "libtorch_cpu" in needed
    system = {"libstdc++", "libm", "libgcc_s", "libc"} | {n for n in needed if n.startswith("ld-")}
    assert needed <= {"libtorch", "libtorch_cpu", "libc10"} | system
    assert "RPATH" not in dynamic
    assert "RUNPATH" not in dynamic


@needs_library
@needs_binutils
def test_library_exports_nothing_of_its_own():
    command = ["nm", "-DC", "--defined-only", LIBRARY]
    exported = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    assert not [line for line in exported if "lamp_kernels" in line or "torch" in line]


@needs_library
def test_library_does_not_tell_where_it_was_built():
    content = LIBRARY.read_bytes()
    for path in (ROOT, Path(setuptools.__file__).parents[1]):
        assert os.fsencode(path) not in content


@needs_library
def test_denormal_numbers_stay_on():
    from lamp_kernels import backends

    assert "native" in backends.available()
    least = sys.float_info.min
    assert least / 2 > 0
