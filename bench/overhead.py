"""Measure call overhead: each loss on a (1, 1, 32, 32) image against an empty operator pair.

python bench/overhead.py
"""

import statistics
from collections.abc import Callable
from time import perf_counter

import torch
from torch import Tensor

from lamp_kernels import AmplifiedMSELoss, AmplifiedSSIMLoss

SHAPE = (1, 1, 32, 32)
CALLS = 200  # consecutive calls timed together
ROUNDS = 25


@torch.library.custom_op("lamp_kernels_bench::empty", mutates_args=())
def empty(input: Tensor, target: Tensor) -> Tensor:
    """Do nothing: return a scalar that does not depend on the images."""
    return input.new_zeros(())


@empty.register_fake
def _(input: Tensor, target: Tensor) -> Tensor:
    return input.new_zeros(())


@torch.library.custom_op("lamp_kernels_bench::empty_backward", mutates_args=())
def empty_backward(upstream: Tensor, input: Tensor) -> Tensor:
    """Do nothing: return a gradient of zeros."""
    return torch.zeros_like(input)


@empty_backward.register_fake
def _(upstream: Tensor, input: Tensor) -> Tensor:
    return torch.zeros_like(input)


empty.register_autograd(
    lambda ctx, upstream: (empty_backward(upstream, *ctx.saved_tensors), None),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
)


def seconds(function: Callable[[Tensor, Tensor], Tensor], input: Tensor, target: Tensor) -> float:
    """Seconds of one forward + backward, averaged over CALLS calls."""
    start = perf_counter()
    for _ in range(CALLS):
        input.grad = None
        function(input, target).backward()
    return (perf_counter() - start) / CALLS


def main() -> None:
    """Print the median times and their difference from the empty pair's."""
    input, target = torch.rand(SHAPE, requires_grad=True), torch.rand(SHAPE)
    contestants: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "empty operator pair": empty,
        "torch.nn.MSELoss": torch.nn.MSELoss(),
        "AmplifiedMSELoss": AmplifiedMSELoss(),
        "AmplifiedSSIMLoss": AmplifiedSSIMLoss(),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for round in range(ROUNDS + 1):
        for name, function in contestants.items():
            elapsed = seconds(function, input, target)
            if round:  # the first round is a warm-up
                times[name].append(elapsed)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{SHAPE}, forward + backward, torch {torch.__version__}")
    for name, median in medians.items():
        beyond = median - medians["empty operator pair"]
        print(f"{name:<22}{1e6 * median:8.1f} µs{1e6 * beyond:+8.1f} µs")


if __name__ == "__main__":
    main()
