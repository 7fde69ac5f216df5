"""What a Triton call costs the host: forward + backward with launches that do nothing, no GPU.

python bench/triton_overhead.py            # microseconds, the least of many
python bench/triton_overhead.py --profile  # and where they go

The kernels are compiled for sm_90, and everything runs as on a GPU up to the driver, which
`driver_of_nothing` replaces. Tensors are on the CPU, where backward sees that the upstream factor
is 1; on a GPU a fifth launch does.
"""

import argparse
import cProfile
import gc
import pstats
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from lamp_kernels import AmplifiedMSELoss, AmplifiedSSIMLoss
from lamp_kernels.backends import BACKENDS
from lamp_kernels.backends.triton import device, operators, tiling

SHAPES = ((1, 1, 64, 64), (8, 3, 256, 256), (16, 3, 224, 224))
CALLS = 1000


class Launcher:
    """Takes a compiled kernel's arguments, and does nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def __call__(self, *_: Any) -> None:
        """A launch."""


def driver_of_nothing() -> Any:
    """Triton's driver of an H100 that is not there."""
    return SimpleNamespace(
        launcher_cls=Launcher,
        utils=SimpleNamespace(
            load_binary=lambda *_: (0, 0, 0, 0, 1024),
            get_device_properties=lambda _: {"max_shared_mem": 227 * 1024},
        ),
        get_current_device=lambda: 0,
        get_current_stream=lambda _: 0,
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
    )


def both(loss: Any, input: Tensor, target: Tensor) -> None:
    """Forward + backward."""
    input.grad = None
    loss(input, target).backward()


def least(loss: Any, input: Tensor, target: Tensor) -> float:
    """Seconds of a call, the least of many."""
    both(loss, input, target)
    times = []
    gc.disable()
    for _ in range(CALLS):
        start = perf_counter()
        both(loss, input, target)
        times.append(perf_counter() - start)
    gc.enable()
    return min(times)


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--profile", action="store_true", help="of the SSIM loss at the first shape"
    )
    profile = parser.parse_args().profile
    driver.set_active(driver_of_nothing())
    # No device is asked and CPU tensors are served, by stand-ins that mypy would not allow.
    device.properties = lambda *_: tiling.CUDA._replace(multiprocessors=132)  # type: ignore[assignment]
    for name, function in (
        ("image_losses", operators._image_losses),
        ("loss_map", operators._loss_map),
        ("scale_", operators._scale_),
    ):
        operators._library.impl(name, function, "CPU")
    BACKENDS["triton"].unsupported_reason = lambda *_: None  # type: ignore[method-assign]
    torch.set_num_threads(1)
    for module in (AmplifiedSSIMLoss, AmplifiedMSELoss):
        loss = module(backend="triton")
        for shape in SHAPES:
            input, target = torch.rand(shape, requires_grad=True), torch.rand(shape)
            print(f"{module.__name__:<20}{shape!s:<20}{1e6 * least(loss, input, target):6.0f} us")
    if profile:
        loss = AmplifiedSSIMLoss(backend="triton")
        input, target = torch.rand(SHAPES[0], requires_grad=True), torch.rand(SHAPES[0])
        both(loss, input, target)
        with cProfile.Profile() as profiler:
            for _ in range(CALLS):
                both(loss, input, target)
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
