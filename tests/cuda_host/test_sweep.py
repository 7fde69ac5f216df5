"""Runs bench/sweep.cu on the CPU: every design and block size gives the same gradient."""

import json
import shutil

import host_build as build
import pytest


@pytest.mark.timeout(600)
def test_every_tiling_gives_the_same_gradient(tmp_path, cuda_flags):
    build.copy(tmp_path)
    for name in ("sweep.cu", "gaussian_taps.h"):
        shutil.copy(build.ROOT / "bench" / name, tmp_path)
    done = build.run(build.build_sweep(tmp_path, cuda_flags), ["--check"])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert not [row for row in rows if "problem" in row]
    assert {(row["design"], row["border"], row["own"]) for row in rows} == {
        (design, border, own)
        for design in ("one", "two")
        for border in ("reflect", "valid", "zeros")
        for own in (True, False)
    }
    assert {row["threads"] for row in rows} == set(range(32, 257, 32))
    assert all(("second" in row) == (row["design"] == "two") for row in rows)
    # Designs and tiles differ only in their shifts and in the order of sums.
    assert max(row["error"] for row in rows) < 1e-5
    assert max(row["error"] for row in rows) > 0
