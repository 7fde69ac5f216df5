"""Image pairs for comparing packages: a flat image and a photograph, each with a noisy copy."""

import torch
from packages import optional
from torch import Tensor

skimage_data = optional("skimage.data")

PICTURES = ("flat", "photograph")
SIDE = 192  # pixels, enough for five scales of MS-SSIM


def pair(picture: str, apart: float) -> tuple[Tensor, Tensor]:
    """Return an image and a copy with normal noise of standard deviation `apart`.

    Both are float32 of shape (1, 1, SIDE, SIDE).
    """
    image = torch.full((1, 1, SIDE, SIDE), 0.95)
    if picture == "photograph":
        crop = skimage_data.camera()[100 : 100 + SIDE, 100 : 100 + SIDE]
        image = torch.as_tensor(crop, device=image.device)[None, None].float() / 255
    return image, image + apart * torch.randn(image.shape)
