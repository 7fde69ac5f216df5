"""Two torchrun processes must agree with one process on the same global batches."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from uad import checkpoint
from uad.cli import train as cli
from uad.cli import train_run

LOSSES = ("mse", "amplified-ssim")


def torchrun(program: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(program)]
    return subprocess.run(
        [sys.executable, *command, *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def options(image_root):
    return [
        *("--data", "folder", "--root", str(image_root), "--size", "32", "--device", "cpu"),
        *("--epochs", "3", "--batch-size", "8", "--width", "4", "--latent", "2"),
        *("--threads", "1", "--compare", ",".join(LOSSES), "--lr", "0.003", "--grad-clip", "0.05"),
    ]


def test_two_processes_agree_with_one(options, program, tmp_path, monkeypatch):
    """The first loss starts from scratch, the second from a checkpoint after its first epoch."""
    one, two = tmp_path / "one", tmp_path / "two"
    save = checkpoint.save

    def save_a_copy(path, state):
        save(path, state)
        if state["epoch"] == 1 and path.parent.name == LOSSES[1]:
            (two / LOSSES[1]).mkdir(parents=True)
            shutil.copy(path, two / LOSSES[1])

    monkeypatch.setattr(checkpoint, "save", save_a_copy)
    monkeypatch.setattr(train_run, "write_report", lambda folder: None)
    assert cli.main([*options, "--out", str(one)]) == 0
    expected = json.loads((one / "metrics.json").read_text())
    assert expected["config"]["nproc_per_node"] == 1
    begun = expected | {"arms": {}, "config": expected["config"] | {"nproc_per_node": 2}}
    (two / "metrics.json").write_text(json.dumps(begun))

    done = torchrun(program, *options, "--out", str(two), "--resume")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report: ") == 1  # one process prints
    logged = re.findall(r"^(.+): epoch (\d)/3, loss", done.stderr, flags=re.MULTILINE)
    assert len(set(logged)) == len(logged)  # one process logs
    assert {(LOSSES[0], "3"), (LOSSES[1], "3")} <= set(logged)
    assert (LOSSES[1], "1") not in logged

    found = json.loads((two / "metrics.json").read_text())
    for loss in LOSSES:
        for key in ("loss", "tangent_share"):
            assert found["arms"][loss]["history"][key] == pytest.approx(
                expected["arms"][loss]["history"][key], rel=1e-5
            )
        for key, value in expected["arms"][loss]["evaluation"].items():
            if isinstance(value, float):
                assert found["arms"][loss]["evaluation"][key] == pytest.approx(value, abs=0.02)
        weights = [
            torch.load(folder / loss / "checkpoint.pt", weights_only=True)["model"]
            for folder in (one, two)
        ]
        torch.testing.assert_close(weights[1], weights[0], rtol=1e-3, atol=2e-5)


def test_an_error_of_the_first_process_ends_the_others(options, program, tmp_path):
    # Only the first process writes; without an error the other one would wait for it.
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "run"
    done = torchrun(program, *options, "--out", str(folder))
    assert done.returncode != 0
    assert f"train.py: error: {folder} cannot be written: Not a directory" in done.stderr
    assert "(process 1): error" not in done.stderr
