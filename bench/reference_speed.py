"""The plain-PyTorch reference against pytorch-msssim, forward + backward, interleaved.

python bench/reference_speed.py
"""

import statistics
from collections.abc import Callable
from time import perf_counter

import torch
from pytorch_msssim import ssim
from torch import Tensor

from lamp_kernels import functional

SHAPE = (8, 3, 256, 256)
ROUNDS = 15


def ours(input: Tensor, target: Tensor) -> Tensor:
    """The default loss: reflected border, amplified."""
    return functional.amplified_ssim_loss(input, target, backend="reference")


def ours_alike(input: Tensor, target: Tensor) -> Tensor:
    """What pytorch-msssim computes: valid border, 1 - SSIM."""
    return functional.amplified_ssim_loss(
        input,
        target,
        padding="valid",
        dissimilarity="full",
        amplification="none",
        backend="reference",
    )


def theirs(input: Tensor, target: Tensor) -> Tensor:
    """pytorch-msssim."""
    return 1.0 - ssim(input, target, data_range=1.0)


def seconds(
    loss_function: Callable[[Tensor, Tensor], Tensor], input: Tensor, target: Tensor
) -> float:
    """Time of one forward + backward."""
    input.grad = None
    start = perf_counter()
    loss_function(input, target).backward()
    return perf_counter() - start


def main() -> None:
    """Print medians, and their ratios to pytorch-msssim's."""
    input, target = torch.rand(SHAPE, requires_grad=True), torch.rand(SHAPE)
    candidates = {
        "reference, defaults": ours,
        "reference, as pytorch-msssim": ours_alike,
        "pytorch-msssim": theirs,
    }
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for round in range(ROUNDS + 2):
        for name, function in candidates.items():
            elapsed = seconds(function, input, target)
            if round >= 2:  # the first calls allocate
                times[name].append(elapsed)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"{SHAPE}, forward + backward, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    for name, median in medians.items():
        print(f"{name:<30}{1e3 * median:8.1f} ms{median / medians['pytorch-msssim']:8.2f} x")


if __name__ == "__main__":
    main()
