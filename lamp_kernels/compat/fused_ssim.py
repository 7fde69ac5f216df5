"""`fused_ssim`, `fused_ssim3d` and `FusedSSIMMap` of the package fused-ssim, for any layout.

They run on CPUs too.

Differences:

- `img2` does not have to be contiguous.
- NaN gives NaN.
- Half precision is supported and gives float32; fused-ssim raises.
- `train=False` gives a result without a gradient; the one that fused-ssim gives cannot be used.
- `FusedSSIMMap` has only `apply`; its `forward` and `backward` are not available.
- On GPUs, volumes run in plain PyTorch, and the gradient with padding="valid" is right.

Source: the signatures and the behavior of fused-ssim (MIT) as of its commit 0ac916a.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from lamp_kernels import functional
from lamp_kernels.checks import check_choice, check_within
from lamp_kernels.compat import _arguments
from lamp_kernels.spec import SIMILARITY, STABILIZERS, Padding

__all__ = ["FusedSSIMMap", "fused_ssim", "fused_ssim3d"]

PADDINGS: dict[str, Padding] = {"same": "zeros", "valid": "valid"}
NAMES = ("img1", "img2")
SQUARES = (STABILIZERS[0] ** 2, STABILIZERS[1] ** 2)


def fused_ssim(img1: Tensor, img2: Tensor, padding: str = "same", train: bool = True) -> Tensor:
    """Mean SSIM of images in [0, 1], with an 11 x 11 Gaussian window of sigma 1.5 pixels.

    Args:
        img1: images (N, C, H, W), values expected in [0, 1].
        img2: images of the same shape and dtype. They get no gradient, as in fused-ssim; use
            `lamp_kernels.functional.ssim` for both gradients.
        padding: "same" treats pixels outside the image as 0; "valid" uses only window positions
            that fit inside it, which requires sides of at least 11 pixels.
        train: whether to compute a gradient for `img1`.

    Returns:
        A scalar, dimensionless, 1 for equal images; float32, or float64 for float64 images.

    Raises:
        TypeError, ValueError: an image or `padding` is invalid.

    Source: fused-ssim (MIT), commit 0ac916a, for the signature and the behavior.
    """
    return _similarity(img1, img2, padding, train)


def fused_ssim3d(img1: Tensor, img2: Tensor, padding: str = "same", train: bool = True) -> Tensor:
    """Mean SSIM of volumes in [0, 1], with an 11 x 11 x 11 Gaussian window of sigma 1.5 voxels.

    Args:
        img1: volumes (N, C, D, H, W), values expected in [0, 1].
        img2, padding, train: as in `fused_ssim`.

    Returns:
        A scalar, dimensionless, 1 for equal volumes; float32, or float64 for float64 volumes.

    Raises:
        TypeError, ValueError: a volume or `padding` is invalid.

    Source: fused-ssim (MIT), for the signature and the behavior.
    """
    return _similarity(img1, img2, padding, train, spatial_dims=3)


class FusedSSIMMap:
    """The SSIM map, whose mean is `fused_ssim`: ``FusedSSIMMap.apply(C1, C2, img1, img2)``."""

    @staticmethod
    def apply(
        C1: float,
        C2: float,
        img1: Tensor,
        img2: Tensor,
        padding: str = "same",
        train: bool = True,
        spatial_dims: Literal[2, 3] = 2,
    ) -> Tensor:
        """SSIM at each pixel.

        Args:
            C1, C2: SSIM's constants, 0.01^2 and 0.03^2 for images in [0, 1].
            img1, img2, padding, train: as in `fused_ssim`.
            spatial_dims: 2 for images, 3 for volumes (N, C, D, H, W).

        Returns:
            The shape of the images, with padding="valid" smaller by 10 along each side;
            dimensionless; float32, or float64 for float64 images.

        Raises:
            TypeError, ValueError: an image or an option is invalid.
        """
        k1, k2 = (
            math.sqrt(check_within(name, _arguments.number(square), SQUARES))
            for name, square in (("C1", C1), ("C2", C2))
        )
        return _similarity(
            img1,
            img2,
            padding,
            train,
            spatial_dims=spatial_dims,
            k1=k1,
            k2=k2,
            reduction="none",
        )


def _similarity(img1: Tensor, img2: Tensor, padding: str, train: bool, **options: Any) -> Tensor:
    """SSIM with a gradient for `img1` only."""
    check_choice("padding", padding, [*PADDINGS])
    options["padding"] = PADDINGS[padding]
    _arguments.check_images(img1, img2, NAMES, SIMILARITY.replace(**options).checked())
    with torch.set_grad_enabled(train and torch.is_grad_enabled()):
        return functional.ssim(img1, img2.detach(), **options)
