"""Anomaly maps and scores, computed from the reconstructions of a trained network.

They are not amplified: a monotone transform of the final score cannot change which image scores
higher, so amplification belongs in training.
"""

import math
from numbers import Integral, Real
from typing import Any, Literal

import torch
from torch import Tensor

from lamp_kernels import filters, losses, reference
from lamp_kernels.checks import check_choice, check_not_negative, shown
from lamp_kernels.signatures import by_name
from lamp_kernels.spec import DEFAULTS, METRICS, LossSpec, Metric, Term
from lamp_kernels.tensors import Images, compute_dtype, in_dtype, in_torchscript, with_dims_of
from lamp_kernels.validation import check_channels_first, check_float_tensor, split_range
from lamp_kernels.windows import Window

ChannelReduction = Literal["mean", "max"]
Pooling = Literal["mean", "max", "topk"]

DEFAULT_K = 0.01  # 1 % of the pixels


@by_name
def anomaly_map(
    input: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    metric: Metric = "ssim",
    channel_reduction: ChannelReduction = "mean",
    smooth_sigma: float = 0.0,
    data_range: float | Tensor = DEFAULTS.data_range,
    window: Window = DEFAULTS.window,
    window_size: int = DEFAULTS.window_size,
    sigma: float = DEFAULTS.sigma,
    k1: float = DEFAULTS.k1,
    k2: float = DEFAULTS.k2,
    charbonnier_epsilon: float = DEFAULTS.charbonnier_epsilon,
    backend: str | None = None,
) -> Tensor:
    """Per-pixel reconstruction error: the higher, the more anomalous.

    Args:
        input, target: images (N, C, H, W), reconstruction and original, in [0, data_range].
        mask: as in `AmplifiedSSIMLoss`; the map is 0 where it is 0, and smoothing does not spread
            that 0.
        metric: a term of `AmplifiedReconstructionLoss`, whose L is the error, not amplified:
            (1 - SSIM)/2 for "ssim", ((x - y)/R)^2 for "mse", |x - y|/R for "l1"; "charbonnier" as
            in `AmplifiedCharbonnierLoss`.
        channel_reduction: "mean" or "max" over the channels.
        smooth_sigma: standard deviation in pixels of a Gaussian that smooths the map, cut off
            at 4 sigma, borders reflected; 0 for no smoothing.
        data_range: R, the distance between the smallest and the largest possible value; one
            number, or a tensor (N,).
        window, window_size, sigma, k1, k2: options of SSIM, as in `AmplifiedSSIMLoss`; the other
            metrics have no window and ignore them. The padding is always "reflect", so that the map
            has the size of the image.
        charbonnier_epsilon: option of "charbonnier", which the other metrics ignore.
        backend: see `lamp_kernels.backends.resolve`.

    Returns:
        (N, H, W), dimensionless, in [0, 1] for images with values in [0, data_range]; float32, or
        float64 for float64 images.

    Raises:
        TypeError, ValueError: an image or an option is invalid, as for the losses, or the image is
            too small for the smoothing.

    Source of SSIM: Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 13(4), 2004.
    """
    check_choice("metric", metric, METRICS)
    check_choice("channel_reduction", channel_reduction, ("mean", "max"))
    common, ranges = split_range(data_range)
    spec = LossSpec(
        (Term(metric),), common, window_size, sigma, k1, k2, window=window,
        charbonnier_epsilon=charbonnier_epsilon, amplification="none", reduction="none",
    ).checked()  # fmt: skip
    # `losses.loss` checks SSIM's images too, but the smoothing reads their height and width before.
    if check_float_tensor("input", input).dim() != 4 or metric != "ssim":
        check_channels_first(input, of_pixels=metric != "ssim")
    spread = _check_smoothing(smooth_sigma, input)
    errors = losses.loss(spec, Images(input, target, None, mask, ranges), backend)
    per_pixel = errors.mean(dim=1) if channel_reduction == "mean" else errors.amax(dim=1)
    if spread == 0.0:
        return per_pixel
    smooth = filters.smooth(per_pixel.unsqueeze(1), spread).squeeze(1)
    return smooth if mask is None else _normalized(smooth, mask, errors, spread)


