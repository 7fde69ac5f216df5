"""Runs examples/lightning_autoencoder.py on a few small images."""

import runpy
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning", reason="lightning is not installed; requirements-dev.txt lists it")

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Lightning's advice about workers and loggers
    pytest.mark.cpu_only("Lightning chooses the device"),
]
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "lightning_autoencoder.py"


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLE))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_defects_score_higher(example, precision, capsys):
    normal, defective = example["train_and_score"](epochs=6, images=128, precision=precision)
    assert normal.shape == defective.shape == (16,)
    assert defective.mean() > normal.mean() + 0.02
    assert "training loss" in capsys.readouterr().out


def test_the_loss_reaches_every_parameter(example):
    module = example["Autoencoder"](example["AmplifiedReconstructionLoss"]())
    module.log = lambda *args, **kwargs: None  # there is no trainer
    module.training_step([example["stripes"](4, seed=1)], 0).backward()
    assert all(parameter.grad.norm() > 0 for parameter in module.parameters())


def test_program(example, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["lightning_autoencoder.py", "--epochs", "1", "--images", "16"])
    example["main"]()
    assert "AUROC" in capsys.readouterr().out
    assert torch.get_default_dtype() == torch.float32
