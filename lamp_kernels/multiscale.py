"""Multi-scale SSIM (MS-SSIM) out of the single-scale operator, one call a scale.

Scale 1 is the images; each next one is the last, averaged over 2 x 2 pixels (`_halved`). In the
names of `lamp_kernels.reference`, an inner scale sees the contrast-structure term 1 - q only, the
last one SSIM itself, (1 - p)(1 - q). For one channel of one image let D_j be the mean over the
positions of scale j of q, at the last scale of 1 - SSIM. With the weights w_j of the scales

    MS-SSIM = prod_j max(1 - D_j, 0)^w_j                L = a (1 - mean over channels of MS-SSIM)

**What is amplified.** The logarithm of the product is a sum, -log MS-SSIM = sum_j w_j A(D_j) (up to
where A's tangent begins), so a log loss takes a scale as a term:

| level   | loss                                                                             |
|---------|----------------------------------------------------------------------------------|
| element | sum_j w_j times the mean of A(a q), at the last scale A(a (1 - SSIM)), over elements |
| image   | A(L), L of each image                                                            |
| batch   | A(mean of L over the images)                                                     |

With amplification="none" nothing tells the levels apart: L, the mean of 1 - MS-SSIM times a. At
small losses all of them agree to first order.

**Where a scale is negative.** A power below 1 of a negative number is NaN, and of 0 has an infinite
slope. At element level there is no power: the loss goes on, with a gradient. Otherwise D_j >= 1
makes MS-SSIM 0 with gradient 0, for that channel of that image.

**Rounding.** Halving rounds each image by itself, so of images 1e-2, 1e-3, 1e-4 apart the gradient
in float32 is up to 4e-5, 4e-4 and 4e-3 off, relative, on the worst scenes of tests/scenes.py; the
loss ten times less. Float64 images do not have that.

Source: Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality assessment",
Asilomar 2003; the averaging at odd sides is that of pytorch-msssim.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from lamp_kernels import backends, dispatch, levels, reference, weights
from lamp_kernels.options import Level, LossOptions, Reduction, Terms
from lamp_kernels.tensors import (
    as_many_dimensions,
    being_traced,
    channels_last_hint,
    check_image_shape,
    check_pair,
    check_weight,
    compute_dtype,
)
from lamp_kernels.tensors import smallest_side as smallest_single_side

# 1 - p is 1 for C1 = k1^2 beyond measure, so the contrast-structure term is SSIM with a large k1.
# p = mu_d^2/(M + k1^2) is then at most 1e-18, below the rounding of float64; and k1^2, k1^4 are far
# from the largest float32, 3e38.
CONTRAST_ONLY_K1 = 1e9


def reduced_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    options: LossOptions,
    scale_weights: Sequence[float],
    amplify_over: Level,
    reduction: Reduction,
    backend: str | None,
) -> Tensor:
    """The loss as a scalar, or (N,) for reduction="image"; float32, or float64 for float64."""
    backend = _prepare(input, target, weight, options, len(scale_weights), backend)
    dtype = compute_dtype(input.dtype, target.dtype)
    x, y = input.to(dtype), target.to(dtype)
    mask = None
    if weight is not None:
        mask, _, _ = weights.scaled(
            as_many_dimensions(weight, x),
            dtype,
            levels.mean_over(amplify_over, reduction),
            lambda mask: [reference.sum_images(mask)],
            lambda mask: mask,
        )
        mask = _of_sides(mask, x)
    if options.amplification == "none" or amplify_over != "element":
        losses = _plain_losses(x, y, mask, options, scale_weights, backend)
        return _over_images(losses, mask, options, amplify_over, reduction)
    loss: Tensor | float = 0.0
    for scale in _scales(x, y, mask, options, scale_weights):
        loss = loss + dispatch.reduced_loss(
            scale.input,
            scale.target,
            scale.weight,
            {"ssim": scale.coefficient},
            scale.options,
            amplify_over,
            reduction,
            backend,
        )
    assert isinstance(loss, Tensor)  # one of scale_weights is positive
    return loss


def on_tangent(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    options: LossOptions,
    scale_weights: Sequence[float],
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    """`dispatch.on_tangent` over the positions of all scales."""
    backend = _prepare(input, target, weight, options, len(scale_weights), backend)
    dtype = compute_dtype(input.dtype, target.dtype)
    x, y = input.to(dtype), target.to(dtype)
    mask = None
    if weight is not None:
        mask = _of_sides((as_many_dimensions(weight, x) > 0).to(dtype), x)
    on, counted = x.new_zeros((), dtype=torch.int64), x.new_zeros((), dtype=torch.int64)
    for scale in _scales(x, y, mask, options, scale_weights):
        terms: Terms = {"ssim": 1.0}
        found, of = dispatch.on_tangent(
            scale.input, scale.target, scale.weight, terms, scale.options, backend
        )
        on, counted = on + found, counted + of
    return on, counted


def similarity_of_planes(
    input: Tensor,
    target: Tensor,
    options: LossOptions,
    backend: str | None,
) -> Tensor:
    """The mean SSIM of each channel of each image, (N, C): what packages average or clamp."""
    check_pair(input, target)
    check_image_shape(input, options)
    return 1.0 - _plane_losses(input, target, None, options, backend)


class _Scale(NamedTuple):
    """What the single-scale operator is called with, and the scale's w_j."""

    input: Tensor
    target: Tensor
    weight: Tensor | None
    options: LossOptions
    coefficient: float


