"""Multi-scale SSIM (MS-SSIM) from the single-scale operator, with one call per scale.

Scale 1 is the images themselves; each further scale averages the previous one over 2 x 2 pixels
(`_halved`). In the notation of `lamp_kernels.reference`, all scales but the last use only the
contrast-structure term 1 - q, and the last uses SSIM itself, (1 - p)(1 - q). For one channel of one
image let D_j be the mean of q over the positions of scale j, or at the last scale the mean of
1 - SSIM. With the weights w_j of the scales

    MS-SSIM = prod_j max(1 - D_j, 0)^w_j                L = a (1 - mean over channels of MS-SSIM)

**Amplification.** The logarithm of the product is a sum, -log MS-SSIM = sum_j w_j A(D_j) (up to
where A's tangent begins), so at element level each scale is a term of the loss:

| level   | loss                                                                             |
|---------|----------------------------------------------------------------------------------|
| element | sum_j w_j times the mean of A(a q), at the last scale A(a (1 - SSIM)), over elements |
| image   | A(L), L of each image                                                            |
| batch   | A(mean of L over the images)                                                     |

With amplification="none" all levels are the same: L, the mean of 1 - MS-SSIM times a. For small
losses all levels agree to first order.

**Negative scales.** A power below 1 of a negative number is NaN, and of 0 it has an infinite slope.
At element level there is no power, so the loss continues there, with a gradient. At the other
levels D_j >= 1 makes MS-SSIM 0 with gradient 0, for that channel of that image.

**Rounding.** Halving rounds each image separately. For images that differ by 1e-2, 1e-3 and 1e-4,
the relative error of the gradient in float32 is therefore up to 4e-5, 4e-4 and 4e-3 on the worst
scenes of tests/scenes.py, and that of the loss a tenth of it. Float64 images are not affected.

Source: Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality assessment",
Asilomar 2003; the averaging at odd sides is that of pytorch-msssim.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lamp_kernels import losses, reduction, reference, weights
from lamp_kernels.backends import Backend
from lamp_kernels.spec import LossSpec, Term
from lamp_kernels.tensors import being_traced, compute_dtype, with_dims_of

# For a huge C1 = k1^2, 1 - p is 1, so the contrast-structure term is SSIM with a large k1. Here
# p = mu_d^2/(M + k1^2) is at most 1e-18, below the rounding error of float64, and k1^2 and k1^4 are
# far below the largest float32, 3e38.
CONTRAST_ONLY_K1 = 1e9


def loss(
    spec: LossSpec, input: Tensor, target: Tensor, weight: Tensor | None, backend: str | None
) -> Tensor:
    """Compute the loss: a scalar, or (N,) for reduction="image", in float32 or float64."""
    chosen = losses.prepare(spec, input, target, weight, backend)
    dtype = compute_dtype(input.dtype, target.dtype)
    x, y = input.to(dtype), target.to(dtype)
    mask = None
    if weight is not None:
        mask, _, _ = weights.scaled(
            with_dims_of(weight, x),
            dtype,
            reduction.mean_over(spec),
            lambda mask: [reference.sum_images(mask)],
            lambda mask: mask,
        )
        mask = _expanded_to_image(mask, x)
    if spec.amplification == "none" or spec.amplify_over != "element":
        plane_losses = _plain_losses(chosen, spec, x, y, mask)
        return _over_images(spec, plane_losses, mask)
    total: Tensor | float = 0.0
    for scale in _scales(spec, x, y, mask):
        total = total + losses.reduced_loss(
            chosen, scale.spec, scale.input, scale.target, scale.weight
        )
    assert isinstance(total, Tensor)  # one of scale_weights is positive
    return total


def count_on_tangent(
    backend: Backend, spec: LossSpec, input: Tensor, target: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As `losses.count_on_tangent`, over the positions of all scales."""
    dtype = compute_dtype(input.dtype, target.dtype)
    x, y = input.to(dtype), target.to(dtype)
    mask = None
    if weight is not None:
        mask = _expanded_to_image((with_dims_of(weight, x) > 0).to(dtype), x)
    on_tangent, elements = x.new_zeros((2,), dtype=torch.int64).unbind()
    for scale in _scales(spec, x, y, mask):
        counts = losses.count_on_tangent(
            backend, scale.spec, scale.input, scale.target, scale.weight
        )
        on_tangent, elements = on_tangent + counts[0], elements + counts[1]
    return on_tangent, elements


def similarity_of_planes(
    spec: LossSpec, input: Tensor, target: Tensor, backend: str | None
) -> Tensor:
    """The mean SSIM of each channel of each image, (N, C), before any average over channels."""
    chosen = losses.prepare(spec, input, target, None, backend)
    return 1.0 - _plane_losses(chosen, spec, input, target, None)


