"""Proves the SSIM kernels' barriers on their PTX, if sentryward and nvcc are installed."""

import json
import re

import host_build
import prove
import pytest


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("kernel", "target", "moves"),
    [
        (kernel, target, moves)
        for kernel, some in prove.TARGETS.items()
        for target in some
        for moves in prove.VOTES[kernel]
    ],
)
def test_barriers_are_correct_in_every_schedule(tmp_path, kernel, target, moves):
    if missing := prove.lacking():
        pytest.skip(missing)
    result = prove.prove(kernel, target, moves, tmp_path / "proof")
    print(result["checks"], result["diagnostics"])
    assert prove.complaints(result) == []


@pytest.mark.timeout(900)
def test_a_wrong_barrier_is_found(tmp_path, monkeypatch):
    if missing := prove.lacking():
        pytest.skip(missing)
    copy = host_build.copy

    def copy_with_a_fault(folder):
        copy(folder)
        path = folder / "csrc/cuda/ssim_losses.cuh"
        text = path.read_text()
        assert text.count("    __syncthreads();\n") == 1
        divergent = "    if (threadIdx.x != 0) __syncthreads();\n"
        path.write_text(text.replace("    __syncthreads();\n", divergent))

    monkeypatch.setattr(prove.host_build, "copy", copy_with_a_fault)
    result = prove.prove("losses", 90, False, tmp_path / "proof")
    print(result["checks"], result["diagnostics"])
    assert result["checks"]["synchronization"] == "failed"


@pytest.mark.parametrize("kernel", prove.KERNELS)
def test_the_input_covers_the_parameters(tmp_path, cuda_flags, kernel):
    """The launch has a value for every field of the kernel's parameter; needs no sentryward."""
    if not prove.find("nvcc"):
        pytest.skip("nvcc is not installed")
    ptx, launch = prove.write_input(kernel, prove.TARGETS[kernel][-1], False, tmp_path / "proof")
    given = json.loads(launch.read_text())
    declared = re.search(
        rf"\.entry {given['entry']}\(\s*\.param \.align (\d+) \.b8 \w+\[(\d+)\]", ptx.read_text()
    )
    assert declared, "the kernel has no structure as its parameter"
    align, size = map(int, declared.groups())
    assert given["launch"]["grid_dim"] == [4, 1, 1]
    end = 0  # of the fields so far; the next one begins there, rounded up to its alignment
    for field in given["arguments"]:
        width = 8 if field["type"] == "pointer" else int(field["type"][1:]) // 8
        assert field["offset"] == -(-end // width) * width
        end = field["offset"] + width
    assert size == -(-end // align) * align