def _scales(
    x: Tensor, y: Tensor, mask: Tensor | None, options: LossOptions, coefficients: Sequence[float]
) -> Iterator[_Scale]:
    """Fine to coarse, without the scales of weight 0."""
    inner = options._replace(k1=CONTRAST_ONLY_K1)
    last = len(coefficients) - 1
    for number, coefficient in enumerate(coefficients):
        if number > 0:
            x, y = _halved(x), _halved(y)
            mask = None if mask is None else _halved(mask)
        if coefficient > 0.0:
            yield _Scale(x, y, mask, options if number == last else inner, coefficient)


def _of_sides(weight: Tensor, like: Tensor) -> Tensor:
    """The weight with the sides of the image: what can be halved."""
    return weight.expand(*weight.shape[:2], *like.shape[2:])


def _halved(planes: Tensor) -> Tensor:
    """Means of 2 x 2 pixels; along an odd side each border pixel is paired with a 0 outside.

    Weights too: where half of a mean lies outside of the image, it counts half.
    """
    height, width = (side % 2 for side in planes.shape[-2:])
    padding = (height, width)
    if being_traced():  # the pool's own padding is a constant: a graph each for odd and even sides
        planes = torch.nn.functional.pad(planes, (width, 0, height, 0))
        padding = (0, 0)
    return torch.nn.functional.avg_pool2d(planes, kernel_size=2, padding=padding)


def _plain_losses(
    x: Tensor,
    y: Tensor,
    mask: Tensor | None,
    options: LossOptions,
    coefficients: Sequence[float],
    backend: str | None,
) -> Tensor:
    """1 - MS-SSIM of each plane, (N, C): 1 - exp(sum_j w_j log(1 - D_j)), small ones to the digit.

    The logarithm of 1 - D_j <= 0 is left out of the graph, not multiplied by a 0: infinity times 0
    is NaN.
    """
    shape = x.shape[:2]
    logarithm = x.new_zeros(shape)
    nothing_alike = torch.zeros(shape, dtype=torch.bool, device=x.device)
    for scale in _scales(x, y, mask, options, coefficients):
        loss = _plane_losses(scale.input, scale.target, scale.weight, scale.options, backend)
        negative = loss >= 1.0
        nothing_alike = nothing_alike | negative
        similarity = torch.log1p(-loss.masked_fill(negative, 0.0))
        logarithm = logarithm + scale.coefficient * similarity
    return -torch.expm1(logarithm).masked_fill(nothing_alike, -1.0)


def _plane_losses(
    x: Tensor, y: Tensor, mask: Tensor | None, options: LossOptions, backend: str | None
) -> Tensor:
    """The mean of 1 - SSIM over each plane, (N, C): planes are images of one channel."""
    plain = options._replace(dissimilarity="full", amplification="none")
    planes = (x.shape[0] * x.shape[1], 1, *x.shape[2:])
    weight = None if mask is None else mask.expand(x.shape).reshape(planes)
    losses = dispatch.reduced_loss(
        x.reshape(planes),
        y.reshape(planes),
        weight,
        {"ssim": 1.0},
        plain,
        "element",
        "image",
        backend,
    )
    return losses.view(x.shape[:2])


def _over_images(
    losses: Tensor,
    mask: Tensor | None,
    options: LossOptions,
    amplify_over: Level,
    reduction: Reduction,
) -> Tensor:
    """From 1 - MS-SSIM of each plane (N, C) to the loss, by the table of `levels`.

    A plane has its weight's sum m for its number of pixels, and S = m times its loss.
    """
    if options.dissimilarity == "half":
        losses = 0.5 * losses
    if mask is None:
        by_plane = torch.ones_like(losses)
    else:
        sums = reference.sum_images(mask.flatten(0, 1)).view(mask.shape[:2])
        by_plane = sums.expand(losses.shape)
    own = by_plane.sum(1)
    factor = levels.factor(
        levels.nonzero(own), levels.nonzero(own.sum()), 1.0, amplify_over, reduction
    )
    counted = (own > 0).sum().clamp(min=1)
    amplify = partial(reference.amplify, amplification=options.amplification, eps=options.eps)
    shares = (by_plane * losses).sum(1) * factor
    return levels.finish(shares, [1.0], counted, amplify, amplify_over, reduction)


def smallest_side(scales: int, options: LossOptions) -> int:
    """The smallest side, in pixels, of which the last scale admits the window."""
    last = smallest_single_side(options.window_size, options.padding)
    # Halving rounds up: of s pixels ceil(s / 2^(scales - 1)) are left.
    return (last - 1 << scales - 1) + 1


def _prepare(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    options: LossOptions,
    scales: int,
    backend: str | None,
) -> str:
    """Check the tensors for every scale, and choose the backend that will compute them all."""
    check_pair(input, target)
    check_image_shape(input, options)
    check_weight(weight, input)
    resolved = backends.resolve(backend, input, window_size=options.window_size)
    least = smallest_side(scales, options)
    if min(input.shape[2:]) < least:
        raise ValueError(
            f"input is too small: {scales} scales of window_size={options.window_size} with "
            f"padding={options.padding!r} need sides of at least {least}, got height "
            f"{input.shape[2]} and width {input.shape[3]}{channels_last_hint(input.shape, 'input')}"
        )
    return resolved
