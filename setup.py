"""Builds the native kernels; everything else about the package is in pyproject.toml.

Environment switches:

    LAMP_KERNELS_NATIVE    "auto" (default): build the native kernels on Linux; where there is no
                           C++ compiler or it fails, install without them and let
                           `python -m lamp_kernels` say why. "1": build them, or fail. "0": install
                           without them.
    CXX                    the C++ compiler, with flags if need be; without it g++, c++ or clang++.
                           GCC from 12 on for all instruction sets; GCC 10 and 11 and clang from 11
                           on build the baseline only
    MAX_JOBS               how many files are compiled at once, where ninja is installed
    LAMP_KERNELS_CUDA      "auto" (default): build the CUDA kernels too if PyTorch is a CUDA build
                           and nvcc is found and does not fail, else leave a note why not (with
                           LAMP_KERNELS_NATIVE=1 nvcc must not fail). "1": build them, or fail;
                           any PyTorch will do, and no GPU is needed. "0": do not
    CUDA_HOME              the CUDA toolkit; without it that of the nvcc on PATH, or /usr/local/cuda
    NVCC_CCBIN             nvcc's host compiler; without it the C++ compiler
    TORCH_CUDA_ARCH_LIST   what the CUDA kernels are compiled for, as PyTorch has it: "8.0;9.0+PTX".
                           Without it the GPUs that PyTorch sees, and where it sees none everything
                           from 7.5 to 12.0 and PTX for what comes after
    LAMP_KERNELS_LOCAL_VERSION
                           what follows "+" in the version, for wheels with CUDA kernels ("cu130")
"""

import atexit
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

SWITCH = "LAMP_KERNELS_NATIVE"
CUDA_SWITCH = "LAMP_KERNELS_CUDA"
TARGETS = "TORCH_CUDA_ARCH_LIST"
ALL_TARGETS = "7.5;8.0;8.6;8.9;9.0;10.0;12.0+PTX"
ROOT = Path(__file__).resolve().parent
EXTENSION, CUDA_EXTENSION = "lamp_kernels._C", "lamp_kernels._C_cuda"
NATIVE_NOTE, CUDA_NOTE = "_without_native.txt", "_without_cuda.txt"  # in the package


def files(pattern: str) -> list[str]:
    """The files below csrc, relative to the project."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob(pattern))


SOURCES = ["csrc/bindings.cpp", *files("cpu/*.cpp")]
CUDA_SOURCES = ["csrc/cuda/bindings.cpp", *files("cuda/*.cu")]
HEADERS = [*files("*.h"), *files("*.cuh")]
CPU_HEADERS = [path for path in HEADERS if not path.startswith("csrc/cuda/")]
CUDA_HEADERS = [path for path in HEADERS if not path.startswith("csrc/cpu/")]

# The library uses LibTorch's stable ABI of release 2.10 and works with every later one.
STABLE_ABI = ["-DTORCH_TARGET_VERSION=0x020a000000000000", "-DTORCH_STABLE_ONLY"]
# None of these changes what a NaN or an infinity does. No -march: the kernels choose at run time.
OPTIMISATION = ["-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
STYLE = ["-std=c++20", "-fvisibility=hidden", "-Wno-psabi"]


def compiler() -> str | None:
    """The command of the C++ compiler that the build uses, or None where there is none."""
    named = os.environ.get("CXX", "").strip()
    if named and shutil.which(named):
        return shlex.quote(named)  # a path, with spaces in it or without
    for command in [named] if named else ["g++", "c++", "clang++"]:
        if shutil.which(words(command)[0]):
            return command
    return None


def words(command: str) -> list[str]:
    """Those of the command of a compiler, which CXX gives."""
    try:
        return shlex.split(command)
    except ValueError as error:
        raise SystemExit(f"CXX={command} is no command: {error}") from error


def program(words: list[str]) -> int:
    """Where the compiler stands in a command: behind env with its VAR=path, before its flags."""
    compilers = re.compile("g[+]{2}|c[+]{2}|gcc|clang")
    places = (
        at for at, word in enumerate(words) if "=" not in word and compilers.search(Path(word).name)
    )
    return next(places, 0)


def one_word(command: str, folder: Path) -> str:
    """The same compiler as a program on PATH: PyTorch 2.13 quotes flags into the program's name."""
    words = shlex.split(command)
    if words == [command]:
        return command
    # PyTorch tells GCC from clang by the name; ninja compiles anew where the name changes.
    script = folder / f"{Path(words[program(words)]).name}-{zlib.crc32(command.encode()):x}"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    script.chmod(0o755)
    os.environ["PATH"] = f"{folder.resolve()}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return script.name


