"""How images are cut into the tiles that programs take: by the shape, the window and the device."""

from functools import lru_cache
from typing import NamedTuple


class Device(NamedTuple):
    """What the choice depends on."""

    multiprocessors: int  # compute units, in AMD's words
    lanes: int  # threads of a warp (32), or of a wavefront (64)
    across: int  # columns of a lane
    highest: int  # rows of a program
    scratch: int  # bytes of h planes at once
    warps_at_once: int  # of ssim_losses, that the registers of a multiprocessor have room for
    gradient_warps: int  # of ssim_gradients
    schedulers: int = 4  # of a multiprocessor; SIMD units, in AMD's words

    @property
    def block(self) -> int:
        """Columns of a program, which is one warp."""
        return self.lanes * self.across


# What h planes may take, counted by bench/gpu/triton.py's model. On A100 and H100 instructions are
# what takes the time, also with the h planes going through DRAM: there larger groups of planes win,
# by higher bands and full rounds. (5, 5, 1080, 1920) on an H100, one gradient: 1.60 ms in groups of
# 64 MiB, 1.48 in groups of 192 MiB, 1.43 all at once.
SCRATCH = 192 * 2**20
# On an RTX 4090 DRAM is what takes the time, and its cache is large: 1.87 ms with h planes that
# stay there, 2.6 without. What is left of the cache is for the images that stream through it.
LARGE_CACHE = 64 * 2**20


def scratch(cache: int) -> int:
    """Bytes of h planes at once, for a device whose L2 cache has `cache` bytes."""
    return cache * 3 // 4 if cache >= LARGE_CACHE else SCRATCH


# A lane has two columns in float32, one in float64, whose sums fill the registers. A program is one
# warp: in every row it is asked whether a lane's level moves, and several warps would wait for one
# another. A lane adds up its columns in the type computed in: 128 rows of two cost float32 no digit
# that is promised.
# Warps at once: as many as the registers have room for, of window 11 and one gradient, by
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
# Triton's interpreter: an operation takes as long for one column as for a thousand.
INTERPRETER = CUDA._replace(multiprocessors=1, schedulers=1, lanes=128, highest=4096)
INTERPRETER_FLOAT64 = INTERPRETER._replace(across=1)


def for_call(device: Device, dense: bool, radius: int, gradients: int) -> Device:
    """With one column a lane where two ask for more registers than there are.

    dense: columns lie side by side; else each of them has an address of its own. The other case are
    both gradients of a window of 15, beside pointwise terms.
    """
    if dense and not (radius >= 7 and gradients == 2):
        return device
    return device._replace(across=1)


def planes_at_once(planes: int, of_plane: int, device: Device) -> int:
    """How many planes are launched together, in groups as even as can be.

    of_plane: bytes of h planes that each takes, one plane's at least being there. A small last
    group would leave most of the device idle for as long as the others take.
    """
    most = max(1, device.scratch // of_plane) if of_plane else planes
    groups = -(-planes // most)
    return -(-planes // groups)


LOWEST_BAND = 4  # rows


class Tiling(NamedTuple):
    """A program's tile, and how many there are of them in a plane."""

    block: int  # columns, a power of 2
    across: int  # of them a lane has
    strips: int
    band_height: int
    bands: int

    @property
    def per_plane(self) -> int:
        """Programs of a plane."""
        return self.strips * self.bands

    @property
    def lanes(self) -> int:
        """Of a program."""
        return self.block // self.across


@lru_cache(maxsize=512)
def ssim_tiling(planes: int, height: int, width: int, radius: int, device: Device) -> Tiling:
    """The bands that take the least time.

    A program walks through the rows of its band and 2 radius more. For each row the warps of a
    scheduler take turns, which is the time of one for each of them, and then wait for memory, by
    bench/gpu/triton.py's model about half as long. Programs run in rounds of as many as the device
    holds; the multiprocessor that has the most decides.
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
    """Of ssim_losses and of ssim_gradients."""
    others = device._replace(warps_at_once=device.gradient_warps)
    cut = (planes, height, width, radius)
    return ssim_tiling(*cut, device), ssim_tiling(*cut, others)


def ssim_candidates(
    planes: int, height: int, width: int, radius: int, device: Device
) -> list[tuple[Tiling, Tiling]]:
    """What may be quicker than ssim_tilings', which come first: to be measured.

    Half, twice and four times as many bands as are reckoned; both kernels in the same tiles.
    """
    first = ssim_tilings(planes, height, width, radius, device)
    candidates = [first]
    for bands in (first[0].bands // 2, first[0].bands, 2 * first[0].bands, 4 * first[0].bands):
        if bands in _bands(height, device):
            tiles = _tiling(height, width, device, bands)
            candidates.append((tiles, tiles))
    return list(dict.fromkeys(candidates))


def _bands(height: int, device: Device) -> range:
    """How many a plane may be cut into."""
    fewest = -(-height // device.highest)
    return range(fewest, max(fewest, height // LOWEST_BAND) + 1)


def _tiling(height: int, width: int, device: Device, bands: int) -> Tiling:
    """In about as many bands, of one height."""
    band_height = -(-height // bands)
    strips = -(-width // device.block)
    return Tiling(device.block, device.across, strips, band_height, -(-height // band_height))


class PixelTiling(NamedTuple):
    """What a program takes: `pieces` times `block` elements.

    Of a plane, for pointwise losses, or of an image, to scale its gradient.
    """

    block: int
    pieces: int
    warps: int

    def runs(self, pixels: int) -> int:
        """Programs of a plane."""
        return -(-pixels // (self.block * self.pieces))


# Four warps, and enough pixels to hide what a program costs. The others are for autotuning.
PIXELS = PixelTiling(block=512, pieces=8, warps=4)
PIXEL_CANDIDATES = (
    PIXELS,
    PixelTiling(block=512, pieces=2, warps=4),
    PixelTiling(block=1024, pieces=4, warps=4),
    PixelTiling(block=1024, pieces=8, warps=8),
    PixelTiling(block=2048, pieces=2, warps=8),
)
# As many elements as a block of the CUDA kernel has in float32: most often none is read.
SCALE = PixelTiling(block=1024, pieces=8, warps=4)


# As LANES of windows.py.
CHUNK_LANES = 32


def h_elements(height: int, width: int, h_planes: int, across: int) -> int:
    """Of all h planes of a plane, whose rows are cut into chunks (windows.h_place)."""
    chunk = across * CHUNK_LANES
    return height * -(-width // chunk) * chunk * h_planes
