"""setup.py: its switches, its flags, and the contents of source distributions and libraries."""

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
from projects import (
    BACKEND,
    ROOT,
    SETTINGS,
    SWITCHES,
    copy_tree,
    error_of,
    executable,
    make_toolkit,
    run,
)

LIBRARY = ROOT / "lamp_kernels" / "_C.abi3.so"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("tree")
    copy_tree(copy)
    return copy


@pytest.fixture
def no_compiler(tmp_path: Path) -> dict[str, str]:
    return {"PATH": str(tmp_path)}


def note_after_build_py(tree: Path, folder: Path, kind: str = "native", **environment: str) -> str:
    built = run(tree, "setup.py", "build_py", "--build-lib", str(folder), **environment)
    assert built.returncode == 0, built.stderr
    assert not list(tree.glob("lamp_kernels/*.txt"))
    (note,) = (folder / "lamp_kernels").glob("*.txt")
    assert note.name == f"_without_{kind}.txt"
    return note.read_text()


def executed(
    monkeypatch: pytest.MonkeyPatch, native: str = "1", cuda: str = "0", **environment: str
) -> dict[str, Any]:
    """The globals of setup.py; `told` holds the arguments that it passed to setuptools."""
    told: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **keywords: told.update(keywords))
    for name in SETTINGS:
        monkeypatch.setenv(name, "")  # so that it is restored afterwards if setup.py sets it
        monkeypatch.delenv(name)
    environment |= {"LAMP_KERNELS_NATIVE": native, "LAMP_KERNELS_CUDA": cuda}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return runpy.run_path(str(ROOT / "setup.py")) | {"told": told}


def test_the_note_reports_a_missing_compiler(tree, tmp_path, no_compiler):
    note = note_after_build_py(tree, tmp_path / "lib", **no_compiler)
    assert note == "no C++ compiler was found during installation\n"


def test_the_note_names_a_cxx_that_was_not_found(tree, tmp_path):
    note = note_after_build_py(tree, tmp_path / "lib", CXX="no-such-c++ -m64")
    assert note == "CXX=no-such-c++ -m64 was not found during installation\n"


def test_cxx_with_an_open_quote_is_an_error(tree):
    built = run(tree, "setup.py", "--version", CXX="g++ 'x")
    assert built.returncode != 0
    assert "CXX=g++ 'x is not a valid command: No closing quotation" in built.stderr
    assert "Traceback" not in built.stderr


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("ccache g++", "g++"),
        ("env CCACHE_DIR=/x/gcc-cache g++ -m64", "g++"),
        ("nice -n 5 clang++-14 --sysroot=/gcc", "clang++-14"),
    ],
)
def test_the_compiler_is_found_in_a_command(monkeypatch, command, found):
    words = command.split()
    assert words[executed(monkeypatch, native="0")["compiler_index"](words)] == found


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        ("a.cpp:1:2: error: x", True),
        ("/usr/bin/ld: cannot find -lfoo", True),
        ("/bin/sh: 1: g++: not found", True),
        ("bash: line 1: g++: command not found", True),
        ("Killed", True),
        ("a.cpp:1:2: warning: not an error: x", False),
        ("/usr/bin/ld: warning: x", False),
    ],
)
def test_compiler_errors_are_recognized(monkeypatch, line, is_one):
    first_error = executed(monkeypatch, native="0")["first_error"]
    assert (first_error(["", line], RuntimeError("other")) == line) == is_one


def test_the_note_reports_a_switch_that_is_off(tree, tmp_path):
    note = note_after_build_py(tree, tmp_path / "lib", LAMP_KERNELS_NATIVE="0")
    assert note == "lamp_kernels was installed with LAMP_KERNELS_NATIVE=0\n"


def test_required_kernels_without_a_compiler_are_an_error(tree, no_compiler):
    failed = run(tree, "setup.py", "build_py", LAMP_KERNELS_NATIVE="1", **no_compiler)
    said = "LAMP_KERNELS_NATIVE=1, but no C++ compiler was found; set CXX to a C++ compiler\n"
    assert error_of(failed) == said


