"""Compiles the CUDA kernels for counting, and runs csrc's own code to choose tiles."""

import json
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from static_analysis.devices import Device
from static_analysis.sass import Instruction, parse

FLAGS = ("-std=c++20", "-O3")
TYPES = ("float", "double")
RADII = tuple(range(1, 8))
GRADIENTS = (0, 1, 2)

_ENTRY = re.compile(r"Compiling entry function '(\S+)'")
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers(.*)")
_STATIC = re.compile(r"(\d+) bytes smem")
_VARIANT = re.compile(r"(ssim(?:_losses|_gradients)?)_kernelI([fd])Li(\d+)ELi(\d+)E(?:Lb([01])E)?")


class MissingToolError(RuntimeError):
    """A compiler or disassembler is not installed."""


@dataclass(frozen=True)
class Tools:
    """The paths of the CUDA toolkit's programs."""

    nvcc: str
    cuobjdump: str | None

    @classmethod
    def find(cls, nvcc: str | None = None, cuobjdump: str | None = None) -> "Tools":
        """Use the given programs, or search PATH, CUDA_HOME and installed CUDA packages."""
        home = os.environ.get("CUDA_HOME")
        places = [os.environ.get("PATH", ""), *([str(Path(home, "bin"))] if home else [])]
        compiler = nvcc or shutil.which("nvcc", path=os.pathsep.join(places))
        if compiler is None:
            raise MissingToolError("nvcc was not found on PATH or in CUDA_HOME: use --nvcc")
        wheels = Path(sysconfig.get_path("purelib"), "nvidia").glob("cu*/bin")
        places += map(str, sorted(wheels))
        return cls(compiler, cuobjdump or shutil.which("cuobjdump", path=os.pathsep.join(places)))

    def release(self) -> str:
        """The version of the compiler."""
        text = run([self.nvcc, "--version"]).stdout
        found = re.search(r"release ([\d.]+), V([\d.]+)", text)
        return found[2] if found else "unknown"

    def disassembled(self, cubin: Path) -> dict[str, list[Instruction]]:
        """The machine code of a compiled file, by the mangled names of its functions."""
        if self.cuobjdump is None:
            raise MissingToolError(
                "cuobjdump was not found: install nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm, "
                "or use --cuobjdump"
            )
        # cuobjdump calls nvdisasm, which is in the same folder.
        folder = str(Path(self.cuobjdump).resolve().parent)
        path = os.pathsep.join([folder, os.environ.get("PATH", "")])
        result = run([self.cuobjdump, "-sass", str(cubin)], {**os.environ, "PATH": path})
        return parse(result.stdout)


