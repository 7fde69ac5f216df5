"""Builds the driver, which runs the CPU kernels without PyTorch, in a separate folder."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SETS = ("avx512", "avx2", "baseline")  # the instruction sets, best first
RELEASE = ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]  # of the extension
COMMON = ["-std=c++20", "-Wno-psabi", "-Werror=format", "-Icsrc", "-pthread", *RELEASE]
# Without the checks of every pointer for null and for the size of its object: they take half of the
# time to compile, and the address sanitizer ends the program where they would.
SANITIZE = [
    "-fsanitize=address,undefined",
    "-fno-sanitize=null,object-size",
    "-fno-sanitize-recover",
    "-fno-omit-frame-pointer",
    "-g1",
]
# Address checks as calls instead of inline code: less to compile, twice the run time.
CALLS = ["--param", "asan-instrumentation-with-call-threshold=0"]
PROCESSES = 2  # each compiler needs a gigabyte
# The cache of object files shared by all build folders, or None. Most files that tests compile are
# the same in each folder. An object is named by its command; the cache keeps one object per name.
shared: Path | None = None

STUB = """
#include <cstdlib>
#include "cpu/isa.h"
namespace lamp_kernels::{name} {{
void run_tiles(const Params&, const Tiling&, bool, int, int64_t, int64_t, double*) {{
  std::abort();
}}
void run_boxes(const Volume&, const VolumeTiling&, bool, int, int64_t, int64_t, double*) {{
  std::abort();
}}
void run_cosine(const CosineParams&, bool, int, int64_t, int64_t, double*) {{
  std::abort();
}}
}}
"""


def copy(folder: Path) -> None:
    """Copy the kernels and the driver to `folder`/csrc and `folder`/cpu."""
    shutil.copytree(ROOT / "csrc", folder / "csrc")
    shutil.copytree(ROOT / "tests" / "cpu", folder / "cpu", ignore=shutil.ignore_patterns("*.py"))


def replace(path: Path, pattern: str, replacement: str) -> None:
    """Replace the only match of the regular expression; any other number of matches is an error."""
    text, count = re.subn(pattern, replacement, path.read_text(), flags=re.MULTILINE)
    if count != 1:
        raise ValueError(f"{pattern!r} must match once in {path.name}, got {count} matches")
    path.write_text(text)


def keep_radii(folder: Path, radii: Sequence[int], volumes: Sequence[int] | None = None) -> None:
    """Leave out kernels for other radii, because compiling them takes most of the time.

    volumes: the radii of the kernels of volumes, by default the same.
    """
    for name, kept in (("run_tile", radii), ("run_box", radii if volumes is None else volumes)):
        for radius in set(range(1, 8)) - set(kept):
            replace(folder / "csrc/cpu/kernel.h", rf"^ *case {radius}: return {name}<.*\n", "")


def widen_baseline(folder: Path) -> None:
    """Give the baseline avx512's vector size but not its instruction set, to run on any machine."""
    shutil.copy(folder / "csrc/cpu/kernel_avx512.cpp", folder / "csrc/cpu/kernel_baseline.cpp")
    baseline = folder / "csrc/cpu/kernel_baseline.cpp"
    replace(baseline, r"^#if defined\(__x86_64__\).*$", "#if 1")
    replace(baseline, r"^#pragma GCC target.*$", "")
    replace(baseline, r"^namespace lamp_kernels::avx512 ", "namespace lamp_kernels::baseline ")


def compile_all(
    folder: Path, sources: dict[str, list[str]], compiler: str, flags: list[str]
) -> list[str]:
    """Compile `sources`, given with their additional flags, unless their objects are up to date."""

    def compile_one(item: tuple[str, list[str]]) -> str:
        source, own = item
        command = [compiler, *COMMON, *flags, *own, "-MMD", "-c", source]
        target = f"{source}.{zlib.crc32(repr(command).encode()):x}.o"
        if not up_to_date(folder / target) and not take(folder, target):
            call([*command, "-o", target], folder)
            give(folder, target)
        return target

    with ThreadPoolExecutor(PROCESSES) as pool:
        return list(pool.map(compile_one, sources.items()))