@pytest.mark.parametrize("switch", SWITCHES)
def test_an_invalid_switch_is_an_error(tree, switch):
    failed = run(tree, "setup.py", "build_py", **{switch: "yes"})
    assert error_of(failed) == f"{switch} must be auto, 0 or 1, got 'yes'\n"


def test_without_torch_the_build_says_how_to_proceed(tree):
    hide = "import runpy, sys; sys.modules['torch'] = None; runpy.run_path('setup.py')"
    failed = run(tree, "-c", hide, CXX=sys.executable, LAMP_KERNELS_NATIVE="1")
    assert re.search("requires PyTorch.*Install it first.*LAMP_KERNELS_NATIVE=0", error_of(failed))


def test_nothing_is_compiled_if_switched_off(monkeypatch):
    assert "ext_modules" not in executed(monkeypatch, native="0")["told"]


@pytest.mark.parametrize("switch", SWITCHES)
def test_documentation_uses_valid_values_of_the_switch(switch):
    sources = ("README.md", "Makefile", ".ci/run", "lamp_kernels/backends/native.py")
    text = "".join((ROOT / name).read_text() for name in sources)
    named = re.findall(rf"{switch}=(\w*)", text)
    assert named
    assert set(named) <= {"auto", "0", "1"}


def test_wheel_without_kernels(tree, tmp_path):
    built = run(tree, "-c", BACKEND.format("wheel", str(tmp_path)), LAMP_KERNELS_NATIVE="0")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    package = {name for name in names if name.startswith("lamp_kernels/")}
    modules = {str(path.relative_to(ROOT)) for path in ROOT.glob("lamp_kernels/**/*.py")}
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


def test_version_of_a_wheel_with_cuda_kernels(tree, tmp_path):
    environment = {"LAMP_KERNELS_NATIVE": "0", "LAMP_KERNELS_LOCAL_VERSION": "cu130"}
    built = run(tree, "-c", BACKEND.format("wheel", str(tmp_path)), **environment)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("+cu130-py3-none-any.whl")


# ---- The CUDA kernels: their toolkit and their targets -------------------------------------------


@pytest.fixture
def cuda_toolkit(tmp_path: Path) -> Path:
    return make_toolkit(tmp_path / "cuda-13.0")


def test_the_toolkit_of_a_script_that_calls_nvcc(monkeypatch, tmp_path, cuda_toolkit):
    """The toolkit is not two levels above the script, as it is for nvcc itself."""
    executable(tmp_path / "tools/bin/nvcc", f'#!/bin/sh\nexec {cuda_toolkit}/bin/nvcc "$@"\n')
    setup = executed(monkeypatch)
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools/bin'}{os.pathsep}{os.environ['PATH']}")
    found = setup["toolkit"]()
    assert found.root == cuda_toolkit
    assert found.release == "13.0"
    assert found.headers == cuda_toolkit / "include"
    assert found.libraries == cuda_toolkit / "lib64"
    assert found.host_compilers() == "GCC up to 15 or clang before 21"


def test_cuda_home_selects_the_toolkit(monkeypatch, tmp_path, cuda_toolkit):
    setup = executed(monkeypatch)
    monkeypatch.setenv("CUDA_HOME", str(cuda_toolkit))
    assert setup["toolkit"]().root == cuda_toolkit
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert setup["toolkit"]() == f"no nvcc was found in CUDA_HOME={tmp_path}"


def test_an_incomplete_toolkit_is_rejected(monkeypatch, cuda_toolkit):
    (cuda_toolkit / "lib64/libcudart_static.a").unlink()
    setup = executed(monkeypatch)
    monkeypatch.setenv("CUDA_HOME", str(cuda_toolkit))
    assert f"libcudart_static.a was not found in the toolkit {cuda_toolkit}" in setup["toolkit"]()


