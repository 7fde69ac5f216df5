"""Builds the native kernels; everything else about the package is in pyproject.toml.

Environment variables:

    LAMP_KERNELS_NATIVE    "auto" (default): build the native kernels on Linux. If no C++ compiler
                           is found or compilation fails, install without them; `python -m
                           lamp_kernels` then reports the reason. "1": build them or fail. "0":
                           install without them.
    CXX                    the C++ compiler, optionally with flags. Default: g++, c++ or clang++.
                           GCC 12 or later builds every instruction set; GCC 10 and 11 and clang 11
                           or later build only the baseline.
    MAX_JOBS               the number of files compiled at once, if ninja is installed
    LAMP_KERNELS_CUDA      "auto" (default): build the CUDA kernels as well if PyTorch is a CUDA
                           build and nvcc is found and succeeds, otherwise record the reason (with
                           LAMP_KERNELS_NATIVE=1, nvcc must not fail). "1": build them or fail;
                           works with any PyTorch and requires no GPU. "0": do not build them.
    CUDA_HOME              the CUDA toolkit. Default: the toolkit of the nvcc on PATH, otherwise
                           /usr/local/cuda.
    NVCC_CCBIN             nvcc's host compiler. Default: the C++ compiler.
    TORCH_CUDA_ARCH_LIST   the CUDA kernels' targets in PyTorch's notation: "8.0;9.0+PTX". Default:
                           the GPUs that PyTorch sees; if it sees none, everything from 7.5 to 12.0,
                           plus PTX for later GPUs.
    LAMP_KERNELS_LOCAL_VERSION
                           the part of the version after "+", for wheels with CUDA kernels ("cu130")

The build prints one short line per file, and ninja adds the command of a file that fails to
compile. `python setup.py --verbose build_ext` prints all commands in full.
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
# Files in the package that say why a library is not there.
NATIVE_NOTE, CUDA_NOTE = "_without_native.txt", "_without_cuda.txt"


def files(pattern: str) -> list[str]:
    """Files below csrc, as paths relative to the project."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob(pattern))


SOURCES = ["csrc/bindings.cpp", "csrc/volumes.cpp", *files("cpu/*.cpp")]
CUDA_SOURCES = ["csrc/cuda/bindings.cpp", *files("cuda/*.cu")]
HEADERS = [*files("*.h"), *files("*.cuh")]
CPU_HEADERS = [path for path in HEADERS if not path.startswith("csrc/cuda/")]
CUDA_HEADERS = [path for path in HEADERS if not path.startswith("csrc/cpu/")]

