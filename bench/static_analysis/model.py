"""Predicts times from the counts of the compiled code and the specifications of devices.

A launch takes as long as the slower of its DRAM traffic and its instructions on the
multiprocessors, which static_analysis/schedule.py simulates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from static_analysis.build import GRADIENTS_KERNEL, LOSSES, Tiles
from static_analysis.devices import Device
from static_analysis.sources import TWO_KERNEL, constant

# Share of the DRAM bandwidth that purely streaming kernels reach; copies and the like are commonly
# reported at 0.87 to 0.93 of the datasheet's figure on these three devices.
DRAM_SHARE = constant("plan.cu", "kBandwidthShare")
# Gap between consecutive kernels of a stream: NVIDIA's blog post "Getting Started with CUDA Graphs"
# measures 3.8 us for each kernel of a sequence whose kernels run for 2.9 us.
LAUNCH_GAP = constant("plan.cu", "kLaunchSeconds")

Shape = tuple[int, int, int, int]


def elements(shape: Shape) -> int:
    """The number of elements: pixels times channels times images."""
    n, c, h, w = shape
    return n * c * h * w


@dataclass(frozen=True)
class Part:
    """A launch: how long it keeps each resource busy, in seconds."""

    dram: float
    multiprocessors: float

    @property
    def seconds(self) -> float:
        """The time of the launch, which uses both resources concurrently."""
        return max(self.dram, self.multiprocessors) + LAUNCH_GAP

    @property
    def binding(self) -> str:
        """The resource that takes longer."""
        return "DRAM" if self.dram >= self.multiprocessors else "instructions"


def dram_seconds(bytes_per_element: float, shape: Shape, device: Device) -> float:
    """The time of a launch's DRAM traffic."""
    return bytes_per_element * elements(shape) / (DRAM_SHARE * device.bandwidth)


# ---- The streaming kernels -----------------------------------------------------------------------


@dataclass(frozen=True)
class Overhead:
    """Redundant computation and reads caused by halos between tiles, as factors."""

    rows: float  # processed by tiles, relative to the rows of the image
    columns: float
    rows_read: float  # relative to the rows of the image
    columns_read: float
    longest: int  # rows that the longest tile processes ...
    warming: int  # ... and how many of them are warm-up rows, without a loss or gradient yet

    @property
    def positions(self) -> float:
        """Computed positions relative to owned ones."""
        return self.rows * self.columns


def overhead(tiles: Tiles, radius: int, shape: Shape) -> Overhead:
    """Derive the factors from the bounds of the kernels' loops, if the grid is the whole image."""
    _, _, height, width = shape
    around = tiles.halo + radius  # rows and columns that a tile reads on each side
    walked, rows_read, longest = 0, 0, 0
    for band in range(tiles.bands):
        begin = band * tiles.band_height
        stop = min(begin + tiles.band_height, height)
        # With a halo, the gradient lags one row behind.
        rows = stop - begin + 2 * around + (1 if tiles.halo else 0)
        walked += rows
        longest = max(longest, rows)
        rows_read += min(height, stop + around) - max(0, begin - around)
    positions = tiles.threads * tiles.columns
    columns_read = 0
    for strip in range(tiles.strips):
        left = strip * tiles.strip_width - around
        right = left + positions + 2 * radius
        columns_read += min(width, right) - max(0, left)
    return Overhead(
        walked / height,
        positions * tiles.strips / width,
        rows_read / height,
        columns_read / width,
        longest,
        2 * radius,
    )


SHIFT_ROWS = int(constant("centering.cuh", "kRows"))  # that shifts_of reads in each tile


def streamed_bytes(kernel: str, tiles: Tiles, gradients: int, more: Overhead) -> float:
    """DRAM traffic in bytes per element.

    Neighboring strips advance in step, so whatever both read comes from the L2 cache the second
    time. Of two bands, one reads the rows between them at its end and the other at its start, so
    the L2 cache serves neither. The rows for the shifts are read again, too. The h planes stay in
    the L2 cache; the gradients kernel reads the images again.
    """
    if kernel == GRADIENTS_KERNEL:
        return 8.0 + 4.0 * gradients
    shifts = min(SHIFT_ROWS, tiles.band_height) / tiles.band_height
    return 8 * (more.rows_read + shifts) + (0.0 if kernel == LOSSES else 4.0 * gradients)


