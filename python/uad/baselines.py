"""Two detectors that learn next to nothing; a trained network has to beat them.

Both are modules that map images to "reconstructions", so they are evaluated like any network.
"""

from __future__ import annotations

import torch
from scipy import ndimage
from torch import Tensor, nn

from uad.data import to_unit

MEAN_IMAGE = "mean image"
BLURRED_COPY = "blurred copy"

BLUR_SIGMA = 1.5
"""Standard deviation of the blur in pixels. It halves the contrast of a pattern with a period of
2 pi sigma / sqrt(2 ln 2) = 8 pixels. The code of ConvAutoencoder has one position every 8 pixels,
so the copy keeps about the detail that such a grid can place."""


class MeanImage(nn.Module):
    """Reconstructs every image as the mean training image.

    A defect then stands out wherever it makes an image look unlike the average. This finds a lot
    if all images are aligned.
    """

    def __init__(self, train: Tensor) -> None:
        """train: uint8 (N, C, H, W)."""
        super().__init__()
        self.mean = to_unit(train.sum(dim=0, dtype=torch.int64) / len(train))

    def forward(self, images: Tensor) -> Tensor:
        """The mean image, once for each image of the batch."""
        return self.mean.to(images.device).expand_as(images)


class BlurredCopy(nn.Module):
    """Reconstructs each image as a blurred copy of itself.

    Whatever has sharp edges or fine detail then looks anomalous. This finds a lot on textures.
    """

    def forward(self, images: Tensor) -> Tensor:
        """The images (N, C, H, W), blurred, with borders continued by reflection."""
        blurred = ndimage.gaussian_filter(
            images.cpu().numpy(), (0, 0, BLUR_SIGMA, BLUR_SIGMA), mode="reflect"
        )
        return torch.from_numpy(blurred).to(images.device)


def baselines(train: Tensor) -> dict[str, nn.Module]:
    """The baselines by name. train: uint8 (N, C, H, W)."""
    return {MEAN_IMAGE: MeanImage(train), BLURRED_COPY: BlurredCopy()}
