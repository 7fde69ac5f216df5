"""SSIM of `kornia.losses` and, for volumes, of `kornia.metrics`, as in kornia 0.9.0.

`ssim_loss`, `SSIMLoss`, `MS_SSIMLoss`, `ssim3d_loss`, `SSIM3DLoss`, and the maps `ssim3d` and
`SSIM3D`.

Differences:

- `eps`, which kornia adds to the product of SSIM's denominators, is not added. With
  C1 = (0.01 max_val)^2 and C2 = (0.03 max_val)^2, it would raise the loss by at most
  eps / (2 C1 C2), for two black images: 6e-6 with the defaults, and nothing visible elsewhere. If
  that is more than 1e-5, `eps` raises NotImplementedError; `eps=0.0` is legal with any `max_val`.
- In float32, values differ by kornia's rounding errors: by 3e-5 on flat images (0.95 with noise of
  1e-2), where ours are within 2e-7 of float64.
- The result has the same dtype as kornia's. It is computed in float32 or float64 and rounded once;
  for half precision, kornia rounds the map first and then its mean.
- `max_val` can be any real number, or a tensor of one element, which synchronizes.
- `MS_SSIMLoss` runs in plain PyTorch on any device, whatever the backend: its windows, 33 pixels
  wide by default, are too large for the kernels. The constructor checks `reduction`. The module has
  no buffer of masks; for integer images the result is float32, whatever `to()` was called with.
- The texts of errors differ from kornia's, and `torch.jit.script` does not support these losses.
- On GPUs, volumes run in plain PyTorch.

Source: the signatures and the behavior of kornia 0.9.0 (Apache-2.0).
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from lamp_kernels import filters, functional, reference
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
from lamp_kernels.tensors import Images

__all__ = [
    "SSIM3D",
    "MS_SSIMLoss",
    "SSIM3DLoss",
    "SSIMLoss",
    "ssim3d",
    "ssim3d_loss",
    "ssim_loss",
]

SIGMA = 1.5  # pixels, for every window size
K1, K2 = 0.01, 0.03
PADDINGS: dict[str, Padding] = {"same": "reflect", "valid": "valid"}
REDUCTIONS: dict[str, Reduction] = {"mean": "mean", "sum": "sum", "none": "none"}
NEGLIGIBLE_SHIFT = 1e-5  # shifts of the loss of black images up to this count as rounding errors
NAMES = ("img1", "img2")
NO_TAP_BEYOND = 9.0  # standard deviations: beyond, taps are below 1e-17 of the largest one


def ssim_loss(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float | Tensor = 1.0,
    eps: float = 1e-12,
    reduction: str = "mean",
    padding: str = "same",
) -> Tensor:
    """(1 - SSIM)/2, which is 0 for equal images.

    Args:
        img1, img2: images (N, C, H, W), values expected in [0, max_val]; integers become float32.
        window_size: side of the Gaussian window in pixels, odd, 1 to 31; its standard deviation is
            1.5 pixels.
        max_val: the distance between the smallest and the largest possible value.
        eps: has no effect; see the docstring of this module.
        reduction: "mean", "sum", or "none" for the map.
        padding: "same" mirrors the image at its border without repeating the edge pixel, which
            requires sides > window_size // 2; "valid" uses only window positions that fit inside
            the image. Case does not matter.

    Returns:
        Tensor, dimensionless, in [0, 1]: a scalar, or the map (N, C, H, W), with padding="valid"
        smaller by window_size - 1; its dtype is what the images' dtypes promote to.

    Raises:
        NotImplementedError: `eps` is large enough to matter.
        TypeError, ValueError: an image or an option is invalid.

    Source: kornia 0.9.0 (Apache-2.0), for the signature and the behavior.
    """
    return _loss(img1, img2, window_size, max_val, eps, reduction, padding, spatial_dims=2)


def ssim3d_loss(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float | Tensor = 1.0,
    eps: float = 1e-12,
    reduction: str = "mean",
    padding: str = "same",
) -> Tensor:
    """(1 - SSIM)/2 of volumes (N, C, D, H, W), with a window in three dimensions.

    Args:
        img1, img2: volumes (N, C, D, H, W), values expected in [0, max_val].
        window_size: side of the Gaussian window in voxels, odd.
        max_val, eps, padding, reduction: as in `ssim_loss`.

    Returns:
        A scalar, or the map (N, C, D, H, W) with reduction="none", dimensionless.

    Raises:
        NotImplementedError: `eps` is large enough to matter.
        TypeError, ValueError: a volume or an option is invalid.

    Source: kornia 0.9.0 (Apache-2.0), for the signature and the behavior.
    """
    return _loss(img1, img2, window_size, max_val, eps, reduction, padding, spatial_dims=3)


def ssim3d(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float | Tensor = 1.0,
    eps: float = 1e-12,
    padding: str = "same",
) -> Tensor:
    """The SSIM map of volumes (N, C, D, H, W), 1 where they are equal.

    Args:
        img1, img2: volumes (N, C, D, H, W), values expected in [0, max_val].
        window_size: side of the Gaussian window in voxels, odd.
        max_val, eps, padding: as in `ssim_loss`.

    Returns:
        The map (N, C, D, H, W), dimensionless, in the volumes' dtype.

    Raises:
        NotImplementedError: `eps` is large enough to matter.
        TypeError, ValueError: a volume or an option is invalid.

    Source: kornia 0.9.0 (Apache-2.0), for the signature and the behavior.
    """
    img1, img2 = _arguments.promoted(img1, img2, NAMES)
    loss = _loss(
        img1, img2, window_size, max_val, eps, "none", padding, spatial_dims=3, rounded=False
    )
    return (1.0 - 2.0 * loss).to(img1.dtype)


def _loss(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float | Tensor,
    eps: float,
    reduction: str,
    padding: str,
    spatial_dims: Literal[2, 3],
    rounded: bool = True,
) -> Tensor:
    """The loss, rounded to the dtype of kornia's or in float32 or float64."""
    scale, ours, kind = _check(window_size, max_val, eps, reduction, padding)
    img1, img2 = _arguments.promoted(img1, img2, NAMES)
    spec = LossSpec(window_size=window_size, padding=ours, spatial_dims=spatial_dims)
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
        spatial_dims=spatial_dims,
        amplification="none",
        reduction=kind,
    )
    return loss.to(img1.dtype) if rounded else loss


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

    _function = staticmethod(ssim_loss)

    def forward(self, img1: Tensor, img2: Tensor) -> Tensor:
        """Compute the loss, see the class."""
        return self._function(
            img1, img2, self.window_size, self.max_val, self.eps, self.reduction, self.padding
        )


