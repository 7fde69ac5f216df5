"""Compiles kernels for counting, and asks the real header for tiles."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu.sass import Instruction, parse

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
TWO_KERNEL = ROOT / "bench" / "two_kernel.cu"
FLAGS = ("-std=c++20", "-O3")
TYPES = ("float", "double")
RADII = tuple(range(1, 8))
GRADIENTS = (0, 1, 2)

_ENTRY = re.compile(r"Compiling entry function '(\S+)'")
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers(.*)")
_STATIC = re.compile(r"(\d+) bytes smem")
_INCLUDE = re.compile(r'^#include "(.+)"', re.MULTILINE)
_VARIANT = re.compile(r"ssim_kernelI([fd])Li(\d+)ELi(\d+)E")


class MissingToolError(RuntimeError):
    """A compiler or disassembler that is not here."""


@dataclass(frozen=True)
class Tools:
    """Where the CUDA toolkit's programs are."""

    nvcc: str
    cuobjdump: str | None

    @classmethod
    def find(cls, nvcc: str | None = None, cuobjdump: str | None = None) -> "Tools":
        """Those given, or of PATH, CUDA_HOME, or this environment's nvidia-cuda-cuobjdump."""
        home = os.environ.get("CUDA_HOME")
        places = [os.environ.get("PATH", ""), *([str(Path(home, "bin"))] if home else [])]
        compiler = nvcc or shutil.which("nvcc", path=os.pathsep.join(places))
        if compiler is None:
            raise MissingToolError("no nvcc was found on PATH or in CUDA_HOME")
        wheels = Path(sysconfig.get_path("purelib"), "nvidia").glob("cu*/bin")
        places += map(str, sorted(wheels))
        return cls(compiler, cuobjdump or shutil.which("cuobjdump", path=os.pathsep.join(places)))

    def release(self) -> str:
        """Of the compiler."""
        text = _run([self.nvcc, "--version"]).stdout
        found = re.search(r"release ([\d.]+), V([\d.]+)", text)
        return found[2] if found else "unknown"

    def disassembled(self, cubin: Path) -> dict[str, list[Instruction]]:
        """The machine code of a compiled file."""
        if self.cuobjdump is None:
            raise MissingToolError(
                "no cuobjdump was found: install nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm, "
                "or name it with --cuobjdump"
            )
        # It calls nvdisasm, which lies beside it.
        beside = str(Path(self.cuobjdump).resolve().parent)
        path = os.pathsep.join([beside, os.environ.get("PATH", "")])
        result = _run([self.cuobjdump, "-sass", str(cubin)], {**os.environ, "PATH": path})
        return parse(result.stdout)


def _run(
    command: Sequence[str], environment: dict[str, str] | None = None, given: str | None = None
) -> "subprocess.CompletedProcess[str]":
    result = subprocess.run(
        command, capture_output=True, text=True, env=environment, input=given, check=False
    )
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr[-4000:]}")
    return result


@dataclass(frozen=True)
class Resources:
    """What ptxas says of one kernel."""

    registers: int
    spilled: int  # bytes stored and loaded
    shared_memory: int  # static, bytes


def resources(report: str) -> dict[str, Resources]:
    """Of each kernel that `ptxas -v` reports, by its mangled name."""
    found: dict[str, Resources] = {}
    name, spilled = "", 0
    for line in report.splitlines():
        if entry := _ENTRY.search(line):
            name = entry[1]
        elif spills := _SPILLS.search(line):
            spilled = int(spills[1]) + int(spills[2])
        elif (used := _USED.search(line)) and name:
            static = _STATIC.search(used[2])
            found[name] = Resources(int(used[1]), spilled, int(static[1]) if static else 0)
            name = ""
    return found


@dataclass(frozen=True, order=True)
class Variant:
    """One instantiation of the SSIM kernel."""

    type: str
    radius: int
    gradients: int

    @property
    def definition(self) -> str:
        """What makes the compiler emit it."""
        arguments = f"const __grid_constant__ SsimArguments<{self.type}>"
        name = f"ssim_kernel<{self.type}, {self.radius}, {self.gradients}>"
        return f"template __global__ void {name}({arguments});"


def variant_of(name: str) -> Variant:
    """Which one a mangled name means."""
    found = _VARIANT.search(name)
    if found is None:
        raise ValueError(f"{name} is not an SSIM kernel")
    return Variant({"f": "float", "d": "double"}[found[1]], int(found[2]), int(found[3]))


def snapshot(folder: Path) -> Path:
    """A copy of the kernels' sources, so that what is edited meanwhile is in no figure."""
    copy = folder / "csrc"
    shutil.copytree(CSRC, copy)
    shutil.copy(TWO_KERNEL, folder)
    return copy


