"""`ssim`, `ms_ssim`, `SSIM` and `MS_SSIM` of pytorch-msssim 1.0.0.

Differences:

- `win`, the taps of another window, raises NotImplementedError: only Gaussian windows are
  supported.
- A height or width shorter than the window raises ValueError; pytorch-msssim warns and does not
  smooth along it. If the depth T of volumes (N, C, T, H, W) is shorter than the window, it is not
  smoothed, and a warning says so, as in the package. Volumes in `ms_ssim` raise
  NotImplementedError. On GPUs, volumes run in plain PyTorch.
- Half precision is computed in float32 and rounded once. X and Y must have the same dtype, except
  under autocast. The result has the dtype of X; the package's has autocast's dtype under autocast.
- `data_range`, `K` and `weights` can be tensors or arrays. Their numbers are read, which
  synchronizes, and they get no gradient. A range for each image raises TypeError.
- In float32, values differ by the package's rounding errors, in its taps and in E[x^2] - E[x]^2: by
  up to 3e-6 on noise and 1e-4 on flat images (0.95 with noise of 1e-2: `ssim` 6e-5, `ms_ssim`
  1.3e-4). Ours are within 2e-7 of float64 with taps that are not rounded.
- Where a scale is not positive, the gradient of `ms_ssim` is 0 and not NaN.

Source: the signatures and the behavior of pytorch-msssim 1.0.0 (MIT).
"""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from lamp_kernels import functional
from lamp_kernels import ms_ssim as multiscale
from lamp_kernels.checks import check_positive, check_within, shown
from lamp_kernels.compat import _arguments
from lamp_kernels.spec import (
    SCALE_WEIGHTS,
    SIMILARITY,
    STABILIZERS,
    LossSpec,
    check_scale_weights,
    check_window_size,
)
from lamp_kernels.validation import channels_last_hint, check_float_tensor, check_pair, layout_hint

__all__ = ["MS_SSIM", "SSIM", "ms_ssim", "ssim"]


