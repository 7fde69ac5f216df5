"""Shared by the tests of the benchmarks: bench/ on the path, and made-up results."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"
sys.path.insert(0, str(BENCH))

SHAPES = ([8, 3, 256, 256], [64, 1, 28, 28])
NAMES = {"lamp_kernels native": 1.0, "pytorch-msssim": 20.0, "torch MSELoss": 0.5}


def timed(name: str, shape: list[int], seconds: float, **fields: object) -> dict[str, object]:
    quantiles = {"p10": 0.9 * seconds, "p50": seconds, "p90": 1.3 * seconds}
    elements = shape[0] * shape[1] * shape[2] * shape[3]
    return {
        "contestant": name,
        "version": "1.0",
        "border": "valid",
        "shape": shape,
        "elements": elements,
        "pass": "forward + backward",
        "threads": 2,
        "rounds": 5,
        "calls": 1,
        **quantiles,
        **fields,
    }


@pytest.fixture
def made_up() -> dict[str, object]:
    """Results as the suite writes them; kornia was skipped at one shape."""
    speed = [
        timed(name, shape, 8e-3 * factor, **{"pass": which})
        for shape in SHAPES
        for name, factor in NAMES.items()
        for which in ("forward + backward", "forward")
    ]
    failed = timed("kornia", SHAPES[0], 1.0, skipped="one call takes 30 s, the limit is 20 s")
    for key in ("p10", "p50", "p90", "rounds"):
        del failed[key]
    return {
        "schema": 1,
        "date": "2026-01-02T03:04:05+00:00",
        "size": "full",
        "machine": {
            "cpu": "A processor",
            "instructions": "AVX2",
            "cores": 2,
            "threads": 2,
            "memory_gib": 24.0,
            "other_work": 0.0,
        },
        "versions": {"torch": "2.13.0", "pytorch-msssim": "1.0.0"},
        "skipped": [{"contestant": "piq", "reason": "piq is not installed"}],
        "peak": {"multiply_adds_per_s": 1e11, "copy_bytes_per_s": 2e10, "how": "matmul and copy"},
        "speed": [*speed, failed],
        "features": [
            timed(name, SHAPES[0], 8e-3 * factor, feature="GMS", **{"pass": which})
            for which in ("forward + backward", "forward")
            for name, factor in NAMES.items()
        ]
        + [
            {
                "feature": "GMS",
                "contestant": "piq",
                "shape": SHAPES[0],
                "skipped": "piq is not installed",
            }
        ],
        "sweep": [
            timed(name, [1, 1, side, side], 1e-8 * factor * side**2)
            for side in (64, 256, 1024)
            for name, factor in NAMES.items()
        ],
        "equal_work": [
            timed("lamp_kernels native", [1024**2 // side**2, 1, side, side], 1e-2)
            for side in (64, 256, 1024)
        ],
        "threads": [
            timed("lamp_kernels native", SHAPES[0], 16e-3 / threads, threads=threads)
            for threads in (1, 2)
        ],
        "training_step": [timed(name, SHAPES[0], 0.1 * factor) for name, factor in NAMES.items()],
        "memory": [
            {
                "contestant": name,
                "pass": which,
                "shape": [1, 3, 2048, 2048],
                "bytes_per_element": 4.0 * factor,
            }
            for name, factor in NAMES.items()
            for which in ("forward + backward", "forward")
        ],
        "errors": [
            {"contestant": name, "pair": pair, "loss_error": 1e-7, "gradient_error": 2e-7}
            for name in NAMES
            for pair in ("textured", "nearly equal")
        ],
        "roofline": [
            {
                "contestant": "lamp_kernels native",
                "shape": SHAPES[0],
                "operations_per_element": 214,
                "bytes_per_element": 12,
                "operations_per_s": 4e10,
                "bytes_per_s": 2e9,
                "share_of_arithmetic": 0.4,
                "share_of_bandwidth": 0.1,
            }
        ],
    }
