"""How images are cut for the Triton kernels."""

import itertools
import math

import pytest

from lamp_kernels.backends.triton import tiling

DEVICES = (
    tiling.CUDA,
    tiling.HIP,
    tiling.CUDA_FLOAT64,
    tiling.HIP_FLOAT64,
    tiling.INTERPRETER,
    tiling.INTERPRETER_FLOAT64,
)
SIDES = (1, 7, 28, 64, 255, 256, 257, 1080, 1920)


@pytest.mark.parametrize("device", DEVICES)
def test_every_pixel_is_in_one_tile(device):
    for height, width, planes, radius in itertools.product(SIDES, SIDES, (1, 24, 3000), (1, 5, 7)):
        tiles = tiling.ssim_tiling(planes, height, width, radius, device)
        assert tiles.block == device.lanes * device.across == tiles.lanes * tiles.across
        assert tiles.block & (tiles.block - 1) == 0
        assert (tiles.strips - 1) * tiles.block < width <= tiles.strips * tiles.block
        assert (tiles.bands - 1) * tiles.band_height < height <= tiles.bands * tiles.band_height
        assert tiles.band_height <= device.highest


@pytest.mark.parametrize("device", [tiling.CUDA, tiling.HIP])
def test_bands_are_high_where_there_is_work_for_every_multiprocessor(device):
    for height, radius in itertools.product(SIDES, (1, 5, 7)):
        tiles = tiling.ssim_tiling(3000, height, 256, radius, device)
        assert tiles.band_height >= min(4 * radius, height)


def test_a_small_batch_gets_low_bands_to_fill_the_device():
    """One warp per plane, 64 planes of 28 x 28 would leave half of an H100 idle."""
    device = tiling.CUDA._replace(multiprocessors=132)
    tiles = tiling.ssim_tiling(64, 28, 28, 5, device)
    assert 64 * tiles.per_plane >= 2 * device.multiprocessors
    assert tiles.band_height >= tiling.LOWEST_BAND


def test_large_batches_have_high_bands_and_small_ones_fill_the_device():
    assert tiling.ssim_tiling(3000, 256, 256, 5, tiling.CUDA).band_height == 128
    device = tiling.CUDA._replace(multiprocessors=132)
    at_once = device.multiprocessors * device.warps_at_once
    programs = 3 * tiling.ssim_tiling(3, 1080, 1920, 5, device).per_plane
    rounds = programs / at_once
    assert 0.8 <= rounds / math.ceil(rounds) <= 1


@pytest.mark.parametrize("tile", tiling.PIXEL_CANDIDATES)
def test_runs_of_pixels(tile):
    run = tile.block * tile.pieces
    assert [tile.runs(n) for n in (0, 1, run, run + 1)] == [0, 1, 1, 2]


@pytest.mark.parametrize("device", [tiling.CUDA, tiling.HIP])
@pytest.mark.parametrize("shape", [(24, 256, 256), (3, 1080, 1920), (1024, 28, 28), (1, 7, 5)])
def test_candidates_are_the_choice_by_count_and_others_that_cover_the_image(device, shape):
    planes, height, width = shape
    first, *others = tiling.ssim_candidates(planes, height, width, 5, device)
    assert first == tiling.ssim_tilings(planes, height, width, 5, device)
    assert len({first, *others}) == 1 + len(others) <= 20
    for tiles in itertools.chain(first, *others):
        assert tiles.block == device.lanes * device.across
        assert (tiles.strips - 1) * tiles.block < width <= tiles.strips * tiles.block
        assert (tiles.bands - 1) * tiles.band_height < height <= tiles.bands * tiles.band_height
        assert tiles.band_height <= device.highest


def test_groups_of_planes_are_even_and_within_the_scratch_memory():
    device = tiling.CUDA._replace(scratch=100)
    assert [tiling.planes_at_once(n, 30, device) for n in (1, 3, 4, 7, 9)] == [1, 3, 2, 3, 3]
    assert tiling.planes_at_once(5, 101, device) == 1
    assert tiling.planes_at_once(5, 0, device) == 5
    assert tiling.scratch(50 * 10**6) == tiling.SCRATCH
    assert tiling.scratch(72 * 2**20) == 54 * 2**20


def test_a_tiling_is_found_once():
    arguments = (3, 1080, 1920, 5, tiling.CUDA)
    assert tiling.ssim_tiling(*arguments) is tiling.ssim_tiling(*arguments)


def test_each_kernel_is_tiled_for_the_warps_that_fit_its_registers():
    device = tiling.CUDA._replace(multiprocessors=132)
    losses, gradients = tiling.ssim_tilings(3, 1080, 1920, 5, device)
    others = device._replace(warps_at_once=device.gradient_warps)
    assert losses == tiling.ssim_tiling(3, 1080, 1920, 5, device)
    assert gradients == tiling.ssim_tiling(3, 1080, 1920, 5, others)
    assert losses != gradients


def test_one_column_per_lane_keeps_the_number_of_lanes():
    for device in DEVICES:
        assert tiling.for_call(device, True, 5, 1, masked=True).across == 1
    for device, call in itertools.product(DEVICES, [(False, 5, 1), (True, 7, 2)]):
        one = tiling.for_call(device, *call)
        assert (one.across, one.lanes) == (1, device.lanes)
    assert tiling.for_call(tiling.CUDA, True, 7, 1) == tiling.CUDA
    assert tiling.for_call(tiling.CUDA, True, 6, 2) == tiling.CUDA
