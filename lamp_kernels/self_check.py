"""A few known answers, computed on every device by every available backend."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lamp_kernels import backends, functional
from lamp_kernels.spec import Padding

# SSIM of `pattern()` in float64 with window 11, sigma 1.5 and population covariance: "valid" as in
# scikit-image and kornia, "reflect" as in kornia ("same"). tests/test_self_check.py compares these
# values with the installed packages.
SSIM_OF_PATTERN: dict[Padding, float] = {"valid": 0.8581078446639, "reflect": 0.844936820625}


class Check(NamedTuple):
    """One known answer. It passes if `found` is within the relative `tolerance` of `expected`."""

    name: str
    found: float
    expected: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether `found` is close enough to `expected`."""
        return abs(self.found - self.expected) <= self.tolerance * abs(self.expected)


def pattern() -> tuple[Tensor, Tensor]:
    """Two different images (1, 1, 24, 40) in [0, 1], float64, the same on every machine."""
    row = torch.arange(24, dtype=torch.float64).view(-1, 1)
    column = torch.arange(40, dtype=torch.float64)
    image = 0.5 + 0.5 * torch.sin(0.5 * row) * torch.cos(0.3 * column)
    other = 0.5 + 0.4 * torch.sin(0.5 * row + 0.4) * torch.cos(0.31 * column)
    return image.view(1, 1, 24, 40), other.view(1, 1, 24, 40)


def run() -> Iterator[Check]:
    """Run every check in float32 on every device, with every backend that supports the device."""
    for device in backends.devices():
        sample = torch.empty(0, device=device)
        for backend in backends.available():
            if backends.unsupported_reason(backend, sample) is not None:
                continue
            if backends.BACKENDS[backend].configuration_error(sample) is not None:
                continue
            for name, found, expected, tolerance in _answers(torch.device(device), backend):
                yield Check(f"{backend} on {device}: {name}", found, expected, tolerance)


def _answers(device: torch.device, backend: str) -> Iterator[tuple[str, float, float, float]]:
    image, other = (tensor.to(device, torch.float32) for tensor in pattern())
    for padding, expected in SSIM_OF_PATTERN.items():
        found = functional.ssim(image, other, padding=padding, backend=backend)
        yield f"SSIM, {padding}", found.item(), expected, 1e-5

    # Two flat images: p = (a - b)^2 / (a^2 + b^2 + C1), q = 0; dL/dx by the quotient rule.
    a, b, c1 = 0.6, 0.5, 1e-4
    spread = a * a + b * b + c1
    half_p = 0.5 * (a - b) ** 2 / spread
    slope = 0.5 * (2 * (a - b) * spread - 2 * a * (a - b) ** 2) / spread**2 / (1 - half_p)
    flat = torch.full_like(image, a).requires_grad_()
    loss = functional.amplified_ssim_loss(flat, torch.full_like(image, b), backend=backend)
    (gradient,) = torch.autograd.grad(loss, flat)
    yield "amplified SSIM of flat images", loss.item(), -math.log1p(-half_p), 1e-5
    yield "its gradient", gradient.sum().item(), slope, 1e-5

    # Half of the pixels differ by 0.5, the others are equal.
    apart = torch.zeros_like(image)
    apart[..., :20] = 0.5
    zero = torch.zeros_like(image)
    mse = functional.amplified_mse_loss(apart, zero, backend=backend)
    yield "amplified MSE", mse.item(), -0.5 * math.log(0.75), 1e-6
    l1 = functional.amplified_l1_loss(apart, zero, backend=backend)
    yield "amplified L1", l1.item(), -0.5 * math.log(0.5), 1e-6

    # The loss of a completely wrong image is on the tangent: A(1 - eps) + 1.
    wrong = functional.amplified_mse_loss(torch.ones_like(image), zero, backend=backend)
    yield "the tangent of A at L = 1", wrong.item(), 1.0 - math.log(1e-2), 1e-5
