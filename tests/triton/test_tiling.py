"""How images are cut for the Triton kernels."""

import itertools

import pytest

from lamp_kernels.triton import tiling

DEVICES = (tiling.CUDA, tiling.HIP, tiling.CUDA_FLOAT64, tiling.HIP_FLOAT64, tiling.INTERPRETER)
SIDES = (1, 7, 28, 64, 255, 256, 257, 1080, 1920)


@pytest.mark.parametrize("device", DEVICES)
def test_every_pixel_is_in_one_tile(device):
    for height, width, planes, radius in itertools.product(SIDES, SIDES, (1, 24, 3000), (1, 5, 7)):
        tiles = tiling.ssim_tiling(planes, height, width, radius, device)
        assert tiles.block == tiles.warps * device.lanes
        assert tiles.block & (tiles.block - 1) == 0
        assert (tiles.strips - 1) * tiles.block < width <= tiles.strips * tiles.block
        assert (tiles.bands - 1) * tiles.band_height < height <= tiles.bands * tiles.band_height
        assert tiles.band_height <= device.highest


@pytest.mark.parametrize("device", [tiling.CUDA, tiling.HIP])
def test_no_band_is_mostly_seam(device):
    for height, planes, radius in itertools.product(SIDES, (1, 24, 3000), (1, 5, 7)):
        tiles = tiling.ssim_tiling(planes, height, 256, radius, device)
        assert tiles.band_height >= min(4 * radius, height)


def test_large_batches_have_high_bands_and_small_ones_fill_the_device_in_one_round():
    assert tiling.ssim_tiling(3000, 256, 256, 5, tiling.CUDA).band_height == 128
    device = tiling.CUDA._replace(multiprocessors=132)
    at_once = device.multiprocessors * device.warps_at_once // 4
    programs = 3 * tiling.ssim_tiling(3, 1080, 1920, 5, device).per_plane
    assert 0.8 * at_once <= programs <= at_once


@pytest.mark.parametrize(
    ("width", "block"), [(20, 32), (64, 64), (96, 32), (256, 128), (1920, 128)]
)
def test_few_lanes_are_without_a_column(width, block):
    assert tiling.ssim_tiling(24, 256, width, 5, tiling.CUDA).block == block


@pytest.mark.parametrize("tile", tiling.PIXEL_CANDIDATES)
def test_runs_of_pixels(tile):
    run = tile.block * tile.pieces
    assert [tile.runs(n) for n in (0, 1, run, run + 1)] == [0, 1, 1, 2]


@pytest.mark.parametrize("device", [tiling.CUDA, tiling.HIP])
@pytest.mark.parametrize("shape", [(24, 256, 256), (3, 1080, 1920), (1024, 28, 28), (1, 7, 5)])
def test_candidates_are_the_choice_by_count_and_others_that_cover_the_image(device, shape):
    _, height, width = shape
    first, *others = tiling.ssim_candidates(*shape, 5, device)
    assert first == tiling.ssim_tiling(*shape, 5, device)
    assert len({first, *others}) == 1 + len(others) <= 20
    for tiles in (first, *others):
        assert tiles.block in (tiles.warps * device.lanes, 2 * tiles.warps * device.lanes)
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


def test_where_fewer_warps_run_at_once_fewer_programs_fill_the_device():
    per_plane = [tiling.ssim_tiling(6, 512, 512, 5, device).per_plane for device in DEVICES[:4]]
    cuda, hip, cuda_in_float64, hip_in_float64 = per_plane
    assert cuda > cuda_in_float64
    assert hip > hip_in_float64
