"""Anomaly maps and scores, computed from the reconstructions of a trained network.

They are not amplified: a monotone transform of the final score cannot change which image scores
higher, so amplification belongs in training.
"""

import math
import operator
from collections.abc import Callable, Iterator
from numbers import Integral, Real
from typing import Any, Literal

import torch
from torch import Tensor

from lamp_kernels import filters, gms, losses, reference
from lamp_kernels.checks import check_choice, check_not_negative, shown
from lamp_kernels.signatures import by_name
from lamp_kernels.spec import ALONE, DEFAULTS, METRICS, LossSpec, Metric, Term
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
    mean_filter: int = 0,
    data_range: float | Tensor = DEFAULTS.data_range,
    window: Window = DEFAULTS.window,
    window_size: int = DEFAULTS.window_size,
    sigma: float = DEFAULTS.sigma,
    k1: float = DEFAULTS.k1,
    k2: float = DEFAULTS.k2,
    charbonnier_epsilon: float = DEFAULTS.charbonnier_epsilon,
    gms_constant: float = DEFAULTS.gms_constant,
    gms_scales: int = DEFAULTS.gms_scales,
    cosine_epsilon: float = DEFAULTS.cosine_epsilon,
    backend: str | None = None,
) -> Tensor:
    """Per-pixel reconstruction error: the higher, the more anomalous.

    Args:
        input, target: images (N, C, H, W), reconstruction and original, in [0, data_range].
        mask: as in `AmplifiedSSIMLoss`; the map is 0 where it is 0, and L elsewhere. Means over
            channels, scales and neighbors are weighted by it.
        metric: a term of `AmplifiedReconstructionLoss`, whose L is the error, not amplified:
            (1 - SSIM)/2 for "ssim", ((x - y)/R)^2 for "mse", |x - y|/R for "l1"; "charbonnier" as
            in `AmplifiedCharbonnierLoss`; "gms" as in `AmplifiedGMSLoss`; for "msgms" the mean of
            the scales' maps of "gms", each enlarged to the image bilinearly. Or "cosine", of
            features, as in `AmplifiedCosineLoss`.
        channel_reduction: "mean" or "max" over the channels.
        smooth_sigma: standard deviation in pixels of a Gaussian that smooths the map, cut off
            at 4 sigma, borders reflected; 0 for no smoothing.
        mean_filter: side in pixels, odd, of a mean filter over the map, before `smooth_sigma`; 0
            for none. Outside the image the map counts as 0. RIAD uses 21 with "msgms".
        data_range: R, the distance between the smallest and the largest possible value; one
            number, or a tensor (N,).
        window, window_size, sigma, k1, k2: options of SSIM, as in `AmplifiedSSIMLoss`; the other
            metrics ignore them. The padding is always "reflect", so that the map has the size of
            the image.
        charbonnier_epsilon: option of "charbonnier", which the other metrics ignore.
        gms_constant, gms_scales: options of "gms" and "msgms", which the others ignore.
        cosine_epsilon: option of "cosine", which ignores `data_range` and `channel_reduction`.
        backend: see `lamp_kernels.backends.resolve`.

    Returns:
        (N, H, W), dimensionless, in [0, 1] for images with values in [0, data_range]; float32, or
        float64 for float64 images.

    Raises:
        TypeError, ValueError: an image or an option is invalid, as for the losses, or the image is
            too small for the smoothing.

    Source of SSIM: Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 13(4), 2004. Of the map of MSGMS and
    the mean filter: Zavrtanik, Kristan, Skocaj (RIAD), Pattern Recognition 112, 2021, with borders
    and interpolation as in public implementations.
    """
    check_choice("metric", metric, (*METRICS, *ALONE))
    check_choice("channel_reduction", channel_reduction, ("mean", "max"))
    common, ranges = split_range(data_range)
    spec = LossSpec(
        (Term(metric),), common, window_size, sigma, k1, k2, window=window,
        charbonnier_epsilon=charbonnier_epsilon, gms_constant=gms_constant, gms_scales=gms_scales,
        cosine_epsilon=cosine_epsilon,
        amplification="none", reduction="mean" if metric == "msgms" else "none",
    ).checked()  # fmt: skip
    # `losses.loss` checks SSIM's images too, but the smoothing reads their height and width before.
    windowed = metric in ("ssim", "gms", "msgms")
    if check_float_tensor("input", input).dim() != 4 or not windowed:
        check_channels_first(input, of_pixels=not windowed)
    spread = _check_smoothing(smooth_sigma, input)
    side = _check_mean_filter(mean_filter)
    images = Images(input, target, None, mask, None if metric == "cosine" else ranges)
    if metric == "msgms":
        per_pixel, seen = _map_over_scales(spec, images, backend, channel_reduction)
    else:
        errors = losses.loss(spec, images, backend)
        weight = None if mask is None else _weight(spec, mask, errors)
        per_pixel = _over_channels(errors, weight, channel_reduction)
        seen = None if weight is None else _seen(weight, per_pixel)
    if seen is None:
        return _filtered(per_pixel, spread, side)
    # Weighted means: no masked pixel's 0 leaks. Filtered ones are not 1 where the filter reaches
    # beyond the image.
    share = _filtered(seen, spread, side) / _filtered(torch.ones_like(seen), spread, side)
    means = _filtered(per_pixel * seen, spread, side) / share.masked_fill(share == 0, 1.0)
    return torch.where(seen > 0, means, 0.0)


