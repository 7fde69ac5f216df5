"""The reconstruction network of the training program."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvAutoencoder(nn.Module):
    """A plain convolutional autoencoder: (N, C, H, W) in [0, 1] to (N, C, H, W) in (0, 1).

    Each of `depth` encoder steps halves the sides; the code has `latent` channels, and the decoder
    mirrors the encoder. Height and width must be at least 16 but need not be multiples of anything:
    the image is padded by reflection to a multiple of 2**depth, and the output is cropped.

    No skip connections: they would let the input reach the output without passing through the
    code, and a network that copies its input reconstructs anomalies as well as normal images.

    No BatchNorm: its statistics depend on the batch, so two processes with half the batch each
    would train a different network than one process does, and single test images would not be
    normalized like the training images. A network this shallow trains without normalization.

    channels: channels of the image, 1 or 3.
    width: the first step has width / 2 channels; each further step doubles them, up to 2 width.
    latent: channels of the code.
    depth: number of halvings, 1 to 4.

    Raises ValueError for an argument out of range.
    """

    def __init__(self, channels: int, *, width: int = 32, latent: int = 16, depth: int = 3) -> None:
        super().__init__()
        if not 1 <= depth <= 4:
            raise ValueError(f"depth must be from 1 to 4, got {depth}")
        if channels < 1 or width < 2 or latent < 1:
            raise ValueError(
                "channels and latent must be at least 1 and width at least 2, "
                f"got {channels}, {latent} and {width}"
            )
        self.channels = channels
        self.multiple = 2**depth
        widths = [min(2**level * width // 2, 2 * width) for level in range(depth)]

        # With kernel 4 and stride 2 every output of a transposed convolution depends on the same
        # number of inputs, which avoids checkerboard patterns; with kernel 3 it would not.
        encoder: list[nn.Module] = []
        for previous, following in zip([channels, *widths], widths, strict=False):
            encoder += [nn.Conv2d(previous, following, 4, stride=2, padding=1), nn.LeakyReLU(0.1)]
        self.encoder = nn.Sequential(*encoder, nn.Conv2d(widths[-1], latent, 1))

        decoder: list[nn.Module] = [nn.Conv2d(latent, widths[-1], 1)]
        for previous, following in zip(widths[::-1], [*widths[-2::-1], channels], strict=True):
            decoder += [
                nn.LeakyReLU(0.1),
                nn.ConvTranspose2d(previous, following, 4, stride=2, padding=1),
            ]
        self.decoder = nn.Sequential(*decoder)

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions of the same shape as `images`; ValueError for a wrong shape."""
        if images.dim() != 4 or images.shape[1] != self.channels or min(images.shape[2:]) < 16:
            raise ValueError(
                f"images must be (N, {self.channels}, H >= 16, W >= 16), got {tuple(images.shape)}"
            )
        height, width = images.shape[2:]
        down, right = -height % self.multiple, -width % self.multiple
        top, left = down // 2, right // 2
        padded = functional.pad(images, (left, right - left, top, down - top), mode="reflect")
        decoded = torch.sigmoid(self.decoder(self.encoder(padded)))
        return decoded[:, :, top : top + height, left : left + width]
