"""How images are cut into tiles, one per program, depending on shape, window and device."""

from functools import lru_cache
from typing import NamedTuple


class Device(NamedTuple):
    """The properties of a device that the choice depends on."""

    multiprocessors: int  # AMD: compute units
    lanes: int  # threads of a warp (32), or of a wavefront (64)
    across: int  # columns per lane
    highest: int  # rows of a program, at most
    scratch: int  # bytes of h planes held at once
    warps_at_once: int  # of ssim_losses, that fit into the registers of a multiprocessor
    gradient_warps: int  # the same for ssim_gradients
    schedulers: int = 4  # of a multiprocessor; AMD: SIMD units

    @property
    def block(self) -> int:
        """Columns of a program, which is one warp."""
        return self.lanes * self.across


# Memory for h planes; the times are predictions of bench/static_analysis. On A100 and H100
# instructions limit the speed even when the h planes go through DRAM, so larger groups of planes
# win: they allow higher bands and full rounds. (5, 5, 1080, 1920) on an H100, one gradient: 1.60 ms
# in groups of 64 MiB, 1.48 in groups of 192 MiB, 1.43 all at once.
SCRATCH = 192 * 2**20
# On an RTX 4090 DRAM limits the speed, and the cache is large: 1.87 ms with h planes that stay in
# it, 2.6 without. The rest of the cache is for the images that stream through it.
LARGE_CACHE = 64 * 2**20


def scratch(cache: int) -> int:
    """Bytes of h planes held at once, for a device whose L2 cache has `cache` bytes."""
    return cache * 3 // 4 if cache >= LARGE_CACHE else SCRATCH


# A lane has two columns in float32, one in float64, whose sums fill the registers. A program is one
# warp: each row has a test whether a lane's shift moves, and several warps would wait for each
# other. A lane adds up its columns in the compute type: 128 rows of two columns cost float32 none
# of the digits that the library promises.
# Warps at once: as many as fit into the registers, for window 11 and one gradient, from
# docs/gpu_static.md.
CUDA = Device(
    multiprocessors=80,
    lanes=32,
    across=2,
    highest=128,
    scratch=SCRATCH,
    warps_at_once=8,
    gradient_warps=12,
)
CUDA_FLOAT64 = CUDA._replace(across=1)
HIP = CUDA._replace(multiprocessors=104, lanes=64, gradient_warps=8)
HIP_FLOAT64 = HIP._replace(across=1, gradient_warps=12)
# Triton's interpreter: an operation takes as long for one column as for a thousand of them.
INTERPRETER = CUDA._replace(multiprocessors=1, schedulers=1, lanes=128, highest=4096)
INTERPRETER_FLOAT64 = INTERPRETER._replace(across=1)


def for_call(
    device: Device, dense: bool, radius: int, gradients: int, masked: bool = False
) -> Device:
    """With one column per lane where two columns need too many registers.

    That is the case for columns that are not adjacent (not `dense`), since each has its own
    address, for both gradients of a window of 15 beside pointwise terms, and for the additional
    sums of a mask.
    """
    if dense and not masked and not (radius >= 7 and gradients == 2):
        return device
    return device._replace(across=1)


def planes_at_once(planes: int, of_plane: int, device: Device) -> int:
    """How many planes are launched together, in groups of nearly equal size; at least one.

    of_plane: bytes of h planes for one image plane. A small last group would leave most of the
    device idle for as long as a full group takes.
    """
    most = max(1, device.scratch // of_plane) if of_plane else planes
    groups = -(-planes // most)
    return -(-planes // groups)


LOWEST_BAND = 4  # rows


class Tiling(NamedTuple):
    """A program's tile, and the number of tiles in a plane."""

    block: int  # columns, a power of 2
    across: int  # columns per lane
    strips: int
    band_height: int
    bands: int

    @property
    def per_plane(self) -> int:
        """Programs of a plane."""
        return self.strips * self.bands

    @property
    def lanes(self) -> int:
        """Threads of a program."""
        return self.block // self.across


@lru_cache(maxsize=512)
def ssim_tiling(planes: int, height: int, width: int, radius: int, device: Device) -> Tiling:
    """The tiling whose bands take the least time.

    A program walks through the rows of its band and 2 radius more. For each row the warps of a
    scheduler take turns, one unit of time each, and then wait for memory, about half a unit by the
    model of bench/static_analysis/triton.py. Programs run in rounds of as many as the device
    holds; the busiest multiprocessor determines the time.
    """
    strips = -(-width // device.block)

    def time(bands: int) -> float:
        programs = -(-planes * strips * bands // device.multiprocessors)
        rounds = -(-programs // device.warps_at_once)
        turns = -(-programs // device.schedulers) + 0.5 * rounds
        return turns * (-(-height // bands) + 2 * radius)

    return _tiling(height, width, device, min(_bands(height, device), key=time))


def ssim_tilings(
    planes: int, height: int, width: int, radius: int, device: Device
) -> tuple[Tiling, Tiling]:
    """The tilings of ssim_losses and of ssim_gradients."""
    others = device._replace(warps_at_once=device.gradient_warps)
    cut = (planes, height, width, radius)
    return ssim_tiling(*cut, device), ssim_tiling(*cut, others)


def ssim_candidates(
    planes: int, height: int, width: int, radius: int, device: Device
) -> list[tuple[Tiling, Tiling]]:
    """Tilings to measure: those of ssim_tilings first, then others that may be faster.

    The others have half, the same, twice and four times as many bands; both kernels share a tiling.
    """
    first = ssim_tilings(planes, height, width, radius, device)
    candidates = [first]
    for bands in (first[0].bands // 2, first[0].bands, 2 * first[0].bands, 4 * first[0].bands):
        if bands in _bands(height, device):
            tiles = _tiling(height, width, device, bands)
            candidates.append((tiles, tiles))
    return list(dict.fromkeys(candidates))


def _bands(height: int, device: Device) -> range:
    """The numbers of bands that a plane may be cut into."""
    fewest = -(-height // device.highest)
    return range(fewest, max(fewest, height // LOWEST_BAND) + 1)


def _tiling(height: int, width: int, device: Device, bands: int) -> Tiling:
    """The tiling with about this many bands, all of one height."""
    band_height = -(-height // bands)
    strips = -(-width // device.block)
    return Tiling(device.block, device.across, strips, band_height, -(-height // band_height))


class PixelTiling(NamedTuple):
    """A program's run: `pieces` times `block` elements.

    Of a plane for pointwise losses, of an image's gradient for scaling it.
    """

    block: int
    pieces: int
    warps: int

    def runs(self, pixels: int) -> int:
        """Programs for so many pixels."""
        return -(-pixels // (self.block * self.pieces))


# Four warps, and enough pixels to hide the cost of a program. The others are for autotuning.
PIXELS = PixelTiling(block=512, pieces=8, warps=4)
PIXEL_CANDIDATES = (
    PIXELS,
    PixelTiling(block=512, pieces=2, warps=4),
    PixelTiling(block=1024, pieces=4, warps=4),
    PixelTiling(block=1024, pieces=8, warps=8),
    PixelTiling(block=2048, pieces=2, warps=8),
)
# As many elements as a block of the CUDA kernel has in float32: usually none is read.
SCALE = PixelTiling(block=1024, pieces=8, warps=4)


# LANES of h_planes.py.
CHUNK_LANES = 32


def h_elements(height: int, width: int, h_planes: int, across: int) -> int:
    """Elements of all h planes of an image plane, whose rows are cut into chunks (h_planes.py)."""
    chunk = across * CHUNK_LANES
    return height * -(-width // chunk) * chunk * h_planes
