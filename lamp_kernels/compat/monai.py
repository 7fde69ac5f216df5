"""`SSIMLoss` of `monai.losses`, as in MONAI 1.6.

Differences:

- `win_size` is odd and at most 31, and `win_size` and `kernel_sigma` are the same along all axes;
  sequences of different numbers raise NotImplementedError.
- `data_range` can be a tensor with one range per image, (N,) or (N, 1, 1, 1). MONAI broadcasts it
  to the map, so there only the second works.
- Images must have the same floating dtype. MONAI converts all to float32; here the result is
  float64 for float64 images.
- In float32, values differ by MONAI's rounding errors, those of E[x^2] - E[x]^2. The loss is never
  negative.
- On GPUs, volumes run in plain PyTorch. There is no attribute `ssim_metric`.

Source: the signature and the behavior of MONAI 1.6.1 (Apache-2.0).
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from lamp_kernels import functional
from lamp_kernels.checks import check_choice, check_positive, check_within
from lamp_kernels.compat import _arguments
from lamp_kernels.spec import SIMILARITY, STABILIZERS, check_window_size
from lamp_kernels.windows import WINDOWS

__all__ = ["SSIMLoss"]

REDUCTIONS = ("mean", "sum", "none")
NAMES = ("input", "target")


class SSIMLoss(torch.nn.Module):
    """1 - SSIM of images or volumes, over the windows that fit inside; 0 for equal images.

    Args:
        spatial_dims: 2 for images (N, C, H, W), 3 for volumes (N, C, H, W, D).
        data_range: the distance between the smallest and the largest possible value; one number,
            or a tensor with one per image, without a gradient.
        kernel_type: "gaussian" or "uniform".
        win_size: side of the window in pixels, odd, 1 to 31; one number, or one for each axis.
        kernel_sigma: the standard deviation of the Gaussian window in pixels.
        k1, k2: dimensionless constants.
        reduction: "mean" or "sum" over the batch, or "none" for (N, 1).

    Call: ``module(input, target)``, sides of at least `win_size`.

    Returns: a scalar, or (N, 1), dimensionless; float32, or float64 for float64 images.

    Raises:
        NotImplementedError: the window is not the same along all axes.
        TypeError, ValueError: an image or an option is invalid.

    Source: MONAI 1.6.1 (Apache-2.0), for the signature and the behavior.
    """

    def __init__(
        self,
        spatial_dims: Literal[2, 3],
        data_range: float | Tensor = 1.0,
        kernel_type: str = "gaussian",
        win_size: int | Sequence[int] = 11,
        kernel_sigma: float | Sequence[float] = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.spatial_dims = spatial_dims
        self.data_range = data_range
        self.kernel_type = kernel_type
        self.win_size = win_size
        self.kernel_sigma = kernel_sigma
        self.k1 = k1
        self.k2 = k2
        self.reduction = reduction
        self._options()

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compute the loss, see the class."""
        options = self._options()
        spec = SIMILARITY.replace(**{**options, "data_range": 1.0})
        _arguments.check_images(input, target, NAMES, spec)
        loss = 1.0 - functional.ssim(input, target, reduction="image", **options).unsqueeze(1)
        if self.reduction == "none":
            return loss
        return loss.mean() if self.reduction == "mean" else loss.sum()

    def _options(self) -> dict[str, Any]:
        """The options of `functional.ssim`, or an error that uses MONAI's names."""
        check_choice("kernel_type", self.kernel_type, WINDOWS)
        check_choice("reduction", self.reduction, REDUCTIONS)
        sigma = _along_all_axes("kernel_sigma", self.kernel_sigma, self.spatial_dims)
        size = _along_all_axes("win_size", self.win_size, self.spatial_dims)
        data_range = self.data_range
        if isinstance(data_range, Tensor) and data_range.dim() == 2 + self.spatial_dims:
            data_range = data_range.flatten(1).squeeze(1)
        elif not isinstance(data_range, Tensor):
            data_range = _arguments.data_range(data_range, "data_range")
        options = {
            "window": "uniform" if self.kernel_type == "uniform" else "gaussian",
            "window_size": check_window_size(size, "win_size"),
            "sigma": check_positive("kernel_sigma", sigma),
            "k1": check_within("k1", self.k1, STABILIZERS),
            "k2": check_within("k2", self.k2, STABILIZERS),
            "spatial_dims": self.spatial_dims,
        }
        SIMILARITY.replace(**options).checked()
        return {**options, "data_range": data_range}


def _along_all_axes(name: str, value: Any, spatial_dims: int) -> Any:
    """The number that a sequence repeats for each axis; one number as it is."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return value
    if len(value) != spatial_dims:
        raise ValueError(f"{name} must have {spatial_dims} numbers, one for each axis, got {value}")
    if any(each != value[0] for each in value):
        raise NotImplementedError(f"{name} must be the same along all axes, got {value}")
    return value[0]
