"""Builds the native kernels; everything else about the package is in pyproject.toml.

Environment switches:

    LAMP_KERNELS_NATIVE    "auto" (default): build the native kernels on Linux if a C++ compiler is
                           found, else install without them and let `python -m lamp_kernels` say
                           why. "1": build them, or fail. "0": install without them.
    CXX                    the C++ compiler; without it g++, c++ or clang++. GCC 12 or later for all
                           instruction sets, clang builds the baseline only
    MAX_JOBS               how many files are compiled at once, where ninja is installed
"""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build_py import build_py

SWITCH = "LAMP_KERNELS_NATIVE"
ROOT = Path(__file__).resolve().parent
SOURCES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc/cpu").glob("*.cpp"))
HEADERS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*.h"))

# The library uses LibTorch's stable ABI of release 2.10 and works with every later one.
STABLE_ABI = ["-DTORCH_TARGET_VERSION=0x020a000000000000", "-DTORCH_STABLE_ONLY"]
# None of these changes what a NaN or an infinity does. No -march: the kernels choose at run time.
OPTIMISATION = ["-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
STYLE = ["-std=c++20", "-fvisibility=hidden", "-Wno-psabi"]


def compiler() -> str | None:
    """The command of the C++ compiler that the build uses, or None where there is none."""
    named = os.environ.get("CXX")
    for command in [named] if named else ["g++", "c++", "clang++"]:
        if shutil.which(shlex.split(command)[0]):
            return command
    return None


def why_without_native() -> str | None:
    """None if the native kernels are to be built, else the reason why not."""
    switch = os.environ.get(SWITCH, "auto")
    if switch not in ("auto", "0", "1"):
        raise SystemExit(f"{SWITCH} must be auto, 0 or 1; got {switch!r}")
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


def native() -> dict[str, Any]:
    """What `setup` is told to build the kernels."""
    try:
        import torch
        from torch.utils.cpp_extension import BuildExtension, CppExtension
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"building the native kernels needs PyTorch >= 2.10, but {error}. Install it first, "
            f"or let pip do so (no --no-build-isolation), or install without with {SWITCH}=0"
        ) from error

    class BuildNative(BuildExtension):  # type: ignore[misc]
        """Compiles and links with one compiler, and says what to do where that fails."""

        def run(self) -> None:
            # Else torch compiles with c++, and setuptools links with what Python was built with.
            os.environ["CXX"] = str(compiler())
            try:
                super().run()
            except Exception as error:
                raise SystemExit(
                    f"{error}\nThe native kernels did not compile with {os.environ['CXX']} (they "
                    f"need C++20: GCC 12 or later is best). {SWITCH}=0 installs without them."
                ) from error

    # Messages would else carry the paths of the machine that built, and no two builds be equal.
    paths = [f"-ffile-prefix-map={path}/=" for path in (ROOT, Path(torch.__file__).parent)]
    extension = CppExtension(
        "lamp_kernels._C",
        ["csrc/bindings.cpp", *SOURCES],
        depends=HEADERS,
        extra_compile_args=[*OPTIMISATION, *STYLE, *STABLE_ABI, *paths],
        extra_link_args=["-s"],
        py_limited_api=True,
    )
    return {
        "ext_modules": [extension],
        "cmdclass": {"build_ext": BuildNative, "build_py": BuildPython},
        "options": {"bdist_wheel": {"py_limited_api": "cp310"}},
    }


class BuildPython(build_py):
    """Copies the package, and beside it the reason why it has no native kernels."""

    def run(self) -> None:
        """Copy, then write or remove the note."""
        super().run()
        note = Path(self.build_lib) / "lamp_kernels" / "_without_native.txt"
        if REASON and not self.editable_mode:
            note.write_text(REASON + "\n")
        elif note.exists():
            note.unlink()


REASON = why_without_native()
setup(**({"cmdclass": {"build_py": BuildPython}} if REASON else native()))
