"""`ssim_loss`, `SSIMLoss` and `MS_SSIMLoss` as kornia 0.9.0 has them in `kornia.losses`.

What differs:

- `eps`, which kornia adds to the product of SSIM's denominators, is not added. At most it would
  raise the loss by eps / (2 C1 C2), C1 = (0.01 max_val)^2 and C2 = (0.03 max_val)^2, where both
  images are black and flat: 6e-6 at the defaults, nothing that shows elsewhere. An `eps` of which
  that is more than 1e-5 is a NotImplementedError; `eps=0.0` is legal with any `max_val`.
- In float32 values differ by kornia's rounding: by 3e-5 on flat images (0.95 with noise of 1e-2),
  where ours are within 2e-7 of float64.
- The result has the dtype that kornia's has, computed in float32 or float64 and rounded once, where
  kornia rounds the map of half types first and then its mean.
- `max_val` may be any real number, or a tensor of one, which waits for its device.
- `MS_SSIMLoss` is plain PyTorch on any device, whatever the backend: its windows, of 33 pixels by
  default, are wider than the kernels'. `reduction` is checked when it is made. It has no buffer of
  masks; `to()` does not change the dtype of its result for integer images, which is float32.
- Its errors have other texts than kornia's, and `torch.jit.script` does not take these losses.
- `ssim3d_loss` and `SSIM3DLoss` are not there.

Source: the signatures and the behaviour of kornia 0.9.0 (Apache-2.0).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lamp_kernels import functional, reference
from lamp_kernels.checks import (
    check_choice,
    check_not_negative,
    check_positive,
    check_within,
    shown,
)
from lamp_kernels.compat import _arguments
from lamp_kernels.ms_ssim import CONTRAST_ONLY_K1
from lamp_kernels.spec import (
    SIMILARITY,
    STABILIZERS,
    LossSpec,
    Padding,
    Reduction,
    check_window_size,
)

__all__ = ["MS_SSIMLoss", "SSIMLoss", "ssim_loss"]

SIGMA = 1.5  # pixels, whatever the window's size
K1, K2 = 0.01, 0.03
PADDINGS: dict[str, Padding] = {"same": "reflect", "valid": "valid"}
REDUCTIONS: dict[str, Reduction] = {"mean": "mean", "sum": "sum", "none": "none"}
LEAST_SEEN = 1e-5  # a shift of the loss of black images that is taken for rounding
NAMES = ("img1", "img2")
NO_TAP_BEYOND = 9.0  # standard deviations: a Gaussian's taps are below 1e-17 of its greatest there


def ssim_loss(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float | Tensor = 1.0,
    eps: float = 1e-12,
    reduction: str = "mean",
    padding: str = "same",
) -> Tensor:
    """(1 - SSIM)/2, 0 for equal images.

    Args:
        img1, img2: images (N, C, H, W) with values meant to lie in [0, max_val]; integers count as
            float32.
        window_size: side of the Gaussian window in pixels, odd, 1 to 31; its standard deviation is
            1.5 pixels.
        max_val: the distance between the least and the greatest possible value.
        eps: without effect, see this module's text.
        reduction: "mean", "sum", or "none" for the map.
        padding: "same" mirrors the image at its border, without repeating the edge pixel (sides >
            window_size // 2); "valid" takes the window positions that fit. Case does not matter.

    Returns:
        Tensor without unit in [0, 1], a scalar, or the map (N, C, H, W), for "valid" smaller by
        window_size - 1; of the dtype that those of the images promote to.

    Raises:
        NotImplementedError: `eps` is so large that it would show.
        TypeError, ValueError: an image or an option is wrong.
    """
    scale, ours, kind = _check(window_size, max_val, eps, reduction, padding)
    img1, img2 = _arguments.promoted(img1, img2, NAMES)
    spec = LossSpec(window_size=window_size, padding=ours)
    _arguments.check_images(img1, img2, NAMES, spec)
    loss = functional.amplified_ssim_loss(
        img1,
        img2,
        data_range=scale,
        window_size=window_size,
        sigma=SIGMA,
        k1=K1,
        k2=K2,
        padding=ours,
        amplification="none",
        reduction=kind,
    )
    return loss.to(img1.dtype)


class SSIMLoss(torch.nn.Module):
    """`ssim_loss` as a module.

    Args:
        window_size, max_val, eps, reduction, padding: as in `ssim_loss`.

    Call: ``module(img1, img2)``; shapes, result and errors as in `ssim_loss`.
    """

    def __init__(
        self,
        window_size: int,
        max_val: float | Tensor = 1.0,
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


class MS_SSIMLoss(torch.nn.Module):
    """MS-SSIM by Gaussian windows of several widths at full resolution, mixed with L1.

    Per pixel, T = 1 - l_M prod_j cs_j, l_M the luminance term of the last scale and cs_j the
    contrast-structure term of each, averaged over the channels; G * |x - y| / data_range, under the
    last window, too. The loss is compensation (alpha T + (1 - alpha) G * |x - y| / data_range).

    Args:
        sigmas: the standard deviation of each scale's window in pixels. The last is taken as the
            coarsest: all windows have 2 int(2 sigmas[-1]) + 1 pixels. Black outside.
        data_range: the distance between the least and the greatest possible value.
        K: k1 and k2, without unit.
        alpha, compensation: finite numbers without unit, or tensors of one.
        reduction: "mean", "sum", or "none" for the map (N, H, W).

    Call: ``module(img1, img2)``, images (N, C, H, W); one batch may be of one image, which is
        compared with each of the other.

    Returns: a scalar, or the map, of the dtype that those of the images promote to.

    Raises:
        TypeError, ValueError: an image or an option is wrong.

    Source: Zhao, Gallo, Frosio, Kautz, "Loss functions for image restoration with neural networks",
    IEEE TCI 3(1), 2017, in kornia's form; the product is taken of 1 - p and 1 - q, in difference
    form (`lamp_kernels.reference`).
    """

    def __init__(
        self,
        sigmas: Sequence[float] = (0.5, 1.0, 2.0, 4.0, 8.0),
        data_range: float | Tensor = 1.0,
        K: tuple[float, float] = (0.01, 0.03),
        alpha: float = 0.025,
        compensation: float = 200.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        spreads, pair = _arguments.numbers(sigmas), _arguments.numbers(K)
        if not isinstance(spreads, list) or not spreads:
            raise TypeError(f"sigmas must be one or more numbers, got {shown(sigmas)}")
        if not isinstance(pair, list) or len(pair) != 2:
            raise TypeError(f"K must be two numbers (k1, k2), got {shown(K)}")
        check_choice("reduction", reduction, [*REDUCTIONS])
        self.sigmas = [check_positive(f"sigmas[{i}]", each) for i, each in enumerate(spreads)]
        self.data_range = _arguments.data_range(data_range, "data_range")
        self.K = [check_within(f"K[{i}]", each, STABILIZERS) for i, each in enumerate(pair)]
        self.alpha = _finite("alpha", alpha)
        self.compensation = _finite("compensation", compensation)
        self.reduction = reduction

    def forward(self, img1: Tensor, img2: Tensor) -> Tensor:
        """The loss of img1 and img2."""
        x, y = _same_batch(*_arguments.promoted(img1, img2, NAMES))
        size = 2 * int(2 * self.sigmas[-1]) + 1
        spec = SIMILARITY._replace(data_range=self.data_range, k2=self.K[1], padding="zeros")
        _arguments.check_images(x, y, NAMES, spec)
        total: Tensor | None = None
        for number, sigma in enumerate(self.sigmas):
            last = number == len(self.sigmas) - 1
            reach = 2 * math.ceil(min(NO_TAP_BEYOND * sigma, size)) + 1
            spec = spec._replace(
                window_size=min(size, reach),
                sigma=sigma,
                k1=self.K[0] if last else CONTRAST_ONLY_K1,
            )
            term = reference.elementwise_loss("ssim", x, y, spec)
            total = term if total is None else total + term - total * term
        assert total is not None  # there is a scale
        l1 = reference.elementwise_loss("l1", x, y, spec)
        blurred = reference.blur(l1, size, self.sigmas[-1], "zeros")
        mixed = self.alpha * total.mean(1) + (1.0 - self.alpha) * blurred.mean(1)
        loss = self.compensation * mixed
        if self.reduction != "none":
            loss = loss.mean() if self.reduction == "mean" else loss.sum()
        return loss.to(x.dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.pop(prefix + "_g_masks", None)  # that kornia before 0.9 saved
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _finite(name: str, value: Any) -> float:
    value = _arguments.number(value)
    magnitude = check_not_negative(name, abs(value) if isinstance(value, float | int) else value)
    return math.copysign(magnitude, value)


def _same_batch(img1: Tensor, img2: Tensor) -> tuple[Tensor, Tensor]:
    """Both of the size of the larger batch, where the other is of one image."""
    if img1.dim() == img2.dim() == 4 and img1.shape[1:] == img2.shape[1:]:
        if img1.shape[0] == 1:
            return img1.expand_as(img2), img2
        if img2.shape[0] == 1:
            return img1, img2.expand_as(img1)
    return img1, img2


def _check(
    window_size: int, max_val: float | Tensor, eps: float, reduction: str, padding: str
) -> tuple[float, Padding, Reduction]:
    """Range, border and reduction as ours, or an error by the name that they have here."""
    check_window_size(window_size)
    scale = _arguments.data_range(max_val, "max_val")
    shift = check_not_negative("eps", eps) / (2 * (K1 * K2 * scale * scale) ** 2)
    if shift > LEAST_SEEN:
        raise NotImplementedError(
            f"eps={eps!r} with max_val={max_val!r} would add up to {shift:.1g} to the loss of dark "
            "flat images, which the kernels do not do; eps=0.0 asks for SSIM as it is"
        )
    check_choice("padding", padding.lower() if isinstance(padding, str) else padding, [*PADDINGS])
    check_choice("reduction", reduction, [*REDUCTIONS])
    return scale, PADDINGS[padding.lower()], REDUCTIONS[reduction]