def required() -> bool:
    """Whether the installation is to fail where kernels do not compile."""
    return "1" in (switched(SWITCH), switched(CUDA_SWITCH))


@contextmanager
def recorded() -> Iterator[list[str]]:
    """The lines printed meanwhile, by other programs too; all of them go to standard error."""
    lines: list[str] = []
    read, write = os.pipe()
    before = os.dup(1), os.dup(2)

    def copy() -> None:
        with open(read, encoding="utf-8", errors="replace") as printed:
            for line in printed:
                lines.append(line.rstrip())
                os.write(before[1], line.encode())

    copier = threading.Thread(target=copy, daemon=True)
    copier.start()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(write, 1)
        os.dup2(write, 2)
        yield lines
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, saved in zip((1, 2), before, strict=True):
            os.dup2(saved, descriptor)
        os.close(write)
        copier.join(5)  # longer only where a compiler leaves a server of its own running
        os.close(before[0])
        if not copier.is_alive():
            os.close(before[1])


ERROR = re.compile(
    r"^(?!.*\b(warning|note): )"
    r".*(\berror: |\bfatal\s*: |\bld(\.\w+)?: |: (command )?not found$|\bKilled$)"
)


def first_error(lines: list[str], error: BaseException) -> str:
    """The line in which a compiler or linker first says that something is wrong."""
    found = next((line for line in lines if ERROR.search(line)), str(error))
    return textwrap.shorten(found.replace(f"{ROOT}/", ""), 300, placeholder=" ...")


def switched(name: str) -> str:
    """The setting of a switch."""
    switch = os.environ.get(name, "auto")
    if switch not in ("auto", "0", "1"):
        raise SystemExit(f"{name} must be auto, 0 or 1; got {switch!r}")
    return switch


def why_without_native() -> str | None:
    """None if the native kernels are to be built, else the reason why not."""
    switch = switched(SWITCH)
    if switch == "0":
        return f"it was installed with {SWITCH}=0"
    if switch == "auto" and sys.platform != "linux":
        return f"on {sys.platform} they are untried and built only with {SWITCH}=1"
    if compiler() is None:
        named = os.environ.get("CXX")
        missing = f"CXX={named}" if named else "no C++ compiler"
        found = f"{missing} was{' not' if named else ''} found"
        if switch == "1":
            raise SystemExit(f"{SWITCH}=1, but {found}; CXX names one")
        return f"{found} when it was installed"
    return None


class Toolkit(NamedTuple):
    """What of a CUDA toolkit the build uses."""

    root: Path
    release: str
    headers: Path
    libraries: Path

    def host_compilers(self) -> str:
        """Those that its nvcc takes, as far as its headers tell."""
        file = self.headers / "crt" / "host_config.h"
        text = file.read_text(errors="replace") if file.exists() else ""
        gcc = re.search(r"gcc versions later than (\d+)", text)
        clang = re.search(r"clang version must be less than (\d+)", text)
        found = [f"GCC up to {gcc[1]}"] if gcc else []
        found += [f"clang before {clang[1]}"] if clang else []
        return " or ".join(found) or "certain releases of GCC and clang"


