"""`ssim_loss` and `SSIMLoss` as kornia 0.9.0 has them in `kornia.losses`.

What differs:

- `eps`, which kornia adds to the product of SSIM's denominators, is not added. At most it would
  raise the loss by eps / (2 C1 C2), C1 = (0.01 max_val)^2 and C2 = (0.03 max_val)^2, where both
  images are black and flat: 6e-6 at the defaults, nothing that shows elsewhere. An `eps` of which
  that is more than 1e-5 is a NotImplementedError; `eps=0.0` is legal with any `max_val`.
- In float32 values differ by kornia's rounding: by 3e-5 on flat images (0.95 with noise of 1e-2),
  where ours are within 2e-7 of float64.
- Half types give float32. The images have one floating dtype, except under autocast.

Source: the signatures and the behaviour of kornia 0.9.0 (Apache-2.0).
"""

import torch
from torch import Tensor

from lamp_kernels import functional
from lamp_kernels.options import (
    DATA_RANGES,
    Padding,
    Reduction,
    check_choice,
    check_not_negative,
    check_window_size,
    check_within,
)

__all__ = ["SSIMLoss", "ssim_loss"]

SIGMA = 1.5  # pixels, whatever the window's size
K1, K2 = 0.01, 0.03
PADDINGS: dict[str, Padding] = {"same": "reflect", "valid": "valid"}
REDUCTIONS: dict[str, Reduction] = {"mean": "mean", "sum": "sum", "none": "none"}
LEAST_SEEN = 1e-5  # a shift of the loss of black images that is taken for rounding


def ssim_loss(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float = 1.0,
    eps: float = 1e-12,
    reduction: str = "mean",
    padding: str = "same",
) -> Tensor:
    """(1 - SSIM)/2, 0 for equal images.

    Args:
        img1, img2: images (N, C, H, W) with values meant to lie in [0, max_val].
        window_size: side of the Gaussian window in pixels, odd, 1 to 31; its standard deviation is
            1.5 pixels.
        max_val: the distance between the least and the greatest possible value.
        eps: without effect, see this module's text.
        reduction: "mean", "sum", or "none" for the map.
        padding: "same" mirrors the image at its border, without repeating the edge pixel (sides >
            window_size // 2); "valid" takes the window positions that fit. Case does not matter.

    Returns:
        Tensor without unit in [0, 1], a scalar, or the map (N, C, H, W), for "valid" smaller by
        window_size - 1; float32, or float64 for float64 images.

    Raises:
        NotImplementedError: `eps` is so large that it would show.
        TypeError, ValueError: an image or an option is wrong.
    """
    ours, kind = _check(window_size, max_val, eps, reduction, padding)
    return functional.amplified_ssim_loss(
        img1,
        img2,
        data_range=max_val,
        window_size=window_size,
        sigma=SIGMA,
        k1=K1,
        k2=K2,
        padding=ours,
        amplification="none",
        reduction=kind,
    )


class SSIMLoss(torch.nn.Module):
    """`ssim_loss` as a module.

    Args:
        window_size, max_val, eps, reduction, padding: as in `ssim_loss`.

    Call: ``module(img1, img2)``; shapes, result and errors as in `ssim_loss`.
    """

    def __init__(
        self,
        window_size: int,
        max_val: float = 1.0,
        eps: float = 1e-12,
        reduction: str = "mean",
        padding: str = "same",
    ) -> None:
        super().__init__()
        _check(window_size, max_val, eps, reduction, padding)
        self.window_size = window_size
        self.max_val = max_val
        self.eps = eps
        self.reduction = reduction
        self.padding = padding

    def forward(self, img1: Tensor, img2: Tensor) -> Tensor:
        """The loss of img1 and img2, see `ssim_loss`."""
        return ssim_loss(
            img1, img2, self.window_size, self.max_val, self.eps, self.reduction, self.padding
        )


def _check(
    window_size: int, max_val: float, eps: float, reduction: str, padding: str
) -> tuple[Padding, Reduction]:
    """The border and the reduction as ours, or an error by the name that they have here."""
    check_window_size(window_size)
    scale = check_within("max_val", max_val, DATA_RANGES)
    shift = check_not_negative("eps", eps) / (2 * (K1 * K2 * scale * scale) ** 2)
    if shift > LEAST_SEEN:
        raise NotImplementedError(
            f"eps={eps!r} with max_val={max_val!r} would add up to {shift:.1g} to the loss of dark "
            "flat images, which the kernels do not do; eps=0.0 asks for SSIM as it is"
        )
    check_choice("padding", padding.lower() if isinstance(padding, str) else padding, [*PADDINGS])
    check_choice("reduction", reduction, [*REDUCTIONS])
    return PADDINGS[padding.lower()], REDUCTIONS[reduction]
