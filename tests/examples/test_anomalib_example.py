"""Runs examples/anomalib_model.py on a few small images if anomalib is installed."""

import runpy
from pathlib import Path

import pytest
import torch

pytest.importorskip(
    "anomalib",
    reason="anomalib is not installed: it requires torchvision, and the version that pip finds is "
    "built for PyTorch with CUDA and does not load with the CPU build in requirements-dev.txt; "
    "`make anomalib` makes an environment with both (6 GB) and runs this test",
)

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # deprecation warnings in anomalib
    pytest.mark.cpu_only("Lightning chooses the device"),
]
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "anomalib_model.py"


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLE))


def test_trains_and_detects_defects(example, tmp_path):
    example["make_images"](tmp_path / "images", 48)
    metrics = example["train_and_test"](tmp_path / "images", tmp_path / "results", epochs=25)
    assert set(metrics) >= {"image_AUROC", "pixel_AUROC"}
    assert metrics["image_AUROC"] > 0.8
    assert metrics["pixel_AUROC"] > 0.8


def test_network_returns_the_batch_that_anomalib_evaluates(example):
    network = example["Network"]()
    images = torch.rand(2, 3, 32, 40)
    assert network(images).shape == images.shape
    batch = network.eval()(images)
    assert batch.anomaly_map.shape == (2, 1, 32, 40)
    assert batch.pred_score.shape == (2,)