def run(
    command: Sequence[str], environment: dict[str, str] | None = None, given: str | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a compiler or disassembler; raise RuntimeError with the end of its errors if it fails."""
    result = subprocess.run(
        command, capture_output=True, text=True, env=environment, input=given, check=False
    )
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr[-4000:]}")
    return result


@dataclass(frozen=True)
class Resources:
    """The resources of one kernel, as ptxas reports them."""

    registers: int
    spilled: int  # bytes stored and loaded
    shared_memory: int  # static, bytes


def resources(report: str) -> dict[str, Resources]:
    """Parse the output of `ptxas -v`: the resources of each kernel by its mangled name."""
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


# The single-launch kernel, the same without its rare cases, and the two of the two-launch design.
ONE, COMMON, LOSSES, GRADIENTS_KERNEL = "one", "one, common", "losses", "gradients"
_NAMES = {
    ONE: ("ssim_kernel", ", false"),
    COMMON: ("ssim_kernel", ", true"),
    LOSSES: ("ssim_losses_kernel", ""),
    GRADIENTS_KERNEL: ("ssim_gradients_kernel", ""),
}


@dataclass(frozen=True, order=True)
class Variant:
    """One instantiation of an SSIM kernel."""

    kernel: str
    type: str
    radius: int
    gradients: int

    @property
    def arguments(self) -> str:
        """The template arguments, without the last one of the single-launch kernel."""
        return f"{self.type}, {self.radius}, {self.gradients}"

    @property
    def definition(self) -> str:
        """The explicit instantiation, which makes the compiler emit the kernel."""
        name, last = _NAMES[self.kernel]
        parameter = f"const __grid_constant__ SsimArguments<{self.type}>"
        return f"template __global__ void {name}<{self.arguments}{last}>({parameter});"

    @property
    def resources(self) -> str:
        """A C++ expression for its KernelResources."""
        if self.kernel in (ONE, COMMON):
            return f"SsimTile<{self.arguments}{_NAMES[self.kernel][1]}>::resources()"
        return f"{self.kernel}_resources<{self.arguments}>()"


def all_variants(radii: Sequence[int] = RADII, types: Sequence[str] = TYPES) -> list[Variant]:
    """The variants that csrc/cuda/ssim_*.cu compile."""
    found = []
    for radius in radii:
        if "double" in types:
            found += [Variant(ONE, "double", radius, gradients) for gradients in GRADIENTS]
        if "float" in types:
            found += [Variant(ONE, "float", radius, gradients) for gradients in (1, 2)]
            found += [Variant(COMMON, "float", radius, 1)]
            found += [Variant(LOSSES, "float", radius, gradients) for gradients in GRADIENTS]
            found += [Variant(GRADIENTS_KERNEL, "float", radius, gradients) for gradients in (1, 2)]
    return sorted(found)


def variant_of(name: str) -> Variant:
    """The variant that a mangled name stands for."""
    found = _VARIANT.search(name)
    if found is None:
        raise ValueError(f"{name} is not an SSIM kernel")
    kernel = {
        "ssim": COMMON if found[5] == "1" else ONE,
        "ssim_losses": LOSSES,
        "ssim_gradients": GRADIENTS_KERNEL,
    }[found[1]]
    return Variant(kernel, {"f": "float", "d": "double"}[found[2]], int(found[3]), int(found[4]))


def compile_kernels(
    tools: Tools, source: Path, target: int, into: Path, flags: Iterable[str] = ()
) -> dict[str, Resources]:
    """Compile one file, in the folder of a snapshot, for one target to `into`."""
    command = [tools.nvcc, "-cubin", f"-arch=sm_{target}", *FLAGS, f"-I{source.parent / 'csrc'}"]
    command += [*flags, "-Xptxas", "-v", str(source), "-o", str(into)]
    return resources(run(command).stderr)


def compile_variants(
    tools: Tools, variants: Iterable[Variant], target: int, folder: Path
) -> tuple[dict[Variant, Resources], Path]:
    """Compile variants of the SSIM kernels exactly as they are shipped."""
    source, cubin = folder / f"variants-{target}.cu", folder / f"variants-{target}.cubin"
    definitions = "\n".join(v.definition for v in variants)
    source.write_text(
        f'#include "cuda/variants.cuh"\nnamespace lamp_kernels::cuda {{\n{definitions}\n}}\n',
        encoding="utf-8",
    )
    found = compile_kernels(tools, source, target, cubin)
    return {variant_of(name): r for name, r in found.items()}, cubin


@dataclass(frozen=True)
class Tiles:
    """How a launch cuts images into tiles, and the resources of a block."""

    columns: int  # per thread
    halo: int
    threads: int
    strips: int
    strip_width: int
    bands: int
    band_height: int
    shared_memory: int  # dynamic, bytes per block


@dataclass(frozen=True)
class Plan:
    """The plan that csrc/cuda/plan.h chooses for a shape and a device."""

    design: str  # "one" or "two" launches
    seconds: float
    planes_at_once: int
    launches: dict[str, Tiles]  # by kernel


@dataclass(frozen=True)
class Query:
    """The input of a plan, for float, window 11 and one gradient."""

    design: str  # "fastest", "one" or "two"
    shape: tuple[int, int, int, int]
    device: Device


@dataclass(frozen=True)
class Known:
    """The costs of a kernel that csrc/cuda assumes when it chooses tiles."""

    columns: int
    halo: int
    warps_at_once: int
    cycles: tuple[int, int, int]  # per row, for 1, 2 and 4 warps on a scheduler
    warming: float  # fraction of these for a warm-up row, which has no result
    beside: tuple[int, int]  # cycles of a tile outside its rows: fixed, and per warp of a scheduler
    shared_memory: int  # dynamic, of a block of KNOWN_THREADS


KNOWN_THREADS = 128


def known(tools: Tools, variants: Sequence[Variant], folder: Path) -> dict[Variant, Known]:
    """The assumed costs of each variant."""
    answers = _answers(
        tools, _KNOWN.replace("LIST", ", ".join(v.resources for v in variants)), folder, "known", ""
    )
    return dict(zip(variants, (Known(**answer) for answer in answers), strict=True))


def plans(tools: Tools, queries: Sequence[Query], folder: Path) -> list[Plan | None]:
    """Plans by the library's own rules; None if the design does not fit the device."""
    lines = [
        f"{('fastest', 'one', 'two').index(q.design)} {' '.join(map(str, q.shape))} "
        f"{q.device.multiprocessors} {q.device.target.shared_memory_of_block} "
        f"{int(q.device.cache)} {q.device.clock} {q.device.bandwidth} {q.device.issue_cycles}"
        for q in queries
    ]
    found: list[Plan | None] = []
    for answer in _answers(tools, _PLANS, folder, "plans", "\n".join(lines)):
        launches = {name: Tiles(**tiles) for name, tiles in answer.pop("launches", {}).items()}
        found.append(Plan(**answer, launches=launches) if launches else None)
    return found


def _answers(tools: Tools, text: str, folder: Path, name: str, given: str) -> list[dict[str, Any]]:
    """Run a program that includes the kernels' own headers, so that no rule is repeated here."""
    source, program = folder / f"{name}.cu", folder / name
    source.write_text(text, encoding="utf-8")
    include = f"-I{folder / 'csrc'}"
    run([tools.nvcc, "-std=c++20", include, "-arch=sm_75", str(source), "-o", str(program)])
    return [json.loads(line) for line in run([str(program)], given=given).stdout.splitlines()]


_KNOWN = r"""
#include <cstdio>
#include "cuda/ssim.cuh"
#include "cuda/ssim_gradients.cuh"
#include "cuda/ssim_losses.cuh"
using namespace lamp_kernels::cuda;
int main() {
  const KernelResources all[] = {LIST};
  for (const KernelResources& r : all)
    std::printf("{\"columns\": %d, \"halo\": %d, \"warps_at_once\": %d, "
                "\"cycles\": [%d, %d, %d], \"warming\": %g, \"beside\": [%d, %d], "
                "\"shared_memory\": %lld}\n",
                r.columns, r.halo, r.warps_at_once, r.cycles[0], r.cycles[1], r.cycles[2],
                r.warmup, r.overhead[0], r.overhead[1], (long long)r.shared_memory(THREADS));
}
""".replace("THREADS", str(KNOWN_THREADS))

_PLANS = r"""
#include <cstdio>
#include <stdexcept>
#include "cuda/plan.cu"
#include "cuda/ssim.cuh"
#include "cuda/ssim_gradients.cuh"
#include "cuda/ssim_losses.cuh"
namespace lamp_kernels::cuda {
// Only radius 5 and one gradient, and without kernel code.
const Variant& double_one(int, int) { throw std::logic_error("not needed"); }
const Variant& float_one(int, int) { throw std::logic_error("not needed"); }
const Variant& float_one_common(int, int) {
  static const Variant only = {SsimTile<float, 5, 1, true>::resources(), nullptr};
  return only;
}
const Variant& float_losses(int, int) {
  static const Variant only = {losses_resources<float, 5, 1>(), nullptr};
  return only;
}
const Variant& float_gradients(int, int) {
  static const Variant only = {gradients_resources<float, 5, 1>(), nullptr};
  return only;
}
}  // namespace lamp_kernels::cuda
using namespace lamp_kernels;
using namespace lamp_kernels::cuda;
void print(const char* name, const KernelResources& r, const Tiling& t, const char* end) {
  std::printf("\"%s\": {\"columns\": %d, \"halo\": %d, \"threads\": %d, \"strips\": %d, "
              "\"strip_width\": %d, \"bands\": %d, \"band_height\": %d, "
              "\"shared_memory\": %lld}%s",
              name, r.columns, r.halo, t.threads, t.strips, t.strip_width, t.bands, t.band_height,
              (long long)r.shared_memory(t.threads), end);
}
int main() {
  int design;
  long long n, c, h, w, shared, cache;
  Device device;
  while (std::scanf("%d %lld %lld %lld %lld %d %lld %lld %lf %lf %lf", &design, &n, &c, &h, &w,
                    &device.multiprocessors, &shared, &cache, &device.clock, &device.bandwidth,
                    &device.issue_cycles) == 11) {
    device.shared_memory = shared;
    device.cache = cache;
    Params p{};
    p.batch = n, p.channels = c, p.height = h, p.width = w;
    p.terms.set(Metric::ssim);
    p.radius = 5;
    p.border = Border::zeros;
    alignas(16) static float memory[4];
    p.input = {memory, Dtype::float32, c * h * w, h * w, w, 1};
    p.target = p.input;
    p.input_gradient = {memory, c * h * w, h * w, w, 1};
    try {
      const Plan plan = plan_ssim(p, false, device, Design(design));
      const bool two = plan.design == Design::two;
      std::printf("{\"design\": \"%s\", \"seconds\": %g, \"planes_at_once\": %lld, "
                  "\"launches\": {", two ? "two" : "one", plan.seconds,
                  two ? (long long)plan.planes_at_once : n * c);
      print(two ? "losses" : "one, common", plan.variant->resources, plan.tiling, two ? ", " : "");
      if (two) print("gradients", plan.gradients->resources, plan.gradients_tiling, "");
      std::printf("}}\n");
    } catch (const std::runtime_error&) {
      std::printf("{}\n");
    }
  }
}
"""
