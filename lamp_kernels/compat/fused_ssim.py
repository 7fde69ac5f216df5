"""`fused_ssim` and `FusedSSIMMap` of the package fused-ssim, on CPUs too and for any layout.

Differences:

- `img2` does not have to be contiguous.
- NaN gives NaN.
- Half precision is supported and gives float32; fused-ssim raises.
- `train=False` gives a result without a gradient; the one that fused-ssim gives cannot be used.
- `FusedSSIMMap` has only `apply`, for images (N, C, H, W). Its `forward`, `backward` and
  `spatial_dims=3` are not available, nor is `fused_ssim3d`.

Source: the signatures and the behavior of fused-ssim (MIT) as of its commit 0ac916a.
"""

import math

import torch
from torch import Tensor

from lamp_kernels import functional
from lamp_kernels.checks import check_choice, check_within
from lamp_kernels.compat import _arguments
from lamp_kernels.spec import STABILIZERS, LossSpec, Padding

__all__ = ["FusedSSIMMap", "fused_ssim"]

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
    check_choice("padding", padding, [*PADDINGS])
    _arguments.check_images(img1, img2, NAMES, LossSpec(padding=PADDINGS[padding]))
    with torch.set_grad_enabled(train and torch.is_grad_enabled()):
        return functional.ssim(img1, img2.detach(), padding=PADDINGS[padding])


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
        spatial_dims: int = 2,
    ) -> Tensor:
        """SSIM at each pixel.

        Args:
            C1, C2: SSIM's constants, 0.01^2 and 0.03^2 for images in [0, 1].
            img1, img2, padding, train: as in `fused_ssim`.
            spatial_dims: must be 2.

        Returns:
            (N, C, H, W), dimensionless, with padding="valid" (N, C, H - 10, W - 10); float32, or
            float64 for float64 images.

        Raises:
            NotImplementedError: `spatial_dims` is not 2.
            TypeError, ValueError: an image or an option is invalid.
        """
        if spatial_dims != 2:
            raise NotImplementedError(
                f"spatial_dims must be 2, got {spatial_dims!r}: 3-D windows are not supported"
            )
        check_choice("padding", padding, [*PADDINGS])
        k1, k2 = (
            math.sqrt(check_within(name, _arguments.number(square), SQUARES))
            for name, square in (("C1", C1), ("C2", C2))
        )
        _arguments.check_images(img1, img2, NAMES, LossSpec(padding=PADDINGS[padding]))
        with torch.set_grad_enabled(train and torch.is_grad_enabled()):
            return functional.ssim(
                img1, img2.detach(), k1=k1, k2=k2, padding=PADDINGS[padding], reduction="none"
            )
