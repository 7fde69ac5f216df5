"""Float32 against float64: mean(1 - SSIM) of nearly equal images, compared with pytorch-msssim.

python bench/accuracy.py
"""

import torch
from pytorch_msssim import ssim
from torch import Tensor

from lamp_kernels import functional

SHAPE = (2, 1, 96, 96)
BRIGHTNESS = 0.95  # of the flat image
APART = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # standard deviation of the difference


def ours(input: Tensor, target: Tensor, backend: str | None = None) -> float:
    """1 - SSIM from this library, with the border of pytorch-msssim."""
    loss = functional.amplified_ssim_loss(
        input,
        target,
        padding="valid",
        dissimilarity="full",
        amplification="none",
        backend=backend,
    )
    return loss.item()


def theirs(input: Tensor, target: Tensor) -> float:
    """1 - SSIM from pytorch-msssim."""
    return 1.0 - float(ssim(input, target, data_range=1.0))


def main() -> None:
    """Print the relative errors, one row per distance."""
    generator = torch.Generator().manual_seed(0)
    print(f"flat image of {BRIGHTNESS}: relative error of mean(1 - SSIM) in float32")
    print(f"{'noise':>8}{'lamp_kernels':>14}{'pytorch-msssim':>18}")
    for apart in APART:
        noise = apart * torch.randn(SHAPE, generator=generator, dtype=torch.float64)
        target = torch.full(SHAPE, BRIGHTNESS).double()
        # Round first, so that both precisions see the same images.
        input = (target + noise).float().double()
        exact = ours(input, target, "reference")
        errors = [
            abs(function(input.float(), target.float()) - exact) / exact
            for function in (ours, theirs)
        ]
        print(f"{apart:>8g}{errors[0]:>14.0e}{errors[1]:>18.0e}")


if __name__ == "__main__":
    main()