def toolkit() -> Toolkit | str:
    """The CUDA toolkit, or why there is none that serves."""
    named = os.environ.get("CUDA_HOME")
    places = os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/local/cuda/bin"
    nvcc = shutil.which("nvcc", path=str(Path(named, "bin")) if named else places)
    if nvcc is None:
        return f"CUDA_HOME={named} has no nvcc" if named else "no nvcc was found"

    def told(*arguments: str) -> str:
        result = subprocess.run([str(nvcc), *arguments], capture_output=True, text=True)
        return result.stdout + result.stderr

    # What is on PATH may be a script that calls a toolkit's nvcc, which knows where it lies.
    top = re.search(r"^#\$ TOP=(.+)$", told("--dryrun", "-E", "-x", "cu", os.devnull), re.MULTILINE)
    release = re.search(r"release (\d+\.\d+)", told("--version"))
    root = Path(named or (top[1].strip() if top else Path(nvcc).resolve().parents[1])).resolve()
    headers = next(root.glob("include/cuda_runtime.h"), None) or next(
        root.glob("targets/*/include/cuda_runtime.h"), None
    )
    libraries = next(root.glob("lib*/libcudart_static.a"), None) or next(
        root.glob("targets/*/lib/libcudart_static.a"), None
    )
    if release is None or headers is None or libraries is None:
        return f"the CUDA toolkit in {root} lacks nvcc, cuda_runtime.h or libcudart_static.a"
    return Toolkit(root, release[1], headers.parent, libraries.parent)


def cuda_toolkit(cuda_of_torch: str | None) -> Toolkit | str:
    """With what the CUDA kernels are to be built, or the reason why not."""
    switch = switched(CUDA_SWITCH)
    if switch == "0":
        return f"it was built with {CUDA_SWITCH}=0"
    if switch == "auto" and cuda_of_torch is None:
        return "the PyTorch that it was built with has no CUDA"
    found = toolkit()
    if switch == "1":
        if isinstance(found, str):
            raise SystemExit(f"{CUDA_SWITCH}=1, but {found}; CUDA_HOME names a toolkit")
        return found
    if isinstance(found, str):
        return f"{found} when it was built"
    if found.release.partition(".")[0] != str(cuda_of_torch).partition(".")[0]:
        return f"nvcc was of CUDA {found.release} and PyTorch of CUDA {cuda_of_torch}"
    return found


