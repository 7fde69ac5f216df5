"""The baselines against known answers."""

from __future__ import annotations

import math

import pytest
import torch
from run_files import OPTIONS, Pooling, make_data
from uad.baselines import BLUR_SIGMA, BlurredCopy, MeanImage, baselines
from uad.data import GOOD
from uad.outcome import evaluate_baselines, evaluate_network


def test_the_mean_image_is_the_mean_of_the_training_images():
    train = torch.tensor([[0, 255], [51, 255], [102, 255]], dtype=torch.uint8).view(3, 1, 1, 2)
    found = MeanImage(train)(torch.rand(5, 1, 1, 2))
    torch.testing.assert_close(found, torch.tensor([0.2, 1.0]).expand(5, 1, 1, 2))


def test_the_mean_of_many_bright_images_does_not_overflow():
    assert MeanImage(torch.full((70_000, 1, 1, 1), 255, dtype=torch.uint8)).mean.item() == 1.0


def test_the_blurred_copy_halves_the_contrast_of_a_pattern_of_8_pixels():
    wave = torch.cos(2 * math.pi * torch.arange(64) / 8)
    images = (0.5 + 0.5 * wave).expand(1, 1, 64, 64)
    inside = (BlurredCopy()(images)[0, 0, 32, 16:48] - 0.5).abs().max().item()
    assert inside == pytest.approx(0.5 * math.exp(-((2 * math.pi / 8 * BLUR_SIGMA) ** 2) / 2), 0.01)
    assert inside == pytest.approx(0.25, rel=0.02)


def test_the_blurred_copy_mixes_neither_images_nor_channels():
    images = torch.zeros(3, 2, 16, 16)
    images[1, 0] = 1.0
    torch.testing.assert_close(BlurredCopy()(images), images)


def test_baselines_have_the_figures_of_a_network():
    data = make_data()
    found = evaluate_baselines(data, OPTIONS)
    network, *_ = evaluate_network(Pooling(1), data, OPTIONS, torch.device("cpu"))
    assert list(found) == ["mean image", "blurred copy"] == list(baselines(data.train))
    for evaluation in found.values():
        assert evaluation.keys() == network.keys()
        assert evaluation["per_kind"].keys() == network["per_kind"].keys()


def test_a_test_image_that_looks_like_the_mean_is_reconstructed_exactly():
    data = make_data(kinds=[GOOD], each=1)
    psnr = evaluate_baselines(data, OPTIONS)["mean image"]["psnr_normal"]
    assert psnr is None or psnr > 100  # the only training image is the only test image