def digest(folder: Path) -> str:
    """Of the files in a snapshot that the kernels are made of."""
    found = hashlib.sha256()
    todo = [folder / "csrc" / "cuda" / "ssim.cuh", folder / TWO_KERNEL.name]
    files: set[Path] = set()
    while todo:
        path = todo.pop().resolve()
        if path not in files:
            files.add(path)
            todo += [path.parent / name for name in _INCLUDE.findall(path.read_text("utf-8"))]
    for path in sorted(files):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def compile_kernels(
    tools: Tools, source: Path, target: int, into: Path, defines: Iterable[str] = ()
) -> dict[str, Resources]:
    """Compile one file in a folder with a snapshot for one target, to `into`."""
    command = [tools.nvcc, "-cubin", f"-arch=sm_{target}", *FLAGS, f"-I{source.parent / 'csrc'}"]
    command += [f"-D{name}" for name in defines]
    command += ["-Xptxas", "-v", str(source), "-o", str(into)]
    return resources(_run(command).stderr)


def compile_variants(
    tools: Tools, variants: Iterable[Variant], target: int, folder: Path, common: bool = False
) -> tuple[dict[Variant, Resources], Path]:
    """Compile variants of the SSIM kernel; `common` leaves out what rarely happens."""
    source, cubin = folder / "variants.cu", folder / f"variants-{target}.cubin"
    definitions = "\n".join(v.definition for v in variants)
    source.write_text(
        f'#include "cuda/ssim.cuh"\nnamespace lamp_kernels::cuda {{\n{definitions}\n}}\n',
        encoding="utf-8",
    )
    found = compile_kernels(tools, source, target, cubin, ["LAMP_COUNT_COMMON"] if common else [])
    return {variant_of(name): r for name, r in found.items()}, cubin


@dataclass(frozen=True)
class Tiles:
    """How ssim_tiling cuts images, and what a tile demands."""

    columns: int  # of a thread
    halo: int
    threads: int
    strips: int
    strip_width: int
    bands: int
    band_height: int
    shared_memory: int  # dynamic, bytes of a block


@dataclass(frozen=True)
class Query:
    """What the tiles depend on."""

    variant: Variant
    shape: tuple[int, int, int, int]
    multiprocessors: int
    shared_memory: int


def tiles(tools: Tools, queries: Sequence[Query], folder: Path) -> list[Tiles]:
    """By a program around the kernels' own header, so that no rule of it is repeated here."""
    source, program = folder / "tiles.cu", folder / "tiles"
    kinds = sorted({q.variant for q in queries})
    index = {v: i for i, v in enumerate(kinds)}
    demands = ",\n".join(f"SsimTile<{v.type}, {v.radius}, {v.gradients}>::demands()" for v in kinds)
    source.write_text(_TILES.replace("DEMANDS", demands), encoding="utf-8")
    include = f"-I{folder / 'csrc'}"
    _run([tools.nvcc, "-std=c++20", include, "-arch=sm_75", str(source), "-o", str(program)])
    lines = [
        " ".join(map(str, (index[q.variant], *q.shape, q.multiprocessors, q.shared_memory)))
        for q in queries
    ]
    answers = _run([str(program)], given="\n".join(lines)).stdout.splitlines()
    return [Tiles(**json.loads(answer)) for answer in answers]


_TILES = r"""
#include <cstdio>
#include "cuda/ssim.cuh"
using namespace lamp_kernels;
using namespace lamp_kernels::cuda;
int main() {
  const Demands demands[] = {DEMANDS};
  int kind;
  long long batch, channels, height, width, multiprocessors, shared;
  while (std::scanf("%d %lld %lld %lld %lld %lld %lld", &kind, &batch, &channels, &height, &width,
                    &multiprocessors, &shared) == 7) {
    Params p{};
    p.batch = batch, p.channels = channels, p.height = height, p.width = width;
    p.ssim = true;
    p.radius = demands[kind].radius;
    p.border = Border::zeros;
    Device device{};
    device.multiprocessors = int(multiprocessors);
    device.shared_memory = shared;
    const Demands& d = demands[kind];
    const Tiling t = ssim_tiling(p, d, device);
    std::printf("{\"columns\": %d, \"halo\": %d, \"threads\": %d, \"strips\": %lld, "
                "\"strip_width\": %lld, \"bands\": %lld, \"band_height\": %lld, "
                "\"shared_memory\": %lld}\n",
                d.columns, d.halo, t.threads, (long long)t.strips, (long long)t.strip_width,
                (long long)t.bands, (long long)t.band_height,
                (long long)d.shared_memory(t.threads));
  }
}
"""