@pytest.mark.parametrize(
    ("switch", "toolkit", "torch", "reason"),
    [
        ("auto", True, "13.0", None),
        ("auto", True, "13.2", None),
        ("auto", True, None, "lamp_kernels was built with a PyTorch without CUDA"),
        ("auto", True, "12.8", "nvcc was from CUDA 13.0, but PyTorch was built for CUDA 12.8"),
        ("auto", False, "13.0", "no nvcc was found in CUDA_HOME=nowhere at build time"),
        ("0", True, "13.0", "lamp_kernels was built with LAMP_KERNELS_CUDA=0"),
        ("1", True, None, None),
        ("1", False, "13.0", SystemExit("LAMP_KERNELS_CUDA=1, but no nvcc was found in CUDA_HOME")),
    ],
)
def test_when_cuda_kernels_are_built(monkeypatch, cuda_toolkit, switch, toolkit, torch, reason):
    choose = executed(monkeypatch)["cuda_toolkit"]
    monkeypatch.setenv("LAMP_KERNELS_CUDA", switch)
    monkeypatch.setenv("CUDA_HOME", str(cuda_toolkit) if toolkit else "nowhere")
    if isinstance(reason, SystemExit):
        with pytest.raises(SystemExit, match=str(reason)):
            choose(torch)
    elif reason is None:
        assert choose(torch).root == cuda_toolkit
    else:
        assert choose(torch) == reason


def test_cuda_kernels_require_the_native_kernels(tree):
    switches = {"LAMP_KERNELS_NATIVE": "0", "LAMP_KERNELS_CUDA": "1"}
    failed = run(tree, "setup.py", "build_py", **switches)
    assert error_of(failed).startswith("LAMP_KERNELS_CUDA=1 requires the native kernels: ")


def test_the_note_reports_cuda_kernels_that_are_off(tree, tmp_path):
    pytest.importorskip("torch")
    switches = {"LAMP_KERNELS_NATIVE": "1", "LAMP_KERNELS_CUDA": "0"}
    note = note_after_build_py(tree, tmp_path / "lib", "cuda", CXX=sys.executable, **switches)
    assert note == "lamp_kernels was built with LAMP_KERNELS_CUDA=0\n"


def nvcc_flags(monkeypatch: pytest.MonkeyPatch, toolkit: Path, **environment: str) -> list[str]:
    """The flags of nvcc, followed by the targets that bindings.cpp receives as a macro."""
    told = executed(monkeypatch, cuda="1", CUDA_HOME=str(toolkit), **environment)["told"]
    _, extension = told["ext_modules"]
    (targets,) = [f for f in extension.extra_compile_args["cxx"] if "LAMP_CUDA_TARGETS" in f]
    return [*extension.extra_compile_args["nvcc"], targets]


class TestTargets:
    @pytest.fixture(autouse=True)
    def no_device(self, monkeypatch):
        torch = pytest.importorskip("torch")
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)

    def test_come_from_the_environment(self, monkeypatch, cuda_toolkit):
        asked = {"TORCH_CUDA_ARCH_LIST": "9.0+PTX 7.5"}
        flags = nvcc_flags(monkeypatch, cuda_toolkit, **asked)
        generated = {flag for flag in flags if flag.startswith("-gencode")}
        assert generated == {
            "-gencode=arch=compute_75,code=sm_75",
            "-gencode=arch=compute_90,code=sm_90",
            "-gencode=arch=compute_90,code=compute_90",
        }
        assert flags[-1] == "-DLAMP_CUDA_TARGETS=sm_75,sm_90,compute_90"

    def test_are_all_if_there_is_no_device(self, monkeypatch, cuda_toolkit):
        named = "sm_75,sm_80,sm_86,sm_89,sm_90,sm_100,sm_120,compute_120"
        assert nvcc_flags(monkeypatch, cuda_toolkit)[-1] == f"-DLAMP_CUDA_TARGETS={named}"

    def test_match_the_devices(self, monkeypatch, cuda_toolkit):
        import torch

        monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
        capabilities = [(9, 0), (8, 6), (9, 0)]
        monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.__getitem__)
        assert nvcc_flags(monkeypatch, cuda_toolkit)[-1] == "-DLAMP_CUDA_TARGETS=sm_86,sm_90"

    def test_must_be_valid(self, monkeypatch, cuda_toolkit):
        with pytest.raises(SystemExit, match="TORCH_CUDA_ARCH_LIST=Pentium: "):
            nvcc_flags(monkeypatch, cuda_toolkit, TORCH_CUDA_ARCH_LIST="Pentium")

    def test_host_compiler_is_the_cxx_compiler(self, monkeypatch, cuda_toolkit):
        flags = nvcc_flags(monkeypatch, cuda_toolkit, CXX=f"{sys.executable} -m64")
        assert flags[flags.index("-ccbin") + 1] == sys.executable
        assert flags[flags.index("-m64") - 1] == "-Xcompiler"
        assert "-ccbin" not in nvcc_flags(monkeypatch, cuda_toolkit, NVCC_CCBIN="g++")
        behind = nvcc_flags(monkeypatch, cuda_toolkit, CXX="env g++ -m64")  # ccache is similar
        assert behind[behind.index("-ccbin") + 1] == "g++"
        assert "env" not in behind


