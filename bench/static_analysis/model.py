"""Predicted times, from counts of the compiled code and public figures of devices.

A launch takes as long as the slower of two: its traffic through DRAM, and its instructions on the
multiprocessors as static_analysis/schedule.py plays them through.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from static_analysis.build import GRADIENTS_KERNEL, LOSSES, Tiles
from static_analysis.devices import Device
from static_analysis.sources import TWO_KERNEL, constant

# Share of the DRAM bandwidth that kernels reach which only stream through it; copies and the like
# are commonly reported at 0.87 to 0.93 of the figure in the datasheet on these three devices.
DRAM_SHARE = constant("plan.cu", "kBandwidthShare")
# Between two kernels that follow one another in a stream: NVIDIA's blog "Getting Started with CUDA
# Graphs" has 3.8 us for each of a row of kernels of 2.9 us.
LAUNCH_GAP = constant("plan.cu", "kLaunchSeconds")

Shape = tuple[int, int, int, int]


def elements(shape: Shape) -> int:
    """Pixels times channels times images."""
    n, c, h, w = shape
    return n * c * h * w


@dataclass(frozen=True)
class Part:
    """A resource, and how long it is busy, in seconds."""

    dram: float
    multiprocessors: float

    @property
    def seconds(self) -> float:
        """Of the launch that needs both."""
        return max(self.dram, self.multiprocessors) + LAUNCH_GAP

    @property
    def binding(self) -> str:
        """The one that takes longer."""
        return "DRAM" if self.dram >= self.multiprocessors else "instructions"


def dram_seconds(bytes_per_element: float, shape: Shape, device: Device) -> float:
    """Of a launch's traffic."""
    return bytes_per_element * elements(shape) / (DRAM_SHARE * device.bandwidth)


# ---- The streaming kernels -----------------------------------------------------------------------


@dataclass(frozen=True)
class Overhead:
    """What is computed and read more than once, for the sake of neighbors, as factors."""

    rows: float  # that a tile walks through, over those that it owns
    columns: float
    rows_read: float  # of the images, over those that there are
    columns_read: float
    longest: int  # rows that the longest tile walks through ...
    warming: int  # ... and how many of these have no result yet: no loss, or no gradient

    @property
    def positions(self) -> float:
        """Computed over own."""
        return self.rows * self.columns


def overhead(tiles: Tiles, radius: int, shape: Shape) -> Overhead:
    """By the bounds of the kernels' loops, for a grid that is the whole image."""
    _, _, height, width = shape
    around = tiles.halo + radius  # rows and columns that a tile sees on each side
    walked, rows_read, longest = 0, 0, 0
    for band in range(tiles.bands):
        begin = band * tiles.band_height
        stop = min(begin + tiles.band_height, height)
        # With a halo the gradient is a row behind.
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


SHIFT_ROWS = int(constant("centering.cuh", "kRows"))  # that shifts_of reads of each tile


def streamed_bytes(kernel: str, tiles: Tiles, gradients: int, more: Overhead) -> float:
    """Bytes per element that come from DRAM or go there.

    Neighbouring strips are in step, so that what both read comes from the L2 cache the second time;
    of two bands one reads the rows between them at its end and the other at its beginning, when
    they are no longer there, or not yet. Rows for the shifts are read anew, too. The planes of h
    stay in the L2 cache; the gradients' kernel reads the images again.
    """
    if kernel == GRADIENTS_KERNEL:
        return 8.0 + 4.0 * gradients
    shifts = min(SHIFT_ROWS, tiles.band_height) / tiles.band_height
    return 8 * (more.rows_read + shifts) + (0.0 if kernel == LOSSES else 4.0 * gradients)


def in_rounds(total: int, device: Device, at_once: int, cycles: Sequence[float]) -> float:
    """Cycles of a launch of `total` equal blocks, of which a multiprocessor runs some at once.

    cycles: of 0, 1, ... blocks at once. The multiprocessor that gets most decides.
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
    """One launch. Cycles: of a tile where a multiprocessor has 0, 1, ... blocks at once."""
    n, c, _, _ = shape
    total = n * c * tiles.strips * tiles.bands
    busy = in_rounds(total, device, len(tile_cycles) - 1, tile_cycles)
    return Part(dram_seconds(bytes_per_element, shape, device), busy / device.clock)


# ---- The plain design ----------------------------------------------------------------------------

SIDE = int(constant(TWO_KERNEL, "kTile"))  # of a block of bench/two_kernel.cu


@dataclass(frozen=True)
class Launch:
    """A kernel that a user of the plain design runs, and its traffic per element."""

    name: str
    bytes: float
    kernel: str = ""  # of bench/two_kernel.cu; the others are bound by their traffic


def _fills(count: int) -> list[Launch]:
    return [Launch("fill with zeros", 4)] * count


# What fused-ssim and its like launch (read from its source, 2025): every output is made by
# zeros_like, the score is the map's mean, whose gradient autograd spreads over a plane. The halos
# of tiles come from the L2 cache and are no traffic.
MEAN = Launch("mean of the map", 4)
FORWARD = [*_fills(4), Launch("forward", 8 + 16, "forward"), MEAN]
INFERENCE = [*_fills(1), Launch("forward without derivatives", 8 + 4, "inference"), MEAN]
BACKWARD = [
    Launch("gradient of the mean", 4),
    *_fills(1),
    Launch("backward", 16 + 8 + 4, "backward"),
]
# Its benchmark calls backward() again and again without clearing the gradient before, so that each
# is added to the last.
ADDED = Launch("added to the last gradient", 12)


@dataclass(frozen=True)
class Published:
    """A time that someone has measured on a device."""

    what: str
    milliseconds: float
    launches: tuple[Launch, ...]
    shape: Shape
    device: str
    source: str
    gate: bool  # whether the model has to agree, to be believed


# The README does not name the device; its author writes elsewhere of his RTX 4090.
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
    block_cycles: dict[str, Sequence[float]],
) -> list[Part]:
    """Of each launch. block_cycles: of 0, 1, ... blocks at once, by the kernel."""
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
    """Of launches one after the other; without memory as if every access were free."""
    if memory:
        return sum(part.seconds for part in parts)
    return sum(part.multiprocessors + LAUNCH_GAP for part in parts)


def agreeing_shares(
    published: Published,
    device: Device,
    block_cycles: dict[str, Sequence[float]],
) -> tuple[float, float]:
    """Least and greatest DRAM_SHARE with which the model agrees with a published time."""
    parts = plain_parts(published.launches, published.shape, device, block_cycles)
    good = []
    for percent in range(30, 131):
        factor = DRAM_SHARE / (percent / 100)
        scaled = [Part(part.dram * factor, part.multiprocessors) for part in parts]
        error = seconds(scaled) * 1e3 / published.milliseconds - 1
        if abs(error) <= TOLERANCE:
            good.append(percent / 100)
    return (min(good), max(good)) if good else (0.0, 0.0)
