"""Runs every kind of kernel on small, irregular shapes, for compute-sanitizer.

python -m device.small --device cuda
"""

import argparse
import itertools
import sys
from typing import Any

import torch

from lamp_kernels import backends, functional

# Less than a strip, several strips and bands, several planes; irregular side lengths.
SHAPES = ((1, 1, 13, 17), (2, 3, 37, 75), (1, 1, 150, 270))


def main() -> int:
    """Run all of them; return 3 if the native kernels do not support the device."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    device = torch.device(parser.parse_args().device)
    reason = backends.unsupported_reason("native", torch.empty(0, device=device))
    if reason is not None:
        print(f"nothing to check: {reason}")
        return 3
    calls = 0
    for shape, padding in itertools.product(SHAPES, ("reflect", "valid", "zeros")):
        for dtype, window_size in (
            (torch.float32, 11), (torch.float32, 3), (torch.float16, 5), (torch.bfloat16, 7),
            (torch.float64, 13),
        ):  # fmt: skip
            _call(shape, dtype, device, padding=padding, window_size=window_size)
            calls += 1
    print(f"{calls} variants")
    return 0


def _call(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, **options: Any) -> None:
    x, y = (image.to(dtype).requires_grad_() for image in torch.rand(2, *shape, device=device))
    weight = torch.rand(shape[0], 1, *shape[2:], device=device)
    last = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    losses = [
        functional.amplified_reconstruction_loss(x, y, weight, l1=0.5, backend="native", **options),
        functional.amplified_ssim_loss(last, y.detach(), backend="native", **options),
        functional.amplified_ssim_loss(
            x, y, weight, reduction="none", backend="native", **options
        ).mean(),
        functional.amplified_mse_loss(x, y, amplify_over="image", backend="native"),
        functional.amplified_reconstruction_loss(
            x, y, mse=0.0, charbonnier=0.5, amplification="power", backend="native", **options
        ),
    ]
    torch.autograd.backward(losses)
    for gradient in (x.grad, y.grad, last.grad):
        assert gradient is not None
        assert gradient.isfinite().all()


if __name__ == "__main__":
    sys.exit(main())
