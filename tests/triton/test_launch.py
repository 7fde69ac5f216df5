"""Launches on a GPU up to the compiled kernel: types, compilations, grids."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lamp_kernels.backends.triton import tiling

pytestmark = pytest.mark.cpu_only("binds launches on the CPU")

HERE = Path(__file__).resolve().parent
USUAL = {
    "shape": (2, 3, 17, 33),
    "dtype": "float32",
    "terms": ["ssim"],
    "weighted": False,
    "window_size": 5,
    "gradients": (True, False),
}


def launches(*cases, compiles=False):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(HERE.parents[1])
    arguments = [json.dumps(compiles), json.dumps([{**USUAL, **case} for case in cases])]
    result = subprocess.run(
        [sys.executable, str(HERE / "launched.py"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_arguments_match_the_parameters_of_the_kernels():
    several = {"window_size": 3, "terms": ["ssim", "mse"]}
    found = launches(
        several,
        {**several, "own": True, "ranges": True},
        {"terms": ["mse"]},
        {"terms": ["gms"]},
        {"scale": True},
        compiles=True,
    )
    assert [each["kernel"] for each in found] == [
        *("plane_shifts", "ssim_losses", "ssim_gradients", "batch_sum"),
        *("plane_shifts", "ssim_losses", "ssim_gradients", "image_sums"),
        *("pixel_losses", "batch_sum", "gms_losses", "batch_sum", "scale_gradient"),
    ]
    with_factors = [each["kernel"] for each in found if "factors_ptr" in each["types"]]
    assert with_factors == ["ssim_losses", "ssim_gradients", "image_sums"]
    with_ranges = [each["kernel"] for each in found if "scales_ptr" in each["types"]]
    assert with_ranges == ["plane_shifts", "ssim_losses", "ssim_gradients"]


CASES: dict[str, dict[str, object]] = {
    "usual": {},
    "half": {"dtype": "bfloat16", "terms": ["ssim", "mse", "l1"], "weighted": True, "own": True},
    "float64": {"dtype": "float64", "gradients": (True, True), "window_size": 13},
    "strided": {"strided": True},
    "pixels": {"terms": ["mse", "l1"], "weighted": True, "gradients": (True, True)},
    "values": {"gradients": (False, False)},
    "masked": {"masked": True, "weighted": True},
    "masked pixels": {"masked": True, "terms": ["l1"]},
    "ranges": {"ranges": True, "terms": ["ssim", "l1"]},
    "ranges of pixels": {"ranges": True, "terms": ["l1"]},
    "gms": {"terms": ["gms"], "weighted": True, "own": True, "ranges": True},
    "map": {"map": True},
    "map of gms": {"map": True, "terms": ["gms"]},
    "map of pixels": {"map": True, "terms": ["l1"]},
    "scale": {"scale": True},
}


def test_scalars_have_their_types_and_sizes_compile_nothing_anew():
    """Numbers are passed as float64, and no integer becomes a constant."""
    sizes = ((2, 3, 17, 33), (1, 1, 32, 64), (16, 1, 48, 63))
    cases = [{**case, "shape": shape} for case in CASES.values() for shape in sizes]
    compiled: dict[tuple[str, str], set[str]] = {}
    for launch in launches(*cases):
        assert launch["attributes"] == []
        assert all(
            kind.startswith("*") or kind in ("i32", "i64", "fp64")
            for kind in launch["types"].values()
        )
        name = list(CASES)[launch["case"] // len(sizes)]
        constants = {k: v for k, v in launch["constants"].items() if k not in ("block", "aligned")}
        variant = json.dumps([launch["types"], constants], sort_keys=True)
        compiled.setdefault((name, launch["kernel"]), set()).add(variant)
    assert {name for name, _ in compiled} == set(CASES)
    for (name, kernel), variants in compiled.items():
        each_gradient_alone = (name, kernel) == ("float64", "ssim_gradients")
        assert len(variants) == (2 if each_gradient_alone else 1), (name, kernel)


def test_many_planes_are_on_the_grid_axis_that_allows_them():
    (shifts, losses, *_) = launches({"shape": (70_000, 1, 3, 3), "window_size": 3})
    assert shifts["grid"] == 70_000
    assert losses["grid"] == 70_000


def test_the_planes_of_one_group_fill_the_device():
    """Of five planes, the h planes of four fit at once: launch three, and then two."""
    shape = (5, 1, 1000, 4000)
    (_, *both, _) = launches({"shape": shape, "window_size": 11})
    per_plane = tiling.ssim_tiling(3, *shape[2:], 5, tiling.CUDA).per_plane
    assert tiling.ssim_tiling(5, *shape[2:], 5, tiling.CUDA).per_plane != per_plane
    assert [each["grid"] for each in both] == [n * per_plane for n in (3, 3, 2, 2)]


UNALIGNED: tuple[dict[str, Any], ...] = ({"weighted": True}, {"first": 1})


def test_the_compiler_is_told_which_pixels_are_aligned():
    pixels = {"terms": ["mse"]}
    shapes = ((1, 1, 4, 12), (2, 3, 4, 8), (2, 3, 4, 7), (4, 1, 1, 16))
    cases = [{**pixels, "shape": shape} for shape in shapes]
    cases += [{**pixels, "shape": (1, 1, 4, 8), **other} for other in UNALIGNED]
    found = [each for each in launches(*cases) if each["kernel"] == "pixel_losses"]
    told = [each["constants"]["aligned"] for each in found]
    assert told == ["True", "True", "False", "True", "False", "False"]


def test_properties_come_from_the_device(interpret):
    """An AMD graphics device has warps of 32 lanes; one of NVIDIA's has a large cache."""
    import interpreted

    found = interpret(interpreted.devices)
    assert found == {
        "MI300": (64, 304, 8, 8, 192),
        "RX 7900": (32, 48, 8, 8, 192),
        "RTX 4090": (32, 128, 8, 8, 54),
        "H100": (32, 132, 8, 8, 192),
    }
