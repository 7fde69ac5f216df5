"""What the tests of every data set check, and the folders that they read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from uad.data import NAMES


def assert_consistent(data):
    assert data.name in NAMES
    assert data.title
    assert data.note
    assert "\n" not in data.title
    assert data.train.dtype == data.test.dtype == torch.uint8
    assert data.train.dim() == 4
    assert data.train.shape[1:] == data.test.shape[1:]
    assert len(data.kinds) == len(data.test)
    if data.masks is not None:
        assert data.masks.dtype == torch.bool
        assert data.masks.shape == (len(data.test), *data.test.shape[2:])
        for kind, mask in zip(data.kinds, data.masks, strict=True):
            assert bool(mask.any()) == (kind != "good")


def masks_of(data):
    assert data.masks is not None
    return data.masks


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def gray(value: int, height: int = 20, width: int = 24) -> np.ndarray:
    return np.full((height, width), value, dtype=np.uint8)


def write_category(root: Path, *, ground_truth: bool = True) -> Path:
    """3 training images, 2 good and 2 + 1 defective test images, all gray 20x24."""
    for index in range(3):
        write_image(root / f"train/good/{index:03}.png", gray(10 + index))
    for index in range(2):
        write_image(root / f"test/good/{index:03}.png", gray(20 + index))
    for kind, index in (("crack", 0), ("crack", 1), ("hole", 0)):
        write_image(root / f"test/{kind}/{index:03}.png", gray(30 + index))
        mask = gray(0)
        mask[:10, :12] = 255
        if ground_truth:
            write_image(root / f"ground_truth/{kind}/{index:03}_mask.png", mask)
    return root
