"""The reconstruction network of the training program."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvAutoencoder(nn.Module):
    """A plain convolutional autoencoder: (N, C, H, W) in [0, 1] to (N, C, H, W) in (0, 1).

    Each of `depth` encoder steps halves the sides; the code has `latent` channels, and the decoder
    mirrors the encoder. Height and width are at least 16 and need not divide by anything: the
    image is padded by reflection to a multiple of 2**depth, and the output cropped.

    No skip connections: what bypasses the code reaches the output without having been learnt, and
    a network that copies its input reconstructs anomalies as well as it does normal images.

    No BatchNorm: its statistics depend on the batch, so two processes with half the batch each
    would train another network than one process does, and single test images would be normalised
    unlike the training ones. A network this shallow trains without normalisation.

    channels: of the image, 1 or 3. width: half as many channels after the first step, doubled at
    each step up to twice as many. latent: channels of the code. depth: halvings, 1 to 4.
    """

    def __init__(self, channels: int, *, width: int = 32, latent: int = 16, depth: int = 3) -> None:
        super().__init__()
        if not 1 <= depth <= 4:
            raise ValueError(f"depth must be 1 to 4, got {depth}")
        if channels < 1 or width < 2 or latent < 1:
            raise ValueError(
                "channels and latent must be at least 1 and width at least 2, "
                f"got {channels}, {latent} and {width}"
            )
        self.channels = channels
        self.multiple = 2**depth
        widths = [min(2**level * width // 2, 2 * width) for level in range(depth)]

        # kernel 4 at stride 2: each output of the transposed convolution sees the same number of
        # inputs, which kernel 3 does not give and which keeps checkerboards away
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
        """Reconstructions of the shape of `images`."""
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