class SSIM3DLoss(SSIMLoss):
    """`ssim3d_loss` as a module.

    Args:
        window_size, max_val, eps, reduction, padding: as in `ssim3d_loss`.

    Call: ``module(img1, img2)``; shapes, result and errors as in `ssim3d_loss`.
    """

    _function = staticmethod(ssim3d_loss)


class SSIM3D(torch.nn.Module):
    """`ssim3d` as a module.

    Args:
        window_size, max_val, eps, padding: as in `ssim3d`.

    Call: ``module(img1, img2)``; shapes, result and errors as in `ssim3d`.
    """

    def __init__(
        self,
        window_size: int,
        max_val: float | Tensor = 1.0,
        eps: float = 1e-12,
        padding: str = "same",
    ) -> None:
        super().__init__()
        _check(window_size, max_val, eps, "none", padding)
        self.window_size = window_size
        self.max_val = max_val
        self.eps = eps
        self.padding = padding

    def forward(self, img1: Tensor, img2: Tensor) -> Tensor:
        """Compute the map, see `ssim3d`."""
        return ssim3d(img1, img2, self.window_size, self.max_val, self.eps, self.padding)


class MS_SSIMLoss(torch.nn.Module):
    """MS-SSIM with Gaussian windows of several widths at full resolution, mixed with L1.

    For each pixel, T = 1 - l_M prod_j cs_j, where l_M is the luminance term of the last scale and
    cs_j the contrast-structure term of each scale. The loss is
    compensation (alpha T + (1 - alpha) G * |x - y| / data_range), with G the last scale's window
    and both parts averaged over the channels.

    Args:
        sigmas: the standard deviation of each scale's window in pixels. The last determines the
            size: all windows have 2 int(2 sigmas[-1]) + 1 pixels. Pixels outside the image are 0.
        data_range: the distance between the smallest and the largest possible value.
        K: k1 and k2, dimensionless.
        alpha, compensation: finite dimensionless numbers, or tensors of one element.
        reduction: "mean", "sum", or "none" for the map (N, H, W).

    Call: ``module(img1, img2)`` with images (N, C, H, W). If one batch contains a single image, it
        is compared with each image of the other.

    Returns: a scalar, or the map; its dtype is what the images' dtypes promote to.

    Raises:
        TypeError, ValueError: an image or an option is invalid.

    Source: Zhao, Gallo, Frosio, Kautz, "Loss functions for image restoration with neural networks",
    IEEE TCI 3(1), 2017, in kornia's form; computed as the product of 1 - p and 1 - q, in the
    difference form of `lamp_kernels.reference`.
    """

    def __init__(
        self,
        sigmas: Sequence[float] = (0.5, 1.0, 2.0, 4.0, 8.0),
        data_range: float | Tensor = 1.0,
        K: tuple[float, float] = (0.01, 0.03),
        alpha: float | Tensor = 0.025,
        compensation: float | Tensor = 200.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        spreads, pair = _arguments.numbers(sigmas), _arguments.numbers(K)
        if not isinstance(spreads, list) or not spreads:
            raise TypeError(
                f"sigmas must be a sequence of one or more numbers, got {shown(sigmas)}"
            )
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
        """Compute the loss, see the class."""
        x, y = _same_batch(*_arguments.promoted(img1, img2, NAMES))
        size = 2 * int(2 * self.sigmas[-1]) + 1
        spec = SIMILARITY.replace(data_range=self.data_range, k2=self.K[1], padding="zeros")
        _arguments.check_images(x, y, NAMES, spec)
        total: Tensor | None = None
        for number, sigma in enumerate(self.sigmas):
            last = number == len(self.sigmas) - 1
            reach = 2 * math.ceil(min(NO_TAP_BEYOND * sigma, size)) + 1
            spec = spec.replace(
                window_size=min(size, reach),
                sigma=sigma,
                k1=self.K[0] if last else CONTRAST_ONLY_K1,
            )
            term = reference.elementwise_loss("ssim", Images(x, y), spec)
            total = term if total is None else total + term - total * term
        assert total is not None  # there is a scale
        l1 = reference.elementwise_loss("l1", Images(x, y), spec)
        blurred = filters.blur(l1, size, self.sigmas[-1], "zeros")
        mixed = self.alpha * total.mean(1) + (1.0 - self.alpha) * blurred.mean(1)
        loss = self.compensation * mixed
        if self.reduction != "none":
            loss = loss.mean() if self.reduction == "mean" else loss.sum()
        return loss.to(x.dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.pop(prefix + "_g_masks", None)  # saved by kornia before 0.9
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _finite(name: str, value: Any) -> float:
    value = _arguments.number(value)
    magnitude = check_not_negative(name, abs(value) if isinstance(value, float | int) else value)
    return math.copysign(magnitude, value)


def _same_batch(img1: Tensor, img2: Tensor) -> tuple[Tensor, Tensor]:
    """Both batches at the size of the larger one if the other contains a single image."""
    if img1.dim() == img2.dim() == 4 and img1.shape[1:] == img2.shape[1:]:
        if img1.shape[0] == 1:
            return img1.expand_as(img2), img2
        if img2.shape[0] == 1:
            return img1, img2.expand_as(img1)
    return img1, img2


def _check(
    window_size: int, max_val: float | Tensor, eps: float, reduction: str, padding: str
) -> tuple[float, Padding, Reduction]:
    """Translate range, padding and reduction to ours, or raise with kornia's names."""
    check_window_size(window_size)
    scale = _arguments.data_range(max_val, "max_val")
    shift = check_not_negative("eps", eps) / (2 * (K1 * K2 * scale * scale) ** 2)
    if shift > NEGLIGIBLE_SHIFT:
        raise NotImplementedError(
            f"eps={eps!r} with max_val={max_val!r} is not supported, because it would add up to "
            f"{shift:.1g} to the loss of dark flat images; pass eps=0.0 for SSIM without eps"
        )
    check_choice("padding", padding.lower() if isinstance(padding, str) else padding, [*PADDINGS])
    check_choice("reduction", reduction, [*REDUCTIONS])
    return scale, PADDINGS[padding.lower()], REDUCTIONS[reduction]