def native() -> dict[str, Any]:
    """What `setup` is told to build the kernels."""
    try:
        import torch
        from torch.utils import cpp_extension
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"building the native kernels needs PyTorch >= 2.10, but {error}. Install it first, "
            f"or let pip do so (no --no-build-isolation), or install without with {SWITCH}=0"
        ) from error

    cuda = cuda_toolkit(torch.version.cuda)
    named = str(compiler())

    class BuildNative(cpp_extension.BuildExtension):  # type: ignore[misc]
        """Compiles and links with one compiler; goes on without what fails, where it may."""

        def run(self) -> None:
            # Else torch compiles with c++, and setuptools links with what Python was built with.
            os.environ["CXX"] = one_word(named, Path(self.build_temp))
            os.environ["LC_ALL"] = "C"  # what the compiler says is looked for errors
            if isinstance(cuda, Toolkit):
                # In its place torch would guess one from the nvcc on PATH.
                cpp_extension.CUDA_HOME = str(cuda.root)
            self.parallel = None  # one extension at a time, each by several processes of ninja
            self.failed: dict[str, str] = {}  # why, by the extension's name
            self.extensions = list(self.extensions)  # setuptools asks later if there were any
            super().run()
            self.tidy()

        def build_extensions(self) -> None:
            while self.extensions:
                try:
                    super().build_extensions()
                    break
                except Exception as error:
                    # PyTorch looks at the compilers before it compiles anything.
                    told = subprocess.run([os.environ["CXX"], "--version"], capture_output=True)
                    if told.returncode != 0:  # then it is not nvcc that failed
                        del self.extensions[1:]
                    self.go_on_without(self.extensions.pop(), [], error)
            # The CUDA library is of no use without the first.
            first_failed = EXTENSION in self.failed
            built = [ext for ext in self.extensions if ext.name not in self.failed]
            self.extensions = [] if first_failed else built

        def build_extension(self, ext: Any) -> None:
            if EXTENSION in self.failed:
                return
            # Beside a PyTorch without CUDA, ninja is not told what headers a .cu includes.
            newest = max((ROOT / path).stat().st_mtime for path in CUDA_HEADERS)
            for built in Path(self.build_temp).rglob("csrc/cuda/*.o"):
                if built.stat().st_mtime < newest:
                    built.unlink()
            with recorded() as lines:
                try:
                    super().build_extension(ext)
                    return
                except Exception as caught:
                    error = caught
            self.go_on_without(ext, lines, error)

        def go_on_without(self, ext: Any, lines: list[str], error: Exception) -> None:
            """Leave the extension out, and say why; an error where it is required."""
            if isinstance(cuda, Toolkit) and ext.name == CUDA_EXTENSION:
                kernels, switch, instead = "CUDA kernels", CUDA_SWITCH, "without them"
                program = f"nvcc of CUDA {cuda.release}"
                advice = (
                    f"nvcc of CUDA {cuda.release} takes {cuda.host_compilers()} as host compiler: "
                    f"CXX or NVCC_CCBIN names one, {TARGETS} the GPUs"
                )
            else:
                kernels, switch, instead = "native kernels", SWITCH, "with the plain PyTorch path"
                program = named
                advice = "They need C++20: GCC from 12 on is best, and CXX names one"
            advice = (
                f"The {kernels} did not compile with {program}. {advice}. {switch}=0 installs "
                "without them."
            )
            if required():
                raise SystemExit(f"{error}\n{advice}") from error
            self.failed[ext.name] = (
                f"its {kernels} did not compile with {program} when it was built "
                f"({first_error(lines, error)}), which {switch}=1 makes an error"
            )
            said = f"lamp_kernels goes on {instead}: {self.failed[ext.name]}."
            print(advice, said, sep="\n", file=sys.stderr)

        def tidy(self) -> None:
            """Leave notes of what failed, and no library that is not of this build."""
            package = Path(self.get_ext_fullpath(EXTENSION)).parent
            package.mkdir(parents=True, exist_ok=True)
            for name, note in ((EXTENSION, NATIVE_NOTE), (CUDA_EXTENSION, CUDA_NOTE)):
                if name in self.failed:
                    (package / note).write_text(self.failed[name] + "\n", encoding="utf-8")
                elif self.inplace:
                    (package / note).unlink(missing_ok=True)
                built = name in [ext.name for ext in self.extensions]
                if name in self.failed or not (built or self.inplace):
                    Path(self.get_ext_fullpath(name)).unlink(missing_ok=True)

        def get_ext_filename(self, name: str) -> str:
            """The same for every Python, free-threaded ones too, for it links none."""
            return name.replace(".", os.sep) + ".abi3.so"

    class PackNative(bdist_wheel):
        """A wheel for every Python, and for every machine where it has no library."""

        def get_tag(self) -> tuple[str, str, str]:
            """Those of its file name."""
            platform = super().get_tag()[2]
            built = self.get_finalized_command("build_ext").extensions
            return "py3", "none", platform if built else "any"

    # Messages would else carry the paths of the machine that built, and no two builds be equal.
    paths = [f"-ffile-prefix-map={path}/=" for path in (ROOT, Path(torch.__file__).parent)]
    extensions = [
        cpp_extension.CppExtension(
            EXTENSION,
            SOURCES,
            depends=CPU_HEADERS,
            extra_compile_args=[*OPTIMISATION, *STYLE, *STABLE_ABI, *paths],
            extra_link_args=["-s"],
            py_limited_api=True,
        )
    ]
    if isinstance(cuda, Toolkit):
        extensions.append(cuda_extension(torch, cuda, paths))
    else:
        NOTES[CUDA_NOTE] = cuda
    return {
        "ext_modules": extensions,
        "cmdclass": {"build_ext": BuildNative, "build_py": BuildPython, "bdist_wheel": PackNative},
        "options": {},
    }


