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

**Rounding.** Halving rounds each image separately, and differences of images lose digits. So all
scales but the first are float64: see `lamp_kernels.scales`. In exported graphs and on MPS they are
not; the relative error of the gradient in float32 is then up to 4e-5, 4e-4 and 4e-3 on the worst
scenes of tests/scenes.py, for images that differ by 1e-2, 1e-3 and 1e-4.

Source: Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality assessment",
Asilomar 2003; the averaging at odd sides is that of pytorch-msssim.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lamp_kernels import losses, reduction, reference, weights
from lamp_kernels.backends import Backend
from lamp_kernels.scales import at_image_size, halved_images, halves
from lamp_kernels.spec import LossSpec, Term
from lamp_kernels.tensors import Images, being_traced

# For a huge C1 = k1^2, 1 - p is 1, so the contrast-structure term is SSIM with a large k1. Here
# p = mu_d^2/(M + k1^2) is at most 1e-18, below the rounding error of float64, and k1^2 and k1^4 are
# far below the largest float32, 3e38.
CONTRAST_ONLY_K1 = 1e9


def loss(spec: LossSpec, images: Images, backend: str | None) -> Tensor:
    """Compute the loss: a scalar, or (N,) for reduction="image", in float32 or float64."""
    call = losses.prepare(spec, images, backend)
    spec, images = call.spec, call.images
    images = weights.of_scales(images, spec)
    images = at_image_size(images)
    dtype = images.input.dtype
    if spec.amplification == "none" or spec.amplify_over != "element":
        plain = _plain_losses(call.backend, spec, images)
        return _over_images(spec, plain, images.weight).to(dtype)
    total: Tensor | float = 0.0
    for of_scale, scaled in _scales(spec, images):
        total = total + losses.reduced_loss(call.backend, of_scale, scaled)
    assert isinstance(total, Tensor)  # one of scale_weights is positive
    return total.to(dtype)


def count_on_tangent(backend: Backend, spec: LossSpec, images: Images) -> tuple[Tensor, Tensor]:
    """As `losses.count_on_tangent`, over the positions of all scales."""
    if images.weight is not None:
        images = images._replace(weight=images.weight > 0)
    images = at_image_size(images)
    on_tangent, elements = images.input.new_zeros((2,), dtype=torch.int64).unbind()
    for of_scale, scaled in _scales(spec, images):
        found, counted = losses.count_on_tangent(backend, of_scale, scaled)
        on_tangent, elements = on_tangent + found, elements + counted
    return on_tangent, elements


def similarity_of_planes(
    spec: LossSpec, input: Tensor, target: Tensor, backend: str | None
) -> Tensor:
    """The mean SSIM of each channel of each image, (N, C), before any average over channels."""
    call = losses.prepare(spec, Images(input, target), backend)
    return 1.0 - _plane_losses(call.backend, call.spec, call.images)


def _scales(spec: LossSpec, images: Images) -> Iterator[tuple[LossSpec, Images]]:
    """The scales from fine to coarse, except those of weight 0.

    The coefficient of the term of a scale's spec is the scale's w_j.
    """
    last = len(spec.scale_weights) - 1
    for number, coefficient in enumerate(spec.scale_weights):
        if number > 0:
            images = halved_images(images, _halved)
        if coefficient > 0.0:
            of_scale = spec.replace(
                terms=(Term("ssim", coefficient),),
                k1=spec.k1 if number == last else CONTRAST_ONLY_K1,
                scale_weights=(),
            )
            yield of_scale, images


def _halved(planes: Tensor) -> Tensor:
    """Means of 2 x 2 pixels; along an odd side, border pixels are paired with a 0 outside.

    For weights this is right too: a mean that lies half outside the image counts half.
    """
    height, width = (side % 2 for side in planes.shape[-2:])
    if being_traced() or height or width:  # a graph for any size has no condition
        planes = torch.nn.functional.pad(planes, (width, 0, height, 0))
    return halves(planes)


def _plain_losses(backend: Backend, spec: LossSpec, images: Images) -> Tensor:
    """1 - MS-SSIM of each plane, (N, C): 1 - exp(sum_j w_j log(1 - D_j)), accurate if small.

    Where 1 - D_j <= 0, its logarithm is kept out of the graph rather than multiplied by 0, since
    infinity times 0 is NaN.
    """
    shape = images.input.shape[:2]
    logarithm = images.input.new_zeros(shape)
    nothing_alike = torch.zeros(shape, dtype=torch.bool, device=logarithm.device)
    for of_scale, scaled in _scales(spec, images):
        plane_loss = _plane_losses(backend, of_scale, scaled)
        negative = plane_loss >= 1.0
        nothing_alike = nothing_alike | negative
        similarity = torch.log1p(-plane_loss.masked_fill(negative, 0.0))
        logarithm = logarithm + of_scale.terms[0].coefficient * similarity
    return -torch.expm1(logarithm).masked_fill(nothing_alike, -1.0)


def _plane_losses(backend: Backend, spec: LossSpec, images: Images) -> Tensor:
    """The mean of 1 - SSIM over each plane, (N, C). Planes are passed as images of one channel."""
    plain = spec.replace(
        terms=(Term("ssim"),),
        dissimilarity="full",
        amplification="none",
        amplify_over="element",
        reduction="image",
    )
    batch, channels, *sides = images.input.shape
    planes = (batch * channels, 1, *sides)
    x, y, weight, mask, data_range = images

    def of_planes(plane: Tensor | None) -> Tensor | None:
        return None if plane is None else plane.expand(x.shape).reshape(planes)

    if data_range is not None:
        data_range = data_range.repeat_interleave(channels)
    each = Images(
        x.reshape(planes), y.reshape(planes), of_planes(weight), of_planes(mask), data_range
    )
    return losses.reduced_loss(backend, plain, each).view(batch, channels)


def _over_images(spec: LossSpec, plane_losses: Tensor, weight: Tensor | None) -> Tensor:
    """From 1 - MS-SSIM of each plane (N, C) to the loss, by the table in `reduction`.

    For a plane, m is the mean of its weight, or 1 without a weight, and S is m times its loss.
    """
    if spec.ssim_scale != 1.0:
        plane_losses = spec.ssim_scale * plane_losses
    if weight is None:
        plane_weight = torch.ones_like(plane_losses)
    else:
        sums = reference.sum_images(weight.flatten(0, 1)).view(weight.shape[:2])
        means = sums.to(plane_losses.dtype) / math.prod(weight.shape[2:])
        plane_weight = means.expand(plane_losses.shape)
    image_weight = plane_weight.sum(1)
    factor = reduction.term_factor(
        spec, 0, reduction.nonzero(image_weight), reduction.nonzero(image_weight.sum())
    )
    scaled_sums = (plane_weight * plane_losses).sum(1) * factor
    nonempty_images = (image_weight > 0).sum().clamp(min=1)
    return reduction.finish(spec, scaled_sums, nonempty_images)
