"""The Triton kernels compiled ahead of time for every target: no spills, and the right units.

In a process of their own: the same source that bench/gpu_static.py has its table from.
"""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

pytestmark = pytest.mark.cpu_only("compiles for GPUs, on the CPU")

BENCH = Path(__file__).resolve().parents[2] / "bench"
# All kernels as they are usually called for two targets, the two that take the time for the others,
# and what asks for the most registers for one of AMD's and for the three of NVIDIA's that differ:
# Triton 3.6 spilled on 75 what it did not on 80, and 120 has another ptxas than 90.
REST = (80, "gfx942")
HEAVIEST = (75, 90, 120, "gfx90a")
# One old and one new target of NVIDIA's and one of AMD's, among them REST and HEAVIEST.
USUAL = (80, 120, "gfx90a")
OTHERS = (75, 86, 89, 90, 100, "gfx942", "gfx950")
TARGETS = [
    *USUAL,
    *(pytest.param(t, marks=pytest.mark.thorough("another target of Triton's")) for t in OTHERS),
]

PROGRAM = """
import json, sys
from collections import Counter
from static_analysis import triton
target, rest, heaviest = json.loads(sys.argv[1])
variants = triton.USUAL + triton.REST * rest + triton.HEAVIEST[:2] * heaviest
for variant in variants:
    found = triton.compiled(variant, target)
    operations = dict(found.operations) or Counter(i.name for i in found.code)
    told = [repr(variant), found.registers, found.spilled, found.shared_memory, operations]
    print(json.dumps(told))
"""


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_spills_and_multiply_adds_are_fused(target, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": f"{BENCH}{os.pathsep}{BENCH.parent}"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path)}  # what is tested is this compiler's work
    arguments = json.dumps([target, target in REST, target in HEAVIEST])
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, arguments], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) >= 2
    kernels_of_maps = sum("writes_map=True" in variant for variant, *_ in lines)
    assert kernels_of_maps == (2 if target in REST else 0)
    release = tuple(map(int, version("triton").split(".")[:2]))
    # Triton 3.8 leaves a third of them to packed multiplications and additions on CDNA 3 and 4.
    least = 20 if target in ("gfx942", "gfx950") and release >= (3, 8) else 30
    for variant, registers, spilled, shared_memory, operations in lines:
        print(target, variant, registers)
        assert spilled == 0, variant
        assert shared_memory <= 1024, variant  # a reduction's at most
        if "ssim" in variant and "fp32" in variant:
            fused = sum(n * is_fused(name) for name, n in operations.items())
            assert fused >= least, variant  # of three planes along y alone
        assert not any(is_of_tensor_cores(name) for name in operations)


def is_fused(name):
    """How many multiply-adds it is: two if packed."""
    return 2 * name.startswith(("FFMA2", "v_pk_fma")) or name.startswith(("FFMA", "v_fma"))


def is_of_tensor_cores(name):
    return name.startswith(("HMMA", "IMMA", "v_mfma", "UTCHMMA", "HGMMA"))