# Flags that would allow instructions the machine may lack, or hide NaN. In the linker's command,
# -ffast-math turns denormal numbers off for the whole process.
FORBIDDEN = re.compile(r"-m(arch|tune|cpu|avx|fma|sse)|-Ofast|(fast|unsafe|finite)[-_]math|-g$")


def test_flags_suit_every_machine_and_keep_nan(monkeypatch, cuda_toolkit):
    pytest.importorskip("torch")
    told = executed(monkeypatch, cuda="1", CUDA_HOME=str(cuda_toolkit))["told"]
    for extension in told["ext_modules"]:
        given = extension.extra_compile_args
        for flags in [given] if isinstance(given, list) else given.values():
            assert not [flag for flag in flags if FORBIDDEN.search(flag)]
            assert "-DTORCH_TARGET_VERSION=0x020a000000000000" in flags
            assert "-DTORCH_STABLE_ONLY" in flags
        assert not [flag for flag in extension.extra_link_args if FORBIDDEN.search(flag)]
        assert extension.py_limited_api


def test_avx_code_stays_in_its_namespace(tmp_path):
    """Otherwise the linker might pick a std::max with AVX for the whole library.

    Compiled without optimization, so that nothing is inlined and every weak function is visible.
    """
    gcc = shutil.which("g++")
    if gcc is None or shutil.which("objdump") is None:
        pytest.skip("needs g++ and objdump")
    defined = subprocess.run([gcc, "-dM", "-E", "-x", "c++", os.devnull], capture_output=True)
    if b"__x86_64__" not in defined.stdout:
        pytest.skip("these kernels exist only on x86-64")
    flags = ["-O0", "-std=c++20", "-fPIC", "-Wno-psabi", "-c", "-o", tmp_path / "kernel.o"]
    for name, vectors in (("avx2", "%ymm"), ("avx512", "%zmm")):
        source = ROOT / f"csrc/cpu/kernel_{name}.cpp"
        subprocess.run([gcc, *flags, source], check=True)
        outside, inside = avx_functions(tmp_path / "kernel.o", f"lamp_kernels::{name}::", vectors)
        assert inside, f"{source.name} was compiled without {vectors}"
        assert not outside


def avx_functions(file: Path, namespace: str, vectors: str) -> tuple[list[str], list[str]]:
    """Functions outside `namespace` that use AVX, and those inside that use `vectors`."""
    command = ["objdump", "-d", "-C", "--no-show-raw-insn", str(file)]
    code = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    outside, inside = [], []
    for function in code.split("\n\n"):
        title, _, body = function.partition("\n")
        if namespace in title and vectors in body:
            inside.append(title)
        if namespace not in title and re.search(r"\tv[a-z0-9]+ .*%[xyz]mm", body):
            outside.append(title)
    return outside, inside


CUDA_LIBRARY = ROOT / "lamp_kernels" / "_C_cuda.abi3.so"

needs_library = pytest.mark.skipif(not LIBRARY.exists(), reason="needs the native kernels in place")
needs_binutils = pytest.mark.skipif(not shutil.which("readelf"), reason="needs readelf and nm")