def ssim(
    X: Tensor,
    Y: Tensor,
    data_range: float | Tensor = 255,
    size_average: bool = True,
    win_size: int = 11,
    win_sigma: float = 1.5,
    win: Tensor | None = None,
    K: Sequence[float] | Tensor = (0.01, 0.03),
    nonnegative_ssim: bool = False,
) -> Tensor:
    """SSIM of images, averaged over positions and channels; 1 for equal images.

    Args:
        X, Y: images (N, C, H, W), values expected in [0, data_range], sides of at least `win_size`
            pixels; or volumes (N, C, T, H, W), smoothed along T if T >= win_size.
        data_range: the distance between the smallest and the largest possible value.
        size_average: True for the mean over the batch, False for (N,).
        win_size: side of the Gaussian window in pixels, odd, 1 to 31.
        win_sigma: its standard deviation in pixels.
        win: must be None.
        K: k1 and k2, dimensionless.
        nonnegative_ssim: replace the mean of a channel by 0 if it is negative.

    Returns:
        Tensor, dimensionless, a scalar or (N,), with the dtype of X.

    Raises:
        NotImplementedError: `win` is given.
        TypeError, ValueError: an image or an option is invalid.

    Source: pytorch-msssim 1.0.0 (MIT), for the signature and the behavior.
    """
    spec = _spec_of(data_range, win_size, win_sigma, win, K)
    X, Y = _squeezed(X, Y)
    shape = X.shape
    if X.dim() == 5:
        if shape[2] >= spec.window_size:
            spec = spec.replace(spatial_dims=3)
        else:
            # Without smoothing along T, each slice counts as one more image of its channel.
            warnings.warn(
                f"X of shape {tuple(shape)} is not smoothed along T, because T={shape[2]} is less "
                f"than win_size={win_size}",
                stacklevel=2,
            )
            X, Y = X.flatten(1, 2), Y.flatten(1, 2)
    _check_sides(X, spec)
    planes = multiscale.similarity_of_planes(spec, X, Y, None)
    per_channel = planes.view(*shape[:2], planes.shape[1] // shape[1]).mean(-1)
    if nonnegative_ssim:
        per_channel = per_channel.relu()
    return (per_channel.mean() if size_average else per_channel.mean(1)).to(X.dtype)


def ms_ssim(
    X: Tensor,
    Y: Tensor,
    data_range: float | Tensor = 255,
    size_average: bool = True,
    win_size: int = 11,
    win_sigma: float = 1.5,
    win: Tensor | None = None,
    weights: Sequence[float] | Tensor | None = None,
    K: Sequence[float] | Tensor = (0.01, 0.03),
) -> Tensor:
    """Multi-scale SSIM of images, averaged over channels; 1 for equal images.

    Args:
        X, Y: images (N, C, H, W), with sides longer than 16 (win_size - 1) pixels for the default
            five scales; each scale less halves that.
        weights: one exponent >= 0 per scale, fine to coarse; None for the five of the paper.
        data_range, size_average, win_size, win_sigma, win, K: as in `ssim`.

    Returns:
        Tensor in [0, 1], dimensionless, a scalar or (N,), with the dtype of X.

    Raises:
        NotImplementedError: `win` is given, or X has five dimensions.
        TypeError, ValueError: an image or an option is invalid.

    Source: pytorch-msssim 1.0.0 (MIT), for the signature and the behavior; Wang, Simoncelli, Bovik,
    Asilomar 2003, for MS-SSIM.
    """
    spec = _spec_of(data_range, win_size, win_sigma, win, K)
    X, Y = _squeezed(X, Y)
    if X.dim() == 5:
        raise NotImplementedError(
            f"X of shape {tuple(X.shape)} is not supported: ms_ssim requires images (N, C, H, W)"
        )
    given: tuple[float, ...] = SCALE_WEIGHTS
    if weights is not None:
        given = check_scale_weights(_arguments.numbers(weights), "weights")
    _check_sides(X, spec.replace(scale_weights=given))
    value = functional.ms_ssim(
        X,
        Y,
        data_range=spec.data_range,
        window_size=spec.window_size,
        sigma=spec.sigma,
        k1=spec.k1,
        k2=spec.k2,
        scale_weights=given,
        reduction="image",
    )
    return (value.mean() if size_average else value).to(X.dtype)  # NaN for an empty batch, as there


class SSIM(torch.nn.Module):
    """`ssim` as a module.

    Args:
        channel: the number of channels that the images must have.
        spatial_dims: must be 2 for images, 3 for volumes.
        data_range, size_average, win_size, win_sigma, K, nonnegative_ssim: as in `ssim`.

    Call: ``module(X, Y)``; shapes, result and errors as in `ssim`.
    """

    def __init__(
        self,
        data_range: float | Tensor = 255,
        size_average: bool = True,
        win_size: int = 11,
        win_sigma: float = 1.5,
        channel: int = 3,
        spatial_dims: int = 2,
        K: Sequence[float] | Tensor = (0.01, 0.03),
        nonnegative_ssim: bool = False,
    ) -> None:
        super().__init__()
        _spec_of(data_range, win_size, win_sigma, None, K)
        self.data_range = data_range
        self.size_average = size_average
        self.win_size = win_size
        self.win_sigma = win_sigma
        self.channel = channel
        self.spatial_dims = spatial_dims
        self.K = K
        self.nonnegative_ssim = nonnegative_ssim

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        """Compute the SSIM of X and Y, see `ssim`."""
        _check_module_input(X, self.channel, self.spatial_dims)
        return ssim(
            X,
            Y,
            data_range=self.data_range,
            size_average=self.size_average,
            win_size=self.win_size,
            win_sigma=self.win_sigma,
            K=self.K,
            nonnegative_ssim=self.nonnegative_ssim,
        )


class MS_SSIM(torch.nn.Module):
    """`ms_ssim` as a module.

    Args:
        channel: the number of channels that the images must have.
        spatial_dims: must be 2; with 3, for volumes, the call raises NotImplementedError.
        data_range, size_average, win_size, win_sigma, weights, K: as in `ms_ssim`.

    Call: ``module(X, Y)``; shapes, result and errors as in `ms_ssim`.
    """

    def __init__(
        self,
        data_range: float | Tensor = 255,
        size_average: bool = True,
        win_size: int = 11,
        win_sigma: float = 1.5,
        channel: int = 3,
        spatial_dims: int = 2,
        weights: Sequence[float] | Tensor | None = None,
        K: Sequence[float] | Tensor = (0.01, 0.03),
    ) -> None:
        super().__init__()
        _spec_of(data_range, win_size, win_sigma, None, K)
        if weights is not None:
            check_scale_weights(_arguments.numbers(weights), "weights")
        self.data_range = data_range
        self.size_average = size_average
        self.win_size = win_size
        self.win_sigma = win_sigma
        self.channel = channel
        self.spatial_dims = spatial_dims
        self.weights = weights
        self.K = K

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        """Compute the MS-SSIM of X and Y, see `ms_ssim`."""
        _check_module_input(X, self.channel, self.spatial_dims)
        return ms_ssim(
            X,
            Y,
            data_range=self.data_range,
            size_average=self.size_average,
            win_size=self.win_size,
            win_sigma=self.win_sigma,
            weights=self.weights,
            K=self.K,
        )


def _spec_of(
    data_range: float | Tensor,
    win_size: int,
    win_sigma: float,
    win: Tensor | None,
    K: Sequence[float] | Tensor,
) -> LossSpec:
    """Translate the arguments to our options, or raise with the package's names."""
    if win is not None:
        raise NotImplementedError(
            f"win must be None, got {shown(win)}: only Gaussian windows are supported; pass "
            "win_size and win_sigma"
        )
    pair = _arguments.numbers(K)
    if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
        raise ValueError(f"K must be two numbers (k1, k2), got {K!r}")
    return SIMILARITY.replace(
        data_range=_arguments.data_range(data_range, "data_range"),
        window_size=check_window_size(win_size, "win_size"),
        sigma=check_positive("win_sigma", win_sigma),
        k1=check_within("K[0]", pair[0], STABILIZERS),
        k2=check_within("K[1]", pair[1], STABILIZERS),
    ).checked()


def _squeezed(X: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
    """The images without spatial dimensions of size 1, which pytorch-msssim drops: 4-D or 5-D."""
    check_pair(X, Y, ("X", "Y"))
    shape = X.shape
    dims = [dim for dim in range(2, X.dim()) if shape[dim] == 1]
    X, Y = X.squeeze(dims), Y.squeeze(dims)
    if X.dim() not in (4, 5):
        raise ValueError(
            f"X must be (N, C, H, W) or (N, C, T, H, W), got {len(shape)} dimensions, "
            f"{tuple(shape)}"
            + ("; spatial dimensions of size 1 are dropped" if dims else "")
            + (layout_hint(shape, "X") if len(shape) < 4 else "")
        )
    return X, Y


def _check_sides(X: Tensor, spec: LossSpec) -> None:
    least, scales = spec.smallest_side(), max(len(spec.scale_weights), 1)
    if min(X.shape[-2:]) < least:
        raise ValueError(
            f"X must have sides of at least {least} pixels for win_size={spec.window_size} and "
            f"{scales} scale{'s' if scales > 1 else ''}, got {tuple(X.shape[-2:])}; unlike "
            "pytorch-msssim, this function smooths along every side"
            + channels_last_hint(X.shape, "X")
        )


def _check_module_input(X: Tensor, channel: int, spatial_dims: int) -> None:
    check_float_tensor("X", X)
    sides = sum(side != 1 for side in X.shape[2:])  # as `_squeezed` counts
    if X.dim() < 3 or sides != spatial_dims or X.shape[1] != channel:
        raise ValueError(
            f"X must fit channel={channel} and spatial_dims={spatial_dims}, got shape "
            f"{tuple(X.shape)}" + layout_hint(X.shape, "X")
        )
