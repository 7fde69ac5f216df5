"""`fused_ssim` as the package fused-ssim has it: on the CPU too, and of any layout.

What differs: `img2` need not be contiguous; NaN gives NaN; half types are taken, and give float32;
`train=False` gives a result without a gradient, where fused-ssim gives one that cannot be used.

Source: the signature and the behaviour of fused-ssim (MIT) as of its commit 0ac916a.
"""

import torch
from torch import Tensor

from lamp_kernels import functional
from lamp_kernels.options import Padding, check_choice

__all__ = ["fused_ssim"]

PADDINGS: dict[str, Padding] = {"same": "zeros", "valid": "valid"}


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
    with torch.set_grad_enabled(train and torch.is_grad_enabled()):
        target = img2.detach() if isinstance(img2, Tensor) else img2
        return functional.ssim(img1, target, padding=PADDINGS[padding])