def up_to_date(target: Path) -> bool:
    """Whether the object is newer than everything it was compiled from."""
    rules = target.with_suffix(".d")
    if not rules.exists() or not target.exists():
        return False
    files = dependencies(rules)
    root = target.parents[len(Path(files[0]).parts) - 1]  # the folder in which the compiler ran
    made = target.stat().st_mtime_ns
    return all((root / name).stat().st_mtime_ns <= made for name in files)


def dependencies(rules: Path) -> list[str]:
    """The files that an object was compiled from, as listed by the compiler; no system headers."""
    return rules.read_text().replace("\\\n", " ").split()[1:]


def share(temporary: Any) -> None:
    """Share objects between the tests and processes of a run, below pytest's tmp_path_factory."""
    global shared
    folder = temporary.getbasetemp()
    shared = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "objects"


def take(folder: Path, target: str) -> bool:
    """Copy the cached object and return True if it was compiled from byte-identical files."""
    if shared is None or not (kept := place(shared, target)).exists():
        return False
    if digest(folder, kept / "rules") != (kept / "digest").read_text():
        return False
    shutil.copyfile(kept / "rules", (folder / target).with_suffix(".d"))
    shutil.copyfile(kept / "object", folder / target)
    return True


def give(folder: Path, target: str) -> None:
    """Add an object to the cache unless it has one of that name, compiled from other sources."""
    if shared is None or (kept := place(shared, target)).exists():
        return
    shared.mkdir(exist_ok=True)
    rules = (folder / target).with_suffix(".d")
    whole = Path(tempfile.mkdtemp(dir=shared))
    shutil.copyfile(folder / target, whole / "object")
    shutil.copyfile(rules, whole / "rules")
    (whole / "digest").write_text(digest(folder, rules))
    try:
        whole.rename(kept)
    except OSError:  # another process was faster
        shutil.rmtree(whole)


def place(shared: Path, target: str) -> Path:
    return shared / target.replace("/", "-")


def digest(folder: Path, rules: Path) -> str:
    """A digest of the files that the rules name; a missing file counts as an empty one."""
    paths = [folder / name for name in dependencies(rules)]
    texts = [path.read_bytes() if path.exists() else b"" for path in paths]
    return hashlib.sha256(repr(texts).encode()).hexdigest()


def call(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def build(
    folder: Path,
    sets: Sequence[str],
    *,
    compiler: str = "g++",
    flags: Sequence[str] = (),
    link: Sequence[str] = (),
) -> Path:
    """Build the driver with the kernels of `sets`, in a folder that `copy` has filled."""
    sources: dict[str, list[str]] = {}
    for name in SETS:
        source = f"csrc/cpu/kernel_{name}.cpp"
        if name not in sets:
            source = f"stub_{name}.cpp"
            (folder / source).write_text(STUB.format(name=name))
        sources[source] = []
    # The textbook code is slow enough without sanitizers, and it is not under test.
    sources |= {"cpu/driver.cpp": [], "cpu/cases.cpp": [], "csrc/cpu/isa.cpp": []}
    sources["cpu/cosine.cpp"] = []
    for source in ("cpu/textbook.cpp", "cpu/volumes.cpp"):
        sources[source] = ["-O2", "-fno-sanitize=all"]
    objects = compile_all(folder, sources, compiler, list(flags))
    driver = folder / "driver"
    call([compiler, *flags, "-pthread", *link, *objects, "-o", str(driver)], folder)
    return driver


def run(
    driver: Path,
    isa: str,
    arguments: Sequence[str] = (),
    *,
    emulator: Sequence[str] = (),
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*emulator, str(driver), *arguments],
        env=os.environ | {"LAMP_KERNELS_CPU_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
