"""Runs examples/features.py for a few steps."""

import runpy
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.cpu_only("the example trains on the CPU")
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "features.py"


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLE))


def test_defects_score_higher(example, capsys):
    normal, defective = example["run"](steps=60, images=64)
    assert normal.shape == defective.shape == (64,)
    assert example["auroc"](normal, defective) > 0.95
    assert "step 59: loss" in capsys.readouterr().out


def test_no_filter_of_the_teacher_sees_brightness(example):
    features = example["Teacher"]()(torch.full((1, 1, 64, 64), 0.7))
    assert [tuple(each.shape) for each in features] == [(1, 16, 32, 32), (1, 16, 16, 16)]
    assert all(each[..., 4:-4, 4:-4].abs().max() < 1e-5 for each in features)


def test_program(example, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["features.py", "--steps", "2"])
    example["main"]()
    assert "AUROC" in capsys.readouterr().out
