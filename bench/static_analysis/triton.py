"""Compiles the Triton kernels ahead of time for every target, without a GPU, and counts resources.

NVIDIA: the ptxas of Triton's wheel compiles Triton's PTX and reports registers and spills; the
machine code is counted like that of the CUDA kernels. AMD: the compiler writes the figures into its
assembly. TRITON_INTERPRET must not be set: a process that interprets kernels cannot compile them.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lamp_kernels.backends.triton import kernel_spec, launch, tiling
from lamp_kernels.backends.triton.centering import plane_shifts
from lamp_kernels.backends.triton.gms import gms_losses
from lamp_kernels.backends.triton.pixels import pixel_losses
from lamp_kernels.backends.triton.scale import scale_gradient
from lamp_kernels.backends.triton.ssim_gradients import ssim_gradients
from lamp_kernels.backends.triton.ssim_losses import ssim_losses
from lamp_kernels.backends.triton.sums import image_sums
from lamp_kernels.spec import COMBINED, METRICS
from static_analysis import model, sources
from static_analysis.build import resources, run
from static_analysis.devices import DEVICES, TARGETS, WARP, Device, occupancy
from static_analysis.sass import Instruction, count, loops, parse, without_calls
from static_analysis.schedule import FAR_LATENCY, cycles_of_iteration

Row = dict[str, Any]

KERNELS = {
    "ssim_losses": ssim_losses,
    "ssim_gradients": ssim_gradients,
    "pixel_losses": pixel_losses,
    "gms_losses": gms_losses,
    "plane_shifts": plane_shifts,
    "image_sums": image_sums,
    "scale_gradient": scale_gradient,
}
AMD = ("gfx90a", "gfx942", "gfx950")
AMD_REGISTERS = 512  # per lane, including accumulation registers, on all three
AMD_SHARED_MEMORY = 64 * 1024
MAIN: model.Shape = (1, 3, 1080, 1920)
SHAPES: tuple[model.Shape, ...] = (MAIN, (8, 3, 256, 256), (64, 1, 28, 28), model.BIG)


@dataclass(frozen=True)
class Variant:
    """A kernel with its constants. everything: weight, pointwise terms, ranges, strided columns."""

    kernel: str
    type: str = "fp32"  # of the images
    radius: int = 5
    gradients: int = 1
    border: str = "reflect"
    everything: bool = False
    writes_map: bool = False
    masked: bool = False

    @property
    def compute_dtype(self) -> Any:
        """The compute type, as Triton calls it."""
        return tl.float64 if self.type == "fp64" else tl.float32

    @property
    def metrics(self) -> tuple[str, ...]:
        """The terms of the loss."""
        if self.kernel == "gms_losses":
            return ("gms",)
        if self.kernel == "pixel_losses":
            return ("mse", "l1") if self.everything else ("mse",)
        return COMBINED if self.everything else ("ssim",)

    def constants(self, warp: int) -> Row:
        """The constants that launch.py passes on a device with `warp` threads per warp."""
        both_at_once = self.gradients == 2 and not self.alone
        every = {
            "radius": self.radius,
            "border": kernel_spec.BORDERS[self.border],
            "gradients": self.gradients,
            "h_planes": 2 + self.gradients,
            "swapped": False,
            "writes_map": self.writes_map,
            "weighted": self.everything or self.masked,
            "masked": self.masked,
            "metrics": sum(1 << METRICS.index(metric) for metric in self.metrics),
            "metric_parameters": (0.0,) * len(self.metrics),
            "amplification": "log",
            "dense": self.dense,
            "block": warp,
            "across": self.device.across,
            "compute_dtype": self.compute_dtype,
            "one_row": not self.everything,
            "aligned": not self.everything,
            "narrow": True,
            "pieces": tiling.PIXELS.pieces,
            "samples": launch.SHIFT_SAMPLES,
            "terms": 3,
            "per_term": False,
            "scales_ptr": None,
        }
        if self.kernel == "pixel_losses":
            every["block"] = tiling.PIXELS.block
        if self.kernel == "scale_gradient":
            every |= {"block": tiling.SCALE.block, "pieces": tiling.SCALE.pieces}
        if self.kernel == "image_sums":
            every["block"] = launch.SUM_BLOCK
        if self.kernel == "ssim_gradients" and self.gradients == 2 and not both_at_once:
            every |= {"gradients": 1, "swapped": True}
        names = [name for name, kind in self.signature.items() if kind == "constexpr"]
        return {name: every[name] for name in names}

    @property
    def dense(self) -> bool:
        """Whether columns are adjacent: images of other strides are copied in some variants."""
        return not self.everything or self.type == "fp64" or self.masked

    @property
    def device(self) -> tiling.Device:
        """The device description that tiling.py uses for this variant."""
        device = tiling.CUDA_FLOAT64 if self.type == "fp64" else tiling.CUDA
        return tiling.for_call(
            device, not self.everything, self.radius, self.gradients, self.masked
        )

    @property
    def alone(self) -> bool:
        """Whether each gradient has its own launch."""
        return self.type == "fp64" and self.radius >= launch.SEPARATE_RADIUS_FLOAT64

    @property
    def signature(self) -> dict[str, str]:
        """The argument types, as in a launch."""
        real = "fp64" if self.type == "fp64" else "fp32"
        found = {}
        for parameter in KERNELS[self.kernel].params:
            name = parameter.name
            if parameter.is_constexpr or (name == "scales_ptr" and not self.everything):
                found[name] = "constexpr"
            elif name in ("x_ptr", "y_ptr"):
                found[name] = f"*{self.type}"
            elif name == "partial_ptr":
                found[name] = "*fp64"
            elif name.endswith("_ptr"):
                found[name] = f"*{real}"
            else:
                found[name] = parameter.annotation_type
        return found

    def threads(self, warp: int) -> int:
        """Threads of a program."""
        if self.kernel.startswith(("ssim", "gms")):
            return warp
        return tiling.PIXELS.warps * warp


# The heaviest variants: all options of a kernel at once.
HEAVIEST = (
    Variant("ssim_losses", "fp64", 7, 2, "zeros", everything=True),
    Variant("ssim_gradients", "fp64", 7, 2, "zeros", everything=True),
    Variant("ssim_gradients", "fp64", 5, 2, "zeros", everything=True),
    Variant("ssim_losses", "bf16", 7, 2, "zeros", everything=True),
    Variant("ssim_gradients", "bf16", 7, 2, "zeros", everything=True),
)
USUAL = (Variant("ssim_losses"), Variant("ssim_gradients"))
REST = (
    Variant("ssim_losses", gradients=0),
    Variant("ssim_losses", gradients=0, writes_map=True),
    Variant("ssim_losses", masked=True),
    Variant("pixel_losses", "bf16", everything=True),
    Variant("pixel_losses"),
    Variant("pixel_losses", gradients=0, writes_map=True),
    Variant("gms_losses"),
    Variant("plane_shifts"),
    Variant("image_sums"),
    Variant("scale_gradient"),
)
# The most registers under a mask.
MASKED = (
    Variant("ssim_losses", "fp64", 5, 1, masked=True),
    Variant("ssim_losses", "bf16", 7, 2, "zeros", everything=True, masked=True),
    Variant("ssim_gradients", "bf16", 7, 2, "zeros", everything=True, masked=True),
)
QUICK = (*USUAL, *REST)
ALL = (
    *QUICK,
    Variant("ssim_losses", "fp64"),
    Variant("ssim_gradients", "fp64"),
    *HEAVIEST,
    *MASKED,
    Variant("gms_losses", "bf16", gradients=2, everything=True, masked=True),
    Variant("gms_losses", "fp64", gradients=2, border="zeros", everything=True),
    *(
        Variant(kernel, type_, radius, 2, border)
        for kernel in ("ssim_losses", "ssim_gradients")
        for type_ in ("fp32", "fp64")
        for radius, border in ((1, "reflect"), (7, "valid"))
    ),
)


# ---- Compiling -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compiled:
    """A compiled variant. code: machine code on NVIDIA; operations: instruction counts on AMD."""

    registers: int
    spilled: int  # bytes stored and loaded; on AMD, memory reserved per lane
    shared_memory: int
    code: tuple[Instruction, ...] = ()
    operations: tuple[tuple[str, int], ...] = ()


@cache
def compiled(variant: Variant, target: int | str) -> Compiled:
    """Compile for a compute capability, such as 90, or for an AMD target, such as "gfx942"."""
    lanes = 64 if isinstance(target, str) else WARP
    device = GPUTarget("hip" if isinstance(target, str) else "cuda", target, lanes)
    source = ASTSource(KERNELS[variant.kernel], variant.signature, variant.constants(lanes))
    options = {"num_warps": variant.threads(lanes) // lanes}
    found = triton.compile(source, target=device, options=options)
    if isinstance(target, str):
        return _of_assembly(found.asm["amdgcn"])
    return _of_ptx(found.asm["ptx"], target, found.metadata.shared)


def _of_ptx(ptx: str, target: int, shared_memory: int) -> Compiled:
    programs = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    ptxas = programs / ("ptxas-blackwell" if target >= 100 else "ptxas")
    name = re.search(r"^\.target (\w+)", ptx, re.MULTILINE)
    assert name is not None
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(ptx, encoding="utf-8")
        result = run([str(ptxas), "-v", f"--gpu-name={name[1]}", str(source), "-o", str(cubin)])
        (used,) = resources(result.stderr).values()
        (code,) = parse(run([str(programs / "cuobjdump"), "-sass", str(cubin)]).stdout).values()
    return Compiled(used.registers, used.spilled, shared_memory, tuple(code))


def _of_assembly(text: str) -> Compiled:
    def value(name: str) -> int:
        found = re.search(rf"^\s*\.{name}:\s*(\d+)", text, re.MULTILINE)
        if found is None:
            raise ValueError(f"the assembly has no {name}")
        return int(found[1])

    operations = Counter(re.findall(r"^\s+([vs]_\w+|buffer_\w+|global_\w+)", text, re.MULTILINE))
    return Compiled(
        value("vgpr_count"),
        value("private_segment_fixed_size"),
        value("group_segment_fixed_size"),
        operations=tuple(sorted(operations.items())),
    )


def row_loop(variant: Variant, target: int) -> list[Instruction]:
    """The instructions that a warp executes per row: the largest loop without its rare cases.

    The rare cases are the slow path of a division, and ssim_losses moving its shift of s.
    """
    body = max(loops(without_calls(compiled(variant, target).code)), key=len)
    jumps = [
        (i.address, i.target)
        for i in body
        if i.target is not None and i.address < i.target < body[-1].address
    ]
    return [i for i in body if not any(start < i.address < end for start, end in jumps)]


def from_cache(body: Sequence[Instruction], variant: Variant) -> list[Instruction]:
    """The loop with its loads marked for the model as near or far.

    Loads for a later row, which the compiler leaves at the end of the loop, and the image loads of
    ssim_gradients come from memory (h planes: from the L2 cache or memory). The other loads hit
    the L1 cache, which is as fast as shared memory, so the model treats them as loads from there.
    """
    far = 4 if variant.kernel == "ssim_losses" else 2 * (2 + variant.gradients)
    if variant.kernel == "ssim_gradients":
        far += 2 * variant.device.across
    near = sum(i.kind == "ldg" for i in body) - far
    timed = []
    for i in body:
        if i.kind == "ldg" and near > 0:
            near -= 1
            i = replace(i, text=i.text.replace("LDG", "LDS", 1))
        timed.append(i)
    return timed


# ---- The table -----------------------------------------------------------------------------------


def collect(
    targets: Sequence[int], amd: Sequence[str], quick: bool, say: Callable[[str], None] = print
) -> Row:
    """Collect all figures of the Triton kernels, as plain values for JSON."""
    variants = QUICK if quick else ALL
    rows: list[Row] = []
    every: list[int | str] = [*targets, *amd]
    for target in every:
        say(f"Triton, {target}: {len(variants)} kernels")
        rows += [_resources(variant, target) for variant in variants]
    return {
        "triton": triton.__version__,
        "sources": sources.triton_digest(),
        "variants": rows,
        "loops": [_loop(variant, target) for target in targets for variant in USUAL],
        "predictions": [
            _prediction(device, shape)
            for device in DEVICES
            if int(device.target.name[3:]) in targets
            for shape in SHAPES
        ],
    }


def _resources(variant: Variant, target: int | str) -> Row:
    found = compiled(variant, target)
    row = {
        "target": target if isinstance(target, str) else TARGETS[target].name,
        **asdict(variant),
        "registers": found.registers,
        "spilled": found.spilled,
        "shared_memory": found.shared_memory,
    }
    if isinstance(target, str):
        # Wavefronts of a SIMD: registers are allocated in units of 8, for at most 8 wavefronts.
        of_lane = -(-found.registers // 8) * 8
        return {**row, "warps": 4 * min(8, AMD_REGISTERS // max(of_lane, 8))}
    threads = variant.threads(WARP)
    fits = occupancy(TARGETS[target], threads, found.registers, found.shared_memory)
    return {**row, "warps": fits.warps}


def _seam(tiles: tiling.Tiling, radius: int, height: int) -> float:
    """Rows that the programs of a strip process, relative to the rows of the image."""
    return 1.0 + 2 * radius * tiles.bands / height


def _groups(shape: model.Shape, variant: Variant, device: Device) -> list[int]:
    """The planes of each pair of launches, as launch.py groups them."""
    n, c, height, width = shape
    device_ = variant.device
    of_plane = 4 * tiling.h_elements(height, width, 2 + variant.gradients, device_.across)
    scratch = tiling.CUDA._replace(scratch=tiling.scratch(int(device.cache)))
    most = tiling.planes_at_once(n * c, of_plane, scratch)
    return [min(most, n * c - first) for first in range(0, n * c, most)]


def _tiles(
    planes: int, shape: model.Shape, variant: Variant, multiprocessors: int
) -> tiling.Tiling:
    device = tiling.CUDA._replace(multiprocessors=multiprocessors)
    losses, gradients = tiling.ssim_tilings(planes, *shape[2:], variant.radius, device)
    return losses if variant.kernel == "ssim_losses" else gradients


def _loop(variant: Variant, target: int) -> Row:
    tiles = _tiles(MAIN[0] * MAIN[1], MAIN, variant, TARGETS[target].multiprocessors)
    factor = _seam(tiles, variant.radius, MAIN[2]) * tiles.strips * tiles.block / MAIN[3]
    counts = count(row_loop(variant, target)) * (1 / variant.device.across)
    return {
        "target": TARGETS[target].name,
        "kernel": variant.kernel,
        "block": tiles.block,
        "band_height": tiles.band_height,
        "factor": factor,
        "position": counts.as_row(),
        "element": (counts * factor).as_row(),
    }


def _bytes(variant: Variant, seam: float) -> tuple[float, float]:
    """DRAM bytes per element, if the h planes stay in the L2 cache and if they go through DRAM.

    Two programs read the rows at a seam, at times far apart.
    """
    planes = 4.0 * (2 + variant.gradients)
    if variant.kernel == "ssim_losses":
        return 8.0 * seam, 8.0 * seam + planes
    written = 4.0 * variant.gradients
    return 8.0 + written, 8.0 + written + planes * seam


def _prediction(device: Device, shape: model.Shape) -> Row:
    """Predict forward + backward as for the CUDA kernels: the slower of DRAM and instructions."""
    target = int(device.target.name[3:])
    height, width = shape[2:]
    groups = _groups(shape, USUAL[0], device)
    row: Row = {"device": device.name, "shape": list(shape), "planes": groups, "launches": {}}
    parts, fast = [], []
    for variant in USUAL:
        tiles = _tiles(groups[0], shape, variant, device.multiprocessors)
        found = compiled(variant, target)
        fits = occupancy(device.target, WARP, found.registers, found.shared_memory)
        body = from_cache(row_loop(variant, target), variant)
        of_row = [0.0]
        for at_once in range(1, fits.blocks + 1):
            warps = list(range(at_once))
            owner = warps[:: device.target.schedulers]
            of_row.append(cycles_of_iteration(body, owner, device.target))
        rows = tiles.band_height + 2 * variant.radius
        cycles = [each * rows + FAR_LATENCY * (each > 0) for each in of_row]
        seam = _seam(tiles, variant.radius, height)
        launches = []
        for planes in groups:
            part = (planes, 1, height, width)
            programs = planes * tiles.per_plane
            busy = model.in_rounds(programs, device, fits.blocks, cycles) / device.clock
            least, most = (model.dram_seconds(some, part, device) for some in _bytes(variant, seam))
            launches.append(model.Part(most, busy))
            fast.append(model.Part(least, busy))
        parts += launches
        row["launches"][variant.kernel] = {
            "block": tiles.block,
            "band_height": tiles.band_height,
            "programs": groups[0] * tiles.per_plane,
            "warps_at_once": fits.warps,
            "bytes": list(_bytes(variant, seam)),
            "binding": launches[0].binding,
            "seconds": model.seconds(launches),
        }
    # The centers, and the sum over all tiles; PyTorch fills the gradient of the loss; backward
    # checks that it is 1.
    around = [
        *[model.Part(0.0, 2 * FAR_LATENCY / device.clock)] * 2,
        model.Part(0.0, 0.0),
        model.Part(0.0, FAR_LATENCY / device.clock),
    ]
    row["seconds"] = model.seconds([*parts, *around])
    row["seconds_with_h_in_cache"] = model.seconds([*fast, *around])
    return row
