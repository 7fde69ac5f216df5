"""Images on the device, and their expected losses and gradients."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lamp_kernels import functional

Loss = Callable[..., Tensor]
# For images of uniform noise; gradients of the half types are rounded to 11 and 8 bits.
LIMITS = {
    torch.float64: 1e-11,
    torch.float32: 1e-5,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
}


def pair(
    shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0, device: str = "cuda"
) -> tuple[Tensor, Tensor]:
    """Input and target in [0, 1], with noise of standard deviation 0.1 between them."""
    generator = torch.Generator(device).manual_seed(seed)
    y = torch.rand(shape, generator=generator, device=device)
    x = y + 0.1 * torch.randn(shape, generator=generator, device=device)
    return x.clamp_(0, 1).to(dtype), y.to(dtype)


def as_leaves(*images: Tensor) -> list[Tensor]:
    """The same memory, as leaves that require grad."""
    return [image.detach().requires_grad_() for image in images]


def results(loss_function: Loss, x: Tensor, y: Tensor, *weight: Tensor) -> list[Tensor]:
    """The loss, and the gradients of its sum with respect to both images."""
    leaves = as_leaves(x, y)
    loss = loss_function(*leaves, *weight)
    return [loss.detach(), *torch.autograd.grad(loss.sum(), leaves)]


def exact(x: Tensor, y: Tensor, *weight: Tensor, **options: Any) -> list[Tensor]:
    """The same from the reference in float64."""

    def loss_function(x: Tensor, y: Tensor, *weight: Tensor) -> Tensor:
        return functional.amplified_reconstruction_loss(
            x, y, *weight, **options, backend="reference"
        )

    return results(loss_function, x.double(), y.double(), *weight)


def h_plane_bytes(backend: str, shape: tuple[int, ...], gradients: int) -> int:
    """The most bytes of h planes that a float32 SSIM may hold between its kernels.

    2 + `gradients` planes for each image plane that a backend processes at a time: native fills
    half of the L2 cache (csrc/cuda/plan.cu), Triton decides in its tiling.py.
    """
    if gradients == 0:
        return 0
    batch, channels, height, width = shape
    per_plane = 4 * (2 + gradients) * height * width
    if backend == "native":
        room = torch.cuda.get_device_properties("cuda").L2_cache_size // 2
        return per_plane * min(room // per_plane, batch * channels)
    from lamp_kernels.backends.triton import device, tiling  # imports Triton

    current = torch.device("cuda", torch.cuda.current_device())
    properties = device.properties(current, torch.float32)
    return per_plane * tiling.planes_at_once(batch * channels, per_plane, properties)


def assert_near(found: list[Tensor], wanted: list[Tensor], limit: float) -> None:
    """Relative to `wanted`, in the L2 norm."""
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert one.isfinite().all()
        error = (one.double() - other).norm().item()
        assert error <= limit * other.norm().item()


def assert_same(found: list[Tensor], wanted: list[Tensor]) -> None:
    """Bitwise."""
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