# The library uses LibTorch's stable ABI from release 2.10 and works with every later release.
STABLE_ABI = ["-DTORCH_TARGET_VERSION=0x020a000000000000", "-DTORCH_STABLE_ONLY"]
# None of these changes how NaN or infinity behaves. No -march: kernels are selected at run time.
OPTIMIZATION = ["-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
STYLE = ["-std=c++20", "-fvisibility=hidden", "-Wno-psabi"]


def read_switch(name: str) -> str:
    """The value of LAMP_KERNELS_NATIVE or LAMP_KERNELS_CUDA."""
    switch = os.environ.get(name, "auto")
    if switch not in ("auto", "0", "1"):
        raise SystemExit(f"{name} must be auto, 0 or 1, got {switch!r}")
    return switch


def required() -> bool:
    """Whether the installation fails if kernels do not compile."""
    return "1" in (read_switch(SWITCH), read_switch(CUDA_SWITCH))


# ---- The C++ compiler ----------------------------------------------------------------------------


def compiler() -> str | None:
    """The command of the C++ compiler that the build uses, or None if none is found."""
    named = os.environ.get("CXX", "").strip()
    if named and shutil.which(named):
        return shlex.quote(named)  # a path, which may contain spaces
    for command in [named] if named else ["g++", "c++", "clang++"]:
        if shutil.which(split_command(command)[0]):
            return command
    return None


def split_command(command: str) -> list[str]:
    """The words of a compiler command given by CXX."""
    try:
        return shlex.split(command)
    except ValueError as error:
        raise SystemExit(f"CXX={command} is not a valid command: {error}") from error


def compiler_index(words: list[str]) -> int:
    """The position of the compiler in a command, which may begin with `ccache` or `env VAR=x`."""
    compilers = re.compile("g[+]{2}|c[+]{2}|gcc|clang")
    places = (
        at for at, word in enumerate(words) if "=" not in word and compilers.search(Path(word).name)
    )
    return next(places, 0)


def as_one_word(command: str, folder: Path) -> str:
    """The same compiler as a single program on PATH.

    PyTorch 2.13 quotes a command's flags as part of the program's name.
    """
    words = shlex.split(command)
    if words == [command]:
        return command
    # PyTorch tells GCC from clang by the name, and ninja recompiles everything if the name changes.
    name = Path(words[compiler_index(words)]).name
    script = folder / f"{name}-{zlib.crc32(command.encode()):x}"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    script.chmod(0o755)
    os.environ["PATH"] = f"{folder.resolve()}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return script.name


def why_without_native() -> str | None:
    """None if the native kernels are to be built, otherwise the reason why not."""
    switch = read_switch(SWITCH)
    if switch == "0":
        return f"lamp_kernels was installed with {SWITCH}=0"
    if switch == "auto" and sys.platform != "linux":
        return f"on {sys.platform} they are untested and built only with {SWITCH}=1"
    if compiler() is None:
        named = os.environ.get("CXX")
        reason = f"CXX={named} was not found" if named else "no C++ compiler was found"
        if switch == "1":
            raise SystemExit(f"{SWITCH}=1, but {reason}; set CXX to a C++ compiler")
        return f"{reason} during installation"
    return None


# ---- The CUDA toolkit ----------------------------------------------------------------------------


class Toolkit(NamedTuple):
    """The parts of a CUDA toolkit that the build uses."""

    root: Path
    release: str
    headers: Path
    libraries: Path

    def host_compilers(self) -> str:
        """The host compilers that its nvcc accepts, according to its headers."""
        file = self.headers / "crt" / "host_config.h"
        text = file.read_text(errors="replace") if file.exists() else ""
        gcc = re.search(r"gcc versions later than (\d+)", text)
        clang = re.search(r"clang version must be less than (\d+)", text)
        found = [f"GCC up to {gcc[1]}"] if gcc else []
        found += [f"clang before {clang[1]}"] if clang else []
        return " or ".join(found) or "certain releases of GCC and clang"


def toolkit() -> Toolkit | str:
    """The CUDA toolkit, or the reason why no usable one was found."""
    named = os.environ.get("CUDA_HOME")
    places = os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/local/cuda/bin"
    nvcc = shutil.which("nvcc", path=str(Path(named, "bin")) if named else places)
    if nvcc is None:
        return "no nvcc was found" + (f" in CUDA_HOME={named}" if named else "")

    def output_of_nvcc(*arguments: str) -> str:
        result = subprocess.run([str(nvcc), *arguments], capture_output=True, text=True)
        return result.stdout + result.stderr

    # The nvcc on PATH may be a script that calls a toolkit's nvcc; the latter knows its location.
    dry_run = output_of_nvcc("--dryrun", "-E", "-x", "cu", os.devnull)
    top = re.search(r"^#\$ TOP=(.+)$", dry_run, re.MULTILINE)
    release = re.search(r"release (\d+\.\d+)", output_of_nvcc("--version"))
    root = Path(named or (top[1].strip() if top else Path(nvcc).resolve().parents[1])).resolve()
    headers = next(root.glob("include/cuda_runtime.h"), None) or next(
        root.glob("targets/*/include/cuda_runtime.h"), None
    )
    libraries = next(root.glob("lib*/libcudart_static.a"), None) or next(
        root.glob("targets/*/lib/libcudart_static.a"), None
    )
    if release is None or headers is None or libraries is None:
        return f"nvcc, cuda_runtime.h or libcudart_static.a was not found in the toolkit {root}"
    return Toolkit(root, release[1], headers.parent, libraries.parent)


def cuda_toolkit(cuda_of_torch: str | None) -> Toolkit | str:
    """The toolkit for building the CUDA kernels, or the reason why they are not built."""
    switch = read_switch(CUDA_SWITCH)
    if switch == "0":
        return f"lamp_kernels was built with {CUDA_SWITCH}=0"
    if switch == "auto" and cuda_of_torch is None:
        return "lamp_kernels was built with a PyTorch without CUDA"
    found = toolkit()
    if switch == "1":
        if isinstance(found, str):
            raise SystemExit(f"{CUDA_SWITCH}=1, but {found}; set CUDA_HOME to a CUDA toolkit")
        return found
    if isinstance(found, str):
        return f"{found} at build time"
    if found.release.partition(".")[0] != str(cuda_of_torch).partition(".")[0]:
        return f"nvcc was from CUDA {found.release}, but PyTorch was built for CUDA {cuda_of_torch}"
    return found


# ---- What compilers print ------------------------------------------------------------------------

# Commands as ninja and setuptools print them.
COMPILES = re.compile(r"(\[\d+/\d+\]) .* -c .*?(csrc/\S+\.(cpp|cu))\b.*")
LINKS = re.compile(r"\S.* -shared .* -o \S*?(lamp_kernels/\S+\.so)\b.*")


def shortened(line: str) -> str:
    """A compiler's or linker's command as "[3/12] CXX csrc/x.cpp"; any other line unchanged."""
    if match := COMPILES.match(line):
        step, source, suffix = match.groups()
        return f"{step} {'NVCC' if suffix == 'cu' else 'CXX'} {source}\n"
    if match := LINKS.match(line):
        return f"LINK {match[1]}\n"
    return line


@contextmanager
def recorded(*, verbose: bool) -> Iterator[list[str]]:
    """Record all lines printed in the meantime, also by other programs, as a list.

    They still go to standard error: in full if `verbose`, otherwise with commands shortened.
    """
    lines: list[str] = []
    read, write = os.pipe()
    before = os.dup(1), os.dup(2)

    def copy() -> None:
        with open(read, encoding="utf-8", errors="replace") as printed:
            for line in printed:
                lines.append(line.rstrip())
                os.write(before[1], (line if verbose else shortened(line)).encode())

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
        copier.join(5)  # longer only if a compiler leaves a server process running
        os.close(before[0])
        if not copier.is_alive():
            os.close(before[1])


ERROR = re.compile(
    r"^(?!.*\b(warning|note): )"
    r".*(\berror: |\bfatal\s*: |\bld(\.\w+)?: |: (command )?not found$|\bKilled$)"
)


def first_error(lines: list[str], error: BaseException) -> str:
    """The first line in which a compiler or linker reports an error."""
    found = next((line for line in lines if ERROR.search(line)), str(error))
    return textwrap.shorten(found.replace(f"{ROOT}/", ""), 300, placeholder=" ...")


# ---- The build -----------------------------------------------------------------------------------


def build_ext_class(command: str, cuda: Toolkit | str) -> Any:
    """The build_ext command for this compiler and toolkit."""
    from torch.utils import cpp_extension

    class BuildNative(cpp_extension.BuildExtension):
        """Compiles and links with one compiler; continues without what fails, if allowed."""

        extensions: list[Any]

        def run(self) -> None:
            # Otherwise torch compiles with c++, and setuptools links with Python's own compiler.
            os.environ["CXX"] = as_one_word(command, Path(self.build_temp))
            os.environ["LC_ALL"] = "C"  # first_error searches the compiler's messages
            if isinstance(cuda, Toolkit):
                # Otherwise torch guesses it from the nvcc on PATH.
                cpp_extension.CUDA_HOME = str(cuda.root)
            self.parallel = None  # one extension at a time, each with several ninja jobs
            self.failed: dict[str, str] = {}  # reasons by extension name
            self.extensions = list(self.extensions)  # setuptools reads it again after the build
            super().run()
            self.tidy()

        def build_extensions(self) -> None:
            while self.extensions:
                try:
                    super().build_extensions()
                    break
                except Exception as error:
                    # PyTorch checks the compilers before it compiles anything.
                    checked = subprocess.run([os.environ["CXX"], "--version"], capture_output=True)
                    if checked.returncode != 0:  # so the C++ compiler failed, not nvcc
                        del self.extensions[1:]
                    self.continue_without(self.extensions.pop(), [], error)
            # The CUDA library is of no use without the first.
            first_failed = EXTENSION in self.failed
            built = [ext for ext in self.extensions if ext.name not in self.failed]
            self.extensions = [] if first_failed else built

        def build_extension(self, ext: Any) -> None:
            if EXTENSION in self.failed:
                return
            # With a PyTorch without CUDA, ninja does not know which headers a .cu file includes.
            newest = max((ROOT / path).stat().st_mtime for path in CUDA_HEADERS)
            for built in Path(self.build_temp).rglob("csrc/cuda/*.o"):
                if built.stat().st_mtime < newest:
                    built.unlink()
            with recorded(verbose=self.distribution.verbose > 1) as lines:
                try:
                    super().build_extension(ext)
                    return
                except Exception as caught:
                    error = caught
            self.continue_without(ext, lines, error)

        def continue_without(self, ext: Any, lines: list[str], error: Exception) -> None:
            """Leave the extension out and record the reason; fail if it is required."""
            if isinstance(cuda, Toolkit) and ext.name == CUDA_EXTENSION:
                kernels, switch, instead = "CUDA kernels", CUDA_SWITCH, "without them"
                program = f"nvcc from CUDA {cuda.release}"
                advice = (
                    f", which accepts {cuda.host_compilers()} as its host compiler. Set NVCC_CCBIN "
                    f"or CXX to another host compiler, {TARGETS} to other GPUs, or {switch}=0 to "
                    "install without them"
                )
            else:
                kernels, switch, instead = "native kernels", SWITCH, "with plain PyTorch code"
                program = command
                advice = (
                    ". They require C++20; GCC 12 or later is recommended. Set CXX to another "
                    f"compiler, or {switch}=0 to install without them"
                )
            advice = f"The {kernels} failed to compile with {program}{advice}."
            if required():
                raise SystemExit(f"{error}\n{advice}") from error
            reason = (
                f"the {kernels} failed to compile with {program} ({first_error(lines, error)}); "
                f"{switch}=1 makes this an error"
            )
            self.failed[ext.name] = reason
            print(advice, f"Continuing {instead}: {reason}.", sep="\n", file=sys.stderr)

        def tidy(self) -> None:
            """Leave notes about what failed, and remove libraries of earlier builds."""
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
            """The same for every Python, even free-threaded, because it does not link libpython."""
            return name.replace(".", os.sep) + ".abi3.so"

    return BuildNative


class BuildPython(build_py):
    """Copies the package, plus notes that say why native or CUDA kernels are missing."""

    def run(self) -> None:
        """Copy, then write or remove the notes."""
        super().run()
        for name in (NATIVE_NOTE, CUDA_NOTE):
            note = Path(self.build_lib) / "lamp_kernels" / name
            if name in NOTES and not self.editable_mode:
                note.write_text(NOTES[name] + "\n", encoding="utf-8")
            elif note.exists():
                note.unlink()


class BuildWheel(bdist_wheel):
    """A wheel for every Python; without a library, also for every platform."""

    def get_tag(self) -> tuple[str, str, str]:
        """The tags in its file name."""
        platform = super().get_tag()[2]
        built = self.get_finalized_command("build_ext").extensions
        return "py3", "none", platform if built else "any"


def cpu_extension(prefix_maps: list[str]) -> Any:
    """The first library: the operators and their CPU kernels."""
    from torch.utils import cpp_extension

    return cpp_extension.CppExtension(
        EXTENSION,
        SOURCES,
        depends=CPU_HEADERS,
        extra_compile_args=[*OPTIMIZATION, *STYLE, *STABLE_ABI, *prefix_maps],
        extra_link_args=["-s"],
        py_limited_api=True,
    )


def cuda_extension(torch: Any, cuda: Toolkit, prefix_maps: list[str]) -> Any:
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
    host, *arguments = words[compiler_index(words) :]
    for argument in [*arguments, "-fvisibility=hidden", "-Wno-psabi", *prefix_maps]:
        generate += ["-Xcompiler", shlex.quote(argument)]  # nvcc runs it through a shell
    # A fifth of the size. Drivers older than CUDA 12.4 cannot read it; CUDA 13 rejects them anyway.
    if int(cuda.release.partition(".")[0]) >= 13:
        generate.append("--compress-mode=size")
    if not os.environ.get("NVCC_CCBIN"):
        generate += ["-ccbin", host]
    targets = f"-DLAMP_CUDA_TARGETS={','.join(codes)}"
    return cpp_extension.CppExtension(
        CUDA_EXTENSION,
        CUDA_SOURCES,
        depends=CUDA_HEADERS,
        include_dirs=[str(cuda.headers)],
        library_dirs=[str(cuda.libraries)],
        # Static and hidden: the library also loads without CUDA, and PyTorch has its own runtime.
        libraries=["cudart_static", "rt", "dl", "pthread"],
        extra_compile_args={
            "cxx": [*OPTIMIZATION, *STYLE, *STABLE_ABI, *prefix_maps, targets],
            "nvcc": ["-O3", "-std=c++20", *STABLE_ABI, *generate],
        },
        extra_link_args=["-s", "-Wl,--exclude-libs,ALL"],
        py_limited_api=True,
    )


def with_native() -> dict[str, Any]:
    """Arguments of `setup` for building the kernels."""
    try:
        import torch
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"building the native kernels requires PyTorch >= 2.10, but {error}. Install it first, "
            "let pip install it (without --no-build-isolation), or set "
            f"{SWITCH}=0 to install without the kernels"
        ) from error

    cuda = cuda_toolkit(torch.version.cuda)
    # Otherwise build paths leak into messages and builds are not reproducible.
    prefix_maps = [f"-ffile-prefix-map={path}/=" for path in (ROOT, Path(torch.__file__).parent)]
    extensions = [cpu_extension(prefix_maps)]
    if isinstance(cuda, Toolkit):
        extensions.append(cuda_extension(torch, cuda, prefix_maps))
    else:
        NOTES[CUDA_NOTE] = cuda
    build_ext = build_ext_class(str(compiler()), cuda)
    return {
        "ext_modules": extensions,
        "cmdclass": {"build_ext": build_ext, "build_py": BuildPython, "bdist_wheel": BuildWheel},
        "options": {},
    }


