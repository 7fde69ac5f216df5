"""What gradient magnitude similarity (GMS) needs before a backend: masks, and the scales of MSGMS.

**GMS.** L = (a - b)^2/(a^2 + b^2 + c) at each position of each channel, with a and b the magnitudes
of the images' gradients under the 3 x 3 Prewitt operator: `reference.gms_dissimilarity`.

**MSGMS** is the mean over the scales. Scale 1 is the images themselves; each further scale
averages the previous one over 2 x 2 pixels. Along an odd side the last pixels are averaged without
a partner: pairing them with a 0 outside, as MS-SSIM does, would draw the same edge into both
images, beside which a defect would hardly count.

| level   | loss                                                       |
|---------|------------------------------------------------------------|
| element | mean over the scales of the mean of A(L) over elements     |
| image   | A(mean over the scales of the mean of L), for each image   |
| batch   | A(mean over the scales of the mean of L), over the batch   |

**Masks.** A position counts where all pixels that its operator sees are unmasked, times the
smallest of their m: the mask of pixels becomes one of positions, as backends take it. With
padding="zeros" a position whose operator reaches beyond the image then does not count. A halved
pixel is the mean of m v over the four, divided by that of m. Masked pixels may hold NaN.

Sources: Xue, Zhang, Mou, Bovik, "Gradient magnitude similarity deviation", IEEE TIP 23(2), 2014;
MSGMS: Zavrtanik, Kristan, Skocaj, "Reconstruction by inpainting for visual anomaly detection"
(RIAD), Pattern Recognition 112, 2021, which averages over channels first and drops odd borders.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lamp_kernels.scales import at_image_size, halved_images, halves
from lamp_kernels.spec import LossSpec
from lamp_kernels.tensors import Images, being_traced, compute_dtype, in_dtype, with_mask


def with_mask_of_positions(images: Images, spec: LossSpec) -> Images:
    """The images with the mask of positions in place of that of pixels; the weight includes it."""
    mask = images.mask
    if mask is None:
        return images
    dtype = compute_dtype(images.input.dtype, images.target.dtype)
    mask = mask.expand(*mask.shape[:2], *images.input.shape[2:])
    return with_mask(images, in_dtype(smallest_seen(mask, spec), dtype))


def smallest_seen(mask: Tensor, spec: LossSpec) -> Tensor:
    """The smallest m among the 3 x 3 pixels around each one; outside of "zeros" images it is 0.

    mask: of a float dtype or bool, (N, 1 or C, H, W).
    Mirrored pixels are among the others that the operator sees.
    """
    outside = 0.0 if spec.padding == "zeros" else math.inf
    mask = torch.nn.functional.pad(mask, (1, 1, 1, 1), value=outside)
    for dim in (-2, -1):
        size = mask.shape[dim] - 2
        first, *others = (mask.narrow(dim, start, size) for start in range(3))
        for other in others:
            first = torch.minimum(first, other)
        mask = first
    return mask


def scales(spec: LossSpec, images: Images) -> Iterator[Images]:
    """The images of each scale, fine to coarse, with masks of positions."""
    images = at_image_size(images)
    for number in range(spec.gms_scales):
        if number > 0:
            images = halved_images(images, halved)
        yield with_mask_of_positions(images, spec)


def halved(planes: Tensor) -> Tensor:
    """Means of 2 x 2 pixels; along an odd side the last mean is that of the pixels there are."""
    height, width = (side % 2 for side in planes.shape[-2:])
    if not being_traced() and height == width == 0:  # a graph for any size has no condition
        return halves(planes)
    means, shares = (
        halves(torch.nn.functional.pad(each, (0, width, 0, height)))
        for each in (planes, planes.new_ones((1, 1, *planes.shape[-2:])))
    )
    return means / shares
