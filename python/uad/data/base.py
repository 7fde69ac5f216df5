"""What every data set hands to the training program."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

GOOD = "good"
"""The kind of a normal test image, as MVTec AD names its folder."""


class DataError(Exception):
    """Data that cannot be used. The message names the file or the argument and says what to do."""


@dataclass(frozen=True, eq=False)
class AnomalyData:
    """Normal images to train on, and test images of which each is normal or of a defect kind."""

    name: str
    title: str
    """For people, one line: what the images are."""
    note: str
    """One or two sentences: source, licence, what is synthetic."""
    train: Tensor
    """uint8 (N, C, H, W), normal images only."""
    test: Tensor
    """uint8 (M, C, H, W)."""
    kinds: tuple[str, ...]
    """Length M: "good" for a normal image, else the kind of its defect."""
    masks: Tensor | None
    """bool (M, H, W), True where the image is defective; None without pixel annotation."""


def to_unit(images: Tensor) -> Tensor:
    """uint8 images in [0, 255] as float32 in [0, 1]."""
    return images.to(torch.float32) / 255
