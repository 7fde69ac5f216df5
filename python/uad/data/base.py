"""The form in which every data set is handed to the training program."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

GOOD = "good"
"""The kind of a normal test image, as MVTec AD names its folder."""


class DataError(Exception):
    """Unusable data. The message names the file or the argument and says what to do."""


@dataclass(frozen=True, eq=False)
class AnomalyData:
    """Normal images to train on, and test images, each of them normal or with a kind of defect."""

    name: str
    title: str
    """One line that tells people what the images are."""
    note: str
    """A few sentences: the source, the license, what is synthetic."""
    train: Tensor
    """uint8 (N, C, H, W), normal images only."""
    test: Tensor
    """uint8 (M, C, H, W)."""
    kinds: tuple[str, ...]
    """Length M: "good" for a normal image, otherwise the kind of its defect."""
    masks: Tensor | None
    """bool (M, H, W), True where the image is defective; None without pixel annotations."""


def to_unit(images: Tensor) -> Tensor:
    """Convert uint8 images in [0, 255] to float32 in [0, 1]."""
    return images.to(torch.float32) / 255