def without_native(reason: str) -> dict[str, Any]:
    """Arguments of `setup` for installing without kernels."""
    if read_switch(CUDA_SWITCH) == "1":
        raise SystemExit(f"{CUDA_SWITCH}=1 requires the native kernels: {reason}")
    NOTES[NATIVE_NOTE] = reason
    return {"cmdclass": {"build_py": BuildPython}, "options": {}}


def build_folders() -> dict[str, dict[str, str]]:
    """Options that build in a temporary folder if the project's folder is read-only."""
    if os.access(ROOT, os.W_OK):
        return {}
    folder = tempfile.mkdtemp(prefix="lamp_kernels-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return {"build": {"build_base": folder}, "egg_info": {"egg_base": folder}}


NOTES: dict[str, str] = {}  # texts of NATIVE_NOTE and CUDA_NOTE, if they are to be written
REASON = why_without_native()
ARGUMENTS = with_native() if REASON is None else without_native(REASON)
ARGUMENTS["options"] |= build_folders()
LOCAL_VERSION = os.environ.get("LAMP_KERNELS_LOCAL_VERSION")
if LOCAL_VERSION:
    ARGUMENTS["options"].setdefault("egg_info", {})["tag_build"] = f"+{LOCAL_VERSION}"
setup(**ARGUMENTS)
