"""How images are cut into the tiles that programs take: by the shape, the window and the device."""

from typing import NamedTuple


class Device(NamedTuple):
    """What the choice depends on."""

    multiprocessors: int  # compute units, in AMD's words
    lanes: int  # threads of a warp (32), or of a wavefront (64)
    widest: int  # columns of a program
    highest: int  # rows of a program


# A lane has one column, so four warps of NVIDIA's are 128 columns. A lane adds up its column in the
# type computed in: 128 rows cost float32 no digit that is promised.
CUDA = Device(multiprocessors=80, lanes=32, widest=128, highest=128)
HIP = Device(multiprocessors=104, lanes=64, widest=128, highest=128)
# Triton's interpreter: an operation takes as long for one column as for a thousand.
INTERPRETER = Device(multiprocessors=1, lanes=32, widest=1024, highest=4096)

# Registers let some 16 warps run at once on one multiprocessor (docs/triton_counts.md); with fewer
# it waits for memory.
WARPS_AT_ONCE = 16


class Tiling(NamedTuple):
    """A program's tile, and how many there are of them in a plane."""

    block: int  # columns, a power of 2
    warps: int
    strips: int
    band_height: int
    bands: int

    @property
    def per_plane(self) -> int:
        """Programs of a plane."""
        return self.strips * self.bands


def ssim_tiling(planes: int, height: int, width: int, radius: int, device: Device) -> Tiling:
    """Strips that leave few lanes without a column, and the bands that take the least time.

    Programs run in rounds of as many as the device holds, and one walks through the rows of its
    band and 2 radius more, so a band of fewer than 4 radius rows would be half seam.
    """
    blocks = [device.lanes]
    while 2 * blocks[-1] <= device.widest:
        blocks.append(2 * blocks[-1])
    # The wider of two that cover the width alike: of its neighbours it reads less.
    block = min(reversed(blocks), key=lambda columns: -(-width // columns) * columns)
    warps = block // device.lanes
    strips = -(-width // block)
    at_once = device.multiprocessors * max(WARPS_AT_ONCE // warps, 1)
    fewest = -(-height // device.highest)
    most = max(fewest, height // (4 * radius))

    def time(bands: int) -> int:
        rounds = -(-planes * strips * bands // at_once)
        return rounds * (-(-height // bands) + 2 * radius)

    bands = min(range(fewest, most + 1), key=time)
    band_height = -(-height // bands)
    return Tiling(block, warps, strips, band_height, -(-height // band_height))


# Pointwise losses: four warps, and enough pixels to hide what a program costs.
PIXEL_BLOCK = 512
PIXEL_PIECES = 8
PIXEL_WARPS = 4


def pixel_runs(pixels: int) -> int:
    """Programs of a plane."""
    return -(-pixels // (PIXEL_BLOCK * PIXEL_PIECES))