def _normalized(smooth: Tensor, mask: Tensor, errors: Tensor, spread: float) -> Tensor:
    """A smoothed map divided by the smoothed mask, 0 where masked: no masked pixel's 0 leaks."""
    visible = in_dtype(with_dims_of(mask, errors), errors.dtype).amax(dim=1)
    visible = visible.expand(smooth.shape)
    share = filters.smooth(visible.unsqueeze(1), spread).squeeze(1)
    return torch.where(visible > 0, smooth / share.masked_fill(share == 0, 1.0), 0.0)


@by_name
def anomaly_score(
    map: Tensor,
    *,
    pooling: Pooling = "max",
    k: int | float | None = None,
) -> Tensor:
    """One score per image from its anomaly map.

    Args:
        map: (N, ...) floating tensor, such as `anomaly_map` returns.
        pooling: "max", "mean", or "topk" for the mean of the k largest values.
        k: only for "topk": a number of pixels if an int, a fraction of all pixels (0 < k <= 1,
            rounded up) if a float; None for 0.01.

    Returns:
        (N,) in the unit of the map, float32 or float64. A NaN in an image's map gives NaN.

    Raises:
        TypeError: map is not a floating tensor, or k is not a number.
        ValueError: map has no pixels, pooling is unknown, k is out of range, or k is given although
            pooling is not "topk".
    """
    check_float_tensor("map", map)
    check_choice("pooling", pooling, ("mean", "max", "topk"))
    if map.dim() < 2 or math.prod(map.shape[1:]) == 0:
        raise ValueError(f"map must be (N, ...) with at least one pixel, got {tuple(map.shape)}")
    if k is not None and pooling != "topk":
        raise ValueError(
            f"k must be None with pooling={pooling!r}, got {shown(k)}; pass pooling='topk' for the "
            "mean of the k largest values"
        )
    pixels = map.flatten(1).to(compute_dtype(map.dtype))
    if pooling == "mean":
        return reference.sum_images(pixels) / pixels.shape[1]
    if pooling == "max":
        return pixels.amax(dim=1)
    count: int = _check_k(DEFAULT_K if k is None else k, pixels.shape[1])  # in TorchScript a tensor
    greatest: Tensor = pixels.topk(count, dim=1).values
    return reference.sum_images(greatest) / count


def _check_smoothing(smooth_sigma: float, input: Tensor) -> float:
    """Return the standard deviation as a float, 0 for none, if the image is large enough."""
    spread = check_not_negative("smooth_sigma", smooth_sigma)
    side = min(input.shape[-2:])
    if spread >= side or (spread > 0.0 and filters.smoothing_radius(spread) >= side):
        raise ValueError(
            f"smooth_sigma={smooth_sigma} requires sides longer than "
            f"{filters.SMOOTHING_REACH:g} * smooth_sigma pixels, got {tuple(input.shape[-2:])}"
        )
    return spread


def _check_k(k: int | float, pixels: int) -> Any:
    """Return how many of `pixels` pixels `k` selects."""
    if not isinstance(k, Real) or isinstance(k, bool):
        raise TypeError(_wrong_k(k, pixels))
    if isinstance(k, Integral):
        count = int(k)
    else:
        # ceil with a tolerance for rounding errors: 0.07 * 100 is 7.000000000000001
        count = math.ceil(k * pixels - 1e-9) if 0.0 < k <= 1.0 else 0
    if not 1 <= count <= pixels:
        raise ValueError(_wrong_k(k, pixels))
    if not isinstance(k, Integral) and in_torchscript():
        return _traced_count(float(k), pixels)
    return count


def _wrong_k(k: object, pixels: int) -> str:
    # A function, so that the text exists only if raised: in a graph for any size it would make
    # `pixels` a constant.
    return (
        f"k must be an integer from 1 to {pixels}, the number of pixels, or a float, the fraction "
        f"of them, with 0 < k <= 1; got {shown(k)}"
    )


def _traced_count(share: float, pixels: int) -> Any:
    """The same number as part of TorchScript's graph, in which a Python number is a constant."""
    return torch.ceil(share * torch.as_tensor(pixels).double() - 1e-9).long()
