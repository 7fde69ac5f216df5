"""`fused_ssim` and `FusedSSIMMap` as the package fused-ssim has them; on the CPU too, any layout.

What differs: `img2` need not be contiguous; NaN gives NaN; half types are taken, and give float32,
where fused-ssim raises; `train=False` gives a result without a gradient, where fused-ssim gives one
that cannot be used. `FusedSSIMMap` has `apply` alone, of images (N, C, H, W): its `forward`,
`backward` and `spatial_dims=3` are not there, and neither is `fused_ssim3d`.

Source: the signatures and the behaviour of fused-ssim (MIT) as of its commit 0ac916a.
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
    """The mean SSIM of images in [0, 1], window 11, standard deviation 1.5; 1 for equal images.

    Args:
        img1: images (N, C, H, W) with values meant to lie in [0, 1].
        img2: what they are compared with; no gradient goes there, as in fused-ssim.
            `lamp_kernels.functional.ssim` has both.
        padding: "same" sees black outside; "valid" takes the window positions that fit (sides >=
            11 pixels).
        train: whether a gradient for `img1` is wanted.

    Returns:
        A scalar without unit; float32, or float64 for float64 images.

    Raises:
        TypeError, ValueError: an image or `padding` is wrong.
    """
    check_choice("padding", padding, [*PADDINGS])
    _arguments.check_images(img1, img2, NAMES, LossSpec(padding=PADDINGS[padding]))
    with torch.set_grad_enabled(train and torch.is_grad_enabled()):
        return functional.ssim(img1, img2.detach(), padding=PADDINGS[padding])


class FusedSSIMMap:
    """The map whose mean `fused_ssim` is: ``FusedSSIMMap.apply(C1, C2, img1, img2)``."""

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
        """SSIM of each pixel.

        Args:
            C1, C2: SSIM's constants, 0.01^2 and 0.03^2 for images in [0, 1].
            img1, img2, padding, train: as in `fused_ssim`.
            spatial_dims: 2.

        Returns:
            (N, C, H, W) without unit, for "valid" smaller by 10; float32, or float64 for float64
            images.

        Raises:
            NotImplementedError: `spatial_dims` is 3.
            TypeError, ValueError: an image or an option is wrong.
        """
        if spatial_dims != 2:
            raise NotImplementedError(
                f"spatial_dims must be 2, got {spatial_dims!r}: there is no 3-D window"
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