def cuda_extension(torch: Any, cuda: Toolkit, paths: list[str]) -> Any:
    """The second library: it only adds kernels to the operators of the first."""
    from torch.utils import cpp_extension

    if not os.environ.get(TARGETS):
        devices = range(torch.cuda.device_count())
        here = sorted({torch.cuda.get_device_capability(device) for device in devices})
        os.environ[TARGETS] = ";".join(f"{a}.{b}" for a, b in here) or ALL_TARGETS
    try:
        generate = cpp_extension._get_cuda_arch_flags()
    except ValueError as error:
        raise SystemExit(f"{TARGETS}={os.environ[TARGETS]}: {error}") from error
    codes = re.findall(r",code=(\w+)", " ".join(generate))
    codes.sort(key=lambda code: (int(re.sub(r"\D", "", code)), not code.startswith("sm_")))
    words = shlex.split(str(compiler()))
    host, *arguments = words[program(words) :]
    for argument in [*arguments, "-fvisibility=hidden", "-Wno-psabi", *paths]:
        generate += ["-Xcompiler", shlex.quote(argument)]  # nvcc calls it by a shell
    # A fifth of the size. Drivers older than CUDA 12.4 cannot read it, and are refused by CUDA 13.
    if int(cuda.release.partition(".")[0]) >= 13:
        generate.append("--compress-mode=size")
    if not os.environ.get("NVCC_CCBIN"):
        generate += ["-ccbin", host]
    return cpp_extension.CppExtension(
        CUDA_EXTENSION,
        CUDA_SOURCES,
        depends=CUDA_HEADERS,
        include_dirs=[str(cuda.headers)],
        library_dirs=[str(cuda.libraries)],
        # Static and hidden: the library loads where there is no CUDA, and PyTorch has its own.
        libraries=["cudart_static", "rt", "dl", "pthread"],
        extra_compile_args={
            "cxx": [
                *OPTIMISATION,
                *STYLE,
                *STABLE_ABI,
                *paths,
                f"-DLAMP_CUDA_TARGETS={','.join(codes)}",
            ],
            "nvcc": ["-O3", "-std=c++20", *STABLE_ABI, *generate],
        },
        extra_link_args=["-s", "-Wl,--exclude-libs,ALL"],
        py_limited_api=True,
    )


class BuildPython(build_py):
    """Copies the package, and beside it the reasons why it lacks native or CUDA kernels."""

    def run(self) -> None:
        """Copy, then write or remove the notes."""
        super().run()
        for name in (NATIVE_NOTE, CUDA_NOTE):
            note = Path(self.build_lib) / "lamp_kernels" / name
            if name in NOTES and not self.editable_mode:
                note.write_text(NOTES[name] + "\n", encoding="utf-8")
            elif note.exists():
                note.unlink()


def without_native(reason: str) -> dict[str, Any]:
    """What `setup` is told to build none."""
    if switched(CUDA_SWITCH) == "1":
        raise SystemExit(f"{CUDA_SWITCH}=1 needs the native kernels, but {reason}")
    NOTES[NATIVE_NOTE] = reason
    return {"cmdclass": {"build_py": BuildPython}, "options": {}}


def elsewhere() -> dict[str, dict[str, str]]:
    """Where to build if the project's folder is read-only: a folder that is gone at the end."""
    if os.access(ROOT, os.W_OK):
        return {}
    folder = tempfile.mkdtemp(prefix="lamp_kernels-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return {"build": {"build_base": folder}, "egg_info": {"egg_base": folder}}


NOTES: dict[str, str] = {}  # why there are no such kernels, by the file that says so
REASON = why_without_native()
TOLD = native() if REASON is None else without_native(REASON)
TOLD["options"] |= elsewhere()
LOCAL_VERSION = os.environ.get("LAMP_KERNELS_LOCAL_VERSION")
if LOCAL_VERSION:
    TOLD["options"].setdefault("egg_info", {})["tag_build"] = f"+{LOCAL_VERSION}"
setup(**TOLD)
