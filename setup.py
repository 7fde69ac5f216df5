"""Builds the native kernels; everything else about the package is in pyproject.toml.

Environment switches:

    LAMP_KERNELS_NATIVE    "auto" (default): build the native kernels if a C++ compiler is found,
                           else install without them and let `python -m lamp_kernels` say so.
                           "1": build them, or fail. "0": install without them.
    CXX                    the C++ compiler, of GCC 11 or later for all instruction sets
    MAX_JOBS               how many files are compiled at once, where ninja is installed
"""

import os
import shlex
import shutil
import sysconfig
from pathlib import Path

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
    """The C++ compiler that the build would use, or None where there is none."""
    command = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++"
    for candidate in (shlex.split(command)[0], "c++", "g++"):
        if shutil.which(candidate):
            return candidate
    return None


def why_without_native() -> str | None:
    """None if the native kernels are to be built, else the reason why not."""
    switch = os.environ.get(SWITCH, "auto")
    if switch not in ("auto", "0", "1"):
        raise SystemExit(f"{SWITCH} must be auto, 0 or 1; got {switch!r}")
    if switch == "0":
        return f"it was installed with {SWITCH}=0"
    if compiler() is None:
        if switch == "1":
            raise SystemExit(f"{SWITCH}=1, but no C++ compiler was found; set CXX")
        return "no C++ compiler was found when it was installed"
    return None


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

if REASON:
    setup(cmdclass={"build_py": BuildPython})
else:
    from torch.utils.cpp_extension import BuildExtension, CppExtension

    setup(
        ext_modules=[
            CppExtension(
                "lamp_kernels._C",
                ["csrc/bindings.cpp", *SOURCES],
                depends=HEADERS,
                extra_compile_args=[*OPTIMISATION, *STYLE, *STABLE_ABI],
                extra_link_args=["-s"],
                py_limited_api=True,
            )
        ],
        cmdclass={"build_ext": BuildExtension, "build_py": BuildPython},
        options={"bdist_wheel": {"py_limited_api": "cp310"}},
    )
