"""The same values in other memory layouts."""

import torch
from torch import Tensor


def sliced(image: Tensor) -> Tensor:
    """Every second element of a larger tensor, along every dimension."""
    larger = torch.full([2 * size + 1 for size in image.shape], 9.0, dtype=image.dtype)
    view = larger[tuple(slice(1, 1 + 2 * size, 2) for size in image.shape)]
    return view.copy_(image)


# For images of shape (N, C, H, W).
LAYOUTS = {
    "contiguous": lambda image: image,
    "channels_last": lambda image: image.contiguous(memory_format=torch.channels_last),
    "transposed": lambda image: image.mT.contiguous().mT,
    "sliced": sliced,
    "batch inside": lambda image: image.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
}
