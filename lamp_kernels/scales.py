"""Images at several scales, each half as large as the one before, for MS-SSIM and MSGMS."""

from collections.abc import Callable

import torch
from torch import Tensor

from lamp_kernels.tensors import Images, compute_dtype, in_dtype


def at_image_size(images: Images) -> Images:
    """Images in the compute type, with a weight and a mask of the images' height and width.

    What is halved must have these sides, but not the images' channels. A weight that is the mask
    itself, as in a call without a weight, stays the mask itself.
    """
    dtype = compute_dtype(images.input.dtype, images.target.dtype)
    x, y, weight, mask, data_range = images
    only_mask = weight is mask
    if mask is not None:
        mask = mask.expand(*mask.shape[:2], *x.shape[2:])
    if only_mask:
        weight = mask
    elif weight is not None:
        weight = in_dtype(weight, dtype).expand(*weight.shape[:2], *x.shape[2:])
    return Images(x.to(dtype), y.to(dtype), weight, mask, data_range)


def halved_images(images: Images, halve: Callable[[Tensor], Tensor]) -> Images:
    """The next scale. With a mask m a pixel is the mean of m v over four, divided by that of m.

    halve: averages planes over 2 x 2 pixels, with a rule of its own along odd sides. The mask is
    halved to the share that it covers of what `halve` makes of ones, so that ones remain ones.
    """
    x, y, weight, mask, data_range = images
    only_mask = weight is mask
    if weight is not None and not only_mask:
        weight = halve(weight)
    if mask is None:
        return Images(halve(x), halve(y), weight, None, data_range)
    share = halve(mask) / halve(torch.ones_like(mask))
    if only_mask:
        weight = share
    x, y = (
        halve(torch.where(mask == 0, 0.0, v) * mask) / share.masked_fill(share == 0, 1.0)
        for v in (x, y)
    )
    return Images(x, y, weight, share, data_range)