def in_rounds(total: int, device: Device, at_once: int, cycles: Sequence[float]) -> float:
    """Cycles of a launch of `total` equal blocks, up to `at_once` concurrent per multiprocessor.

    cycles: those of 0, 1, ... concurrent blocks. The multiprocessor with the most blocks decides.
    """
    most = -(-total // device.multiprocessors)
    full, rest = divmod(most, at_once)
    return full * cycles[at_once] + cycles[rest]


def streamed_part(
    tiles: Tiles,
    shape: Shape,
    device: Device,
    bytes_per_element: float,
    tile_cycles: Sequence[float],
) -> Part:
    """One launch. tile_cycles: cycles of a tile with 0, 1, ... concurrent blocks."""
    n, c, _, _ = shape
    total = n * c * tiles.strips * tiles.bands
    busy = in_rounds(total, device, len(tile_cycles) - 1, tile_cycles)
    return Part(dram_seconds(bytes_per_element, shape, device), busy / device.clock)


# ---- The two-kernel design of other packages -----------------------------------------------------

SIDE = int(constant(TWO_KERNEL, "kTile"))  # of a thread block in bench/two_kernel.cu


@dataclass(frozen=True)
class Launch:
    """A launch of the plain two-kernel design, and its traffic per element."""

    name: str
    bytes: float
    kernel: str = ""  # in bench/two_kernel.cu; without one, traffic alone decides


def _fills(count: int) -> list[Launch]:
    return [Launch("fill with zeros", 4)] * count


# The launches of fused-ssim and similar packages (from its source, 2025): zeros_like creates every
# output, and the score is the mean of the map, whose gradient autograd expands to a plane. The
# halos of tiles come from the L2 cache and cause no traffic.
MEAN = Launch("mean of the map", 4)
FORWARD = [*_fills(4), Launch("forward", 8 + 16, "forward"), MEAN]
INFERENCE = [*_fills(1), Launch("forward without derivatives", 8 + 4, "inference"), MEAN]
BACKWARD = [
    Launch("gradient of the mean", 4),
    *_fills(1),
    Launch("backward", 16 + 8 + 4, "backward"),
]
# Its benchmark calls backward() repeatedly without clearing the gradient, so each gradient is added
# to the previous one.
ADDED = Launch("added to the last gradient", 12)


@dataclass(frozen=True)
class Published:
    """A published measurement on a device."""

    what: str
    milliseconds: float
    launches: tuple[Launch, ...]
    shape: Shape
    device: str
    source: str
    gate: bool  # whether the model must agree for its predictions to count


# The README does not name the device; elsewhere its author mentions his RTX 4090.
_README = "README of optimized-fused-ssim (2025), timed by its tests/test.py"
BIG: Shape = (5, 5, 1080, 1920)
PUBLISHED = (
    Published("forward", 2.49, tuple(FORWARD), BIG, "RTX 4090", _README, True),
    Published("backward", 2.68, (*BACKWARD, ADDED), BIG, "RTX 4090", _README, True),
    Published("inference", 1.43, tuple(INFERENCE), BIG, "RTX 4090", _README, False),
)
TOLERANCE = 0.25


def plain_parts(
    launches: Sequence[Launch],
    shape: Shape,
    device: Device,
    block_cycles: Mapping[str, Sequence[float]],
) -> list[Part]:
    """All launches. block_cycles: cycles of 0, 1, ... concurrent blocks, by kernel."""
    n, c, height, width = shape
    blocks = n * c * -(-height // SIDE) * -(-width // SIDE)
    parts = []
    for launch in launches:
        busy = 0.0
        if launch.kernel:
            cycles = block_cycles[launch.kernel]
            busy = in_rounds(blocks, device, len(cycles) - 1, cycles) / device.clock
        parts.append(Part(dram_seconds(launch.bytes, shape, device), busy))
    return parts


def seconds(parts: Sequence[Part], memory: bool = True) -> float:
    """Time of consecutive launches; memory=False treats every memory access as free."""
    if memory:
        return sum(part.seconds for part in parts)
    return sum(part.multiprocessors + LAUNCH_GAP for part in parts)


def agreeing_shares(
    published: Published,
    device: Device,
    block_cycles: Mapping[str, Sequence[float]],
) -> tuple[float, float]:
    """The range of DRAM_SHARE for which the model agrees with a published time."""
    parts = plain_parts(published.launches, published.shape, device, block_cycles)
    good = []
    for percent in range(30, 131):
        factor = DRAM_SHARE / (percent / 100)
        scaled = [Part(part.dram * factor, part.multiprocessors) for part in parts]
        error = seconds(scaled) * 1e3 / published.milliseconds - 1
        if abs(error) <= TOLERANCE:
            good.append(percent / 100)
    return (min(good), max(good)) if good else (0.0, 0.0)
