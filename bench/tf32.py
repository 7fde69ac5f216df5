"""Emulate the accuracy of windows on tensor cores: TF32, and its split into three products.

python bench/tf32.py

The Triton kernels compute windows in float32 (docs/triton_counts.md). A rejected design multiplies
rows by a banded matrix on tensor cores, whose operands have 11 significant bits (TF32); `tf32x3`
splits each operand into two such numbers and omits the product of the two low parts. This script
rounds the operands as the hardware does and computes products and sums in float64, so that only
the error of the split remains. It prints the same windows in float32 for comparison.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lamp_kernels import windows
from lamp_kernels.spec import LossSpec

Window = Callable[[Tensor, Tensor], Tensor]


def tf32(value: Tensor) -> Tensor:
    """Round to 11 significant bits, ties away from zero (cvt.rna.tf32.f32)."""
    bits = value.float().contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


def once(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in TF32."""
    return (tf32(a).double() @ tf32(b).double()).float()


def thrice(a: Tensor, b: Tensor) -> Tensor:
    """a @ b with each operand split into two TF32 numbers, without the product of the low parts."""
    high_a, high_b = tf32(a), tf32(b)
    low_a, low_b = tf32(a - high_a), tf32(b - high_b)
    products = high_a.double() @ high_b.double() + high_a.double() @ low_b.double()
    return (products + low_a.double() @ high_b.double()).float()


def band(size: int, taps: list[float], dtype: torch.dtype) -> Tensor:
    """The banded matrix (size, size - window + 1) that multiplies a row."""
    out = torch.zeros(size, size - len(taps) + 1, dtype=dtype)
    for k, tap in enumerate(taps):
        out.diagonal(-k)[:] = tap
    return out


def dissimilarity(x: Tensor, y: Tensor, along_x: Window) -> Tensor:
    """1 - SSIM where a window fits, centered at plane means; along y in the images' dtype."""
    options = LossSpec()
    taps = windows.gaussian(options.window_size, options.sigma)
    moments = []
    for plane in (x - y, x + y):
        center = plane.mean()
        centered = plane - center
        planes = torch.stack([centered, centered.square()])
        rows = along_x(planes, band(plane.shape[-1], taps, plane.dtype))
        columns = (rows.mT @ band(plane.shape[-2], taps, plane.dtype)).mT
        mean, square = columns
        moments.append((mean + center, (square - mean.square()).clamp(min=0.0)))
    (mu_d, var_d), (mu_s, var_s) = moments
    p = mu_d.square() / ((mu_d.square() + mu_s.square()) / 2 + options.k1**2)
    q = var_d / ((var_d + var_s) / 2 + options.k2**2)
    result: Tensor = p + q * (1.0 - p)
    return result


def main() -> None:
    """Print the relative errors of the mean of 1 - SSIM."""
    torch.manual_seed(0)
    texture = torch.rand(96, 96, dtype=torch.float64)
    halves = torch.where(torch.arange(96) < 48, 0.05, 0.95).double().expand(96, 96)
    scenes = {"texture": texture, "flat": torch.full_like(texture, 0.95), "halves": halves}
    ways: dict[str, Window] = {"float32": torch.matmul, "tf32x3": thrice, "tf32": once}
    print(f"{'scene, noise':<20}" + "".join(f"{name:>10}" for name in ways))
    for name, scene in scenes.items():
        for apart in (1e-1, 1e-3, 1e-5):
            y = (scene + 0.1 * apart * torch.randn_like(scene)).float()
            x = (y + apart * torch.randn_like(scene)).float()
            exact = dissimilarity(x.double(), y.double(), torch.matmul).mean()
            errors = [dissimilarity(x, y, way).double().mean() / exact - 1 for way in ways.values()]
            print(f"{name + ',':<12}{apart:<8g}" + "".join(f"{abs(e):>10.0e}" for e in errors))


if __name__ == "__main__":
    main()