class _Scale(NamedTuple):
    """The arguments of one scale. The coefficient of its spec's term is the scale's w_j."""

    spec: LossSpec
    input: Tensor
    target: Tensor
    weight: Tensor | None


def _scales(spec: LossSpec, x: Tensor, y: Tensor, mask: Tensor | None) -> Iterator[_Scale]:
    """The scales from fine to coarse, except those of weight 0."""
    last = len(spec.scale_weights) - 1
    for number, coefficient in enumerate(spec.scale_weights):
        if number > 0:
            x, y = _halved(x), _halved(y)
            mask = None if mask is None else _halved(mask)
        if coefficient > 0.0:
            of_scale = spec.replace(
                terms=(Term("ssim", coefficient),),
                k1=spec.k1 if number == last else CONTRAST_ONLY_K1,
                scale_weights=(),
            )
            yield _Scale(of_scale, x, y, mask)


def _expanded_to_image(weight: Tensor, like: Tensor) -> Tensor:
    """The weight expanded to the height and width of the image, so that it can be halved."""
    return weight.expand(*weight.shape[:2], *like.shape[2:])


def _halved(planes: Tensor) -> Tensor:
    """Means of 2 x 2 pixels; along an odd side, border pixels are paired with a 0 outside.

    For weights this is right too: a mean that lies half outside the image counts half.
    """
    height, width = (side % 2 for side in planes.shape[-2:])
    padding = (height, width)
    if being_traced():  # avg_pool2d's padding is a constant: odd sides would need another graph
        planes = torch.nn.functional.pad(planes, (width, 0, height, 0))
        padding = (0, 0)
    return torch.nn.functional.avg_pool2d(planes, kernel_size=2, padding=padding)


def _plain_losses(
    backend: Backend, spec: LossSpec, x: Tensor, y: Tensor, mask: Tensor | None
) -> Tensor:
    """1 - MS-SSIM of each plane, (N, C): 1 - exp(sum_j w_j log(1 - D_j)), accurate if small.

    Where 1 - D_j <= 0, its logarithm is kept out of the graph rather than multiplied by 0, since
    infinity times 0 is NaN.
    """
    shape = x.shape[:2]
    logarithm = x.new_zeros(shape)
    nothing_alike = torch.zeros(shape, dtype=torch.bool, device=x.device)
    for scale in _scales(spec, x, y, mask):
        plane_loss = _plane_losses(backend, scale.spec, scale.input, scale.target, scale.weight)
        negative = plane_loss >= 1.0
        nothing_alike = nothing_alike | negative
        similarity = torch.log1p(-plane_loss.masked_fill(negative, 0.0))
        logarithm = logarithm + scale.spec.terms[0].coefficient * similarity
    return -torch.expm1(logarithm).masked_fill(nothing_alike, -1.0)


def _plane_losses(
    backend: Backend, spec: LossSpec, x: Tensor, y: Tensor, mask: Tensor | None
) -> Tensor:
    """The mean of 1 - SSIM over each plane, (N, C). Planes are passed as images of one channel."""
    plain = spec.replace(
        terms=(Term("ssim"),),
        dissimilarity="full",
        amplification="none",
        amplify_over="element",
        reduction="image",
    )
    planes = (x.shape[0] * x.shape[1], 1, *x.shape[2:])
    weight = None if mask is None else mask.expand(x.shape).reshape(planes)
    found = losses.reduced_loss(backend, plain, x.reshape(planes), y.reshape(planes), weight)
    return found.view(x.shape[:2])


def _over_images(spec: LossSpec, plane_losses: Tensor, mask: Tensor | None) -> Tensor:
    """From 1 - MS-SSIM of each plane (N, C) to the loss, by the table in `reduction`.

    For a plane, m is the sum of its weight, or 1 without a weight, and S is m times its loss.
    """
    if spec.ssim_scale != 1.0:
        plane_losses = spec.ssim_scale * plane_losses
    if mask is None:
        plane_weight = torch.ones_like(plane_losses)
    else:
        sums = reference.sum_images(mask.flatten(0, 1)).view(mask.shape[:2])
        plane_weight = sums.expand(plane_losses.shape)
    image_weight = plane_weight.sum(1)
    factor = reduction.term_factor(
        spec, 0, reduction.nonzero(image_weight), reduction.nonzero(image_weight.sum())
    )
    scaled_sums = (plane_weight * plane_losses).sum(1) * factor
    nonempty_images = (image_weight > 0).sum().clamp(min=1)
    return reduction.finish(spec, scaled_sums, nonempty_images)