def _over_channels(
    errors: Tensor, weight: Tensor | None, channel_reduction: ChannelReduction
) -> Tensor:
    """L of each pixel (N, H, W), from the map m L. weight: m, broadcasting, or None for 1."""
    mean = channel_reduction == "mean"
    if weight is None:
        return errors.mean(dim=1) if mean else errors.amax(dim=1)
    weight = weight.expand(errors.shape)
    if mean:
        errors, weight = errors.mean(dim=1), weight.mean(dim=1)
    values = torch.where(weight > 0, errors / weight.masked_fill(weight == 0, 1.0), 0.0)
    return values if mean else values.amax(dim=1)


def _weight(spec: LossSpec, mask: Tensor, errors: Tensor) -> Tensor:
    """The m that the map of errors contains."""
    mask = in_dtype(with_dims_of(mask, errors), errors.dtype)
    if spec.has_gms:
        return gms.smallest_seen(mask.expand(*mask.shape[:2], *errors.shape[2:]), spec)
    return mask


def _seen(weight: Tensor, per_pixel: Tensor) -> Tensor:
    """How much a pixel counts, (N, H, W): the largest m of its channels."""
    return weight.amax(dim=1).expand(per_pixel.shape)


def _filtered(maps: Tensor, spread: float, side: int) -> Tensor:
    for filtered in _filters(spread, side):
        maps = filtered(maps.unsqueeze(1)).squeeze(1)
    return maps


def _filters(spread: float, side: int) -> Iterator[Callable[[Tensor], Tensor]]:
    if side > 1:
        yield lambda maps: filters.mean_filter(maps, side)
    if spread > 0.0:
        yield lambda maps: filters.smooth(maps, spread)


def _map_over_scales(
    spec: LossSpec, images: Images, backend: str | None, channel_reduction: ChannelReduction
) -> tuple[Tensor, Tensor | None]:
    """The map of MSGMS, and where it counts: anywhere (None), or (N, H, W).

    With a mask the scales are weighted, at each pixel, by how much each of them sees there.
    """
    call = losses.prepare(spec, images, backend)
    size, dtype = images.input.shape[2:], compute_dtype(images.input.dtype, images.target.dtype)
    of_scale = spec.replace(terms=(Term("gms"),), reduction="none")
    maps, weights = [], []
    for number, scaled in enumerate(gms.scales(spec, call.images)):
        errors = losses.loss_map(call.backend, of_scale, scaled).to(dtype)
        weight = None if scaled.weight is None else scaled.weight.to(dtype)
        of_pixels = _over_channels(errors, weight, channel_reduction)
        if weight is not None:
            seen = _seen(weight, of_pixels)
            weights.append(_enlarged(seen, size) if number else seen)
            of_pixels = of_pixels * seen
        maps.append(_enlarged(of_pixels, size) if number else of_pixels)
    total = torch.stack(maps).sum(0)
    mask = call.images.mask
    if mask is None:
        return total / len(maps), None
    total_weight = torch.stack(weights).sum(0)
    counts = (total_weight > 0) & _seen(mask > 0, total)
    return total / total_weight.masked_fill(total_weight == 0, 1.0), counts.to(dtype)


def _enlarged(maps: Tensor, size: torch.Size) -> Tensor:
    """Maps (N, h, w) interpolated bilinearly to (N, H, W), about the centers of the pixels."""
    larger = torch.nn.functional.interpolate(maps.unsqueeze(1), size=size, mode="bilinear")
    return larger.squeeze(1)


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


def _check_mean_filter(mean_filter: int) -> int:
    """Return the side as an int, if it is odd, or 0."""
    wanted = "0 or an odd integer of at least 1"
    if isinstance(mean_filter, bool) or not isinstance(mean_filter, Integral):
        raise TypeError(f"mean_filter must be {wanted}, got {shown(mean_filter)}")
    side = operator.index(mean_filter)
    if side < 0 or (side % 2 == 0 and side > 0):
        raise ValueError(f"mean_filter must be {wanted}, got {side}")
    return side


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