@pytest.fixture(params=[LIBRARY, CUDA_LIBRARY], ids=lambda path: path.name.partition(".")[0])
def library(request: pytest.FixtureRequest) -> Path:
    """Each of the libraries."""
    if not request.param.exists():
        pytest.skip(f"needs {request.param.name} in place: make build, or make build-cuda")
    return request.param


def printed(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@needs_binutils
def test_library_links_to_torch_and_the_system_only(library):
    dynamic = printed("readelf", "-d", library)
    needed = set(re.findall(r"\(NEEDED\).*\[(\w[\w+-]*)\.so", dynamic))
    assert "libtorch_cpu" in needed
    system = {"libstdc++", "libm", "libgcc_s", "libc"} | {n for n in needed if n.startswith("ld-")}
    system |= {"librt", "libdl", "libpthread"}  # apart from libc before glibc 2.34
    assert needed <= {"libtorch", "libtorch_cpu", "libc10"} | system
    assert "RPATH" not in dynamic
    assert "RUNPATH" not in dynamic


@needs_binutils
def test_library_uses_no_python_symbols(library):
    """One wheel is tagged for every Python."""
    assert not re.findall(r" _?Py[A-Z_]\w*", printed("nm", "-D", "--undefined-only", library))


@needs_binutils
def test_library_exports_no_symbols_of_the_project_or_cuda(library):
    exported = printed("nm", "-DC", "--defined-only", library).splitlines()
    foreign = re.compile(r"lamp_kernels|torch|\b(cuda|cu[A-Z]|__cuda)\w*")
    assert not [line for line in exported if foreign.search(line)]


@needs_binutils
def test_library_loads_without_cuda(library):
    """A PyTorch without CUDA does not define the symbols of PyTorch's CUDA library."""
    undefined = printed("nm", "-DC", "--undefined-only", library)
    assert not re.findall(r".*(?:c10|at)::cuda.*| (?:cuda|cu[A-Z]|__cuda)\w*", undefined)
    assert "aoti_torch_get_current_cuda_stream" not in undefined


def test_library_contains_no_build_paths(library):
    content = library.read_bytes()
    for path in (ROOT, Path(setuptools.__file__).parents[1]):
        assert os.fsencode(path) not in content


@needs_binutils
def test_cuda_budgets_count_kernels_by_their_stubs():
    cuda_budgets = runpy.run_path(str(ROOT / "tests/install/cuda_budgets.py"))
    symbols = "\n".join(
        f"0000 b _ZZL{len(stub)}{stub}RKN1a9ArgumentsE{variable}"
        for stub in ("__device_stub__Z1fIfEvN1a9ArgumentsE", "__device_stub__Z1fIdEvN1a9ArgumentsE")
        for variable in ("E5__tmp", "E8__handle")
    )
    assert len(cuda_budgets["kernels"](symbols)) == 2


@needs_library
class TestWithoutCudaKernels:
    """A package built without them, and one whose second library is broken."""

    @pytest.fixture
    def package(self, tmp_path):
        ignored = shutil.ignore_patterns("__pycache__", "_C_cuda*", "*.txt")
        shutil.copytree(ROOT / "lamp_kernels", tmp_path / "lamp_kernels", ignore=ignored)
        return tmp_path / "lamp_kernels"

    def test_the_report_quotes_the_note(self, package):
        (package / "_without_cuda.txt").write_text("built with LAMP_KERNELS_CUDA=0\n")
        report = run(package.parent, "-m", "lamp_kernels").stdout
        line = (
            "CUDA kernels: built with LAMP_KERNELS_CUDA=0 (_C_cuda.abi3.so is not in the "
            "package); install a wheel with a CUDA release in its version"
        )
        assert line in report
        assert "all checks passed" in report

    def test_the_report_quotes_the_loader_error(self, package):
        (package / "_C_cuda.abi3.so").write_text("not a library")
        report = run(package.parent, "-m", "lamp_kernels").stdout
        assert "CUDA kernels: _C_cuda.abi3.so failed to load: " in report
        assert "all checks passed" in report


@needs_library
def test_denormal_numbers_stay_on():
    from lamp_kernels import backends

    assert "native" in backends.available()
    least = sys.float_info.min
    assert least / 2 > 0
