"""Kernels that apply one function of lamp_kernels/backends/triton/formulas.py to each number."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from lamp_kernels.backends.triton import formulas


@triton.jit
def at(pointer, i, n, k):
    """Number i of row k of an array (rows, n)."""
    return tl.load(pointer + k * n + i, mask=i < n, other=0.0)


@triton.jit
def put(pointer, i, n, k, value):
    """Write it."""
    tl.store(pointer + k * n + i, value, mask=i < n)


@triton.jit
def minus_log1p_minus(given, out, constants, n, block: tl.constexpr):
    """-log1p(-L)."""
    i = tl.program_id(0) * block + tl.arange(0, block)
    loss = at(given, i, n, 0)
    put(out, i, n, 0, formulas.minus_log1p_minus(loss, 1.0 / (1.0 - loss)))


@triton.jit
def amplify(given, out, constants, n, block: tl.constexpr, amplification: tl.constexpr):
    """A(L) and A'(L); the constants are those of formulas.amplification_constants."""
    i = tl.program_id(0) * block + tl.arange(0, block)
    numbers = (tl.load(constants), tl.load(constants + 1), tl.load(constants + 2))
    value, slope = formulas.amplify(at(given, i, n, 0), amplification, numbers)
    put(out, i, n, 0, value)
    put(out, i, n, 1, slope)


@triton.jit
def pointwise_loss(
    given, out, constants, n, block: tl.constexpr, metric: tl.constexpr, parameter: tl.constexpr
):
    """L and its slope. metric: its index in COMBINED."""
    i = tl.program_id(0) * block + tl.arange(0, block)
    value, slope = formulas.pointwise_loss(at(given, i, n, 0), metric, parameter)
    put(out, i, n, 0, value)
    put(out, i, n, 1, slope)


@triton.jit
def three_terms(given, out, constants, n, block: tl.constexpr, charbonnier_epsilon: tl.constexpr):
    """All pointwise terms beside SSIM, without amplification; the constants are their factors."""
    i = tl.program_id(0) * block + tl.arange(0, block)
    factors = (0.0, tl.load(constants), tl.load(constants + 1), tl.load(constants + 2))
    metric_parameters: tl.constexpr = (0.0, 0.0, 0.0, charbonnier_epsilon)
    amplified, value, slope = formulas.pointwise_terms(
        at(given, i, n, 0), factors, 0b1111, metric_parameters, "none", (0.0, 0.0, 0.0)
    )
    put(out, i, n, 0, amplified[0])
    put(out, i, n, 1, amplified[1])
    put(out, i, n, 2, amplified[2])
    put(out, i, n, 3, value)
    put(out, i, n, 4, slope)


@triton.jit
def ssim(given, out, constants, n, block: tl.constexpr):
    """The loss, and the adjoint of slope 1: d, s, dd, ss.

    The constants: c1, c2, ssim_scale, and the shifts of d and s.
    """
    i = tl.program_id(0) * block + tl.arange(0, block)
    mean_d = at(given, i, n, 0)
    mean_s = at(given, i, n, 1)
    ssim_scale = tl.load(constants + 2)
    loss, p, q, inverse_m, inverse_v, mu_d, mu_s = formulas.ssim(
        mean_d,
        mean_s,
        at(given, i, n, 2),
        at(given, i, n, 3),
        tl.load(constants),
        tl.load(constants + 1),
        ssim_scale,
        tl.load(constants + 3),
        tl.load(constants + 4),
    )
    d, s, dd, ss = formulas.ssim_adjoint(
        mean_d, mean_s, p, q, inverse_m, inverse_v, mu_d, mu_s, 1.0, ssim_scale
    )
    put(out, i, n, 0, loss)
    put(out, i, n, 1, d)
    put(out, i, n, 2, s)
    put(out, i, n, 3, dd)
    put(out, i, n, 4, ss)


@triton.jit
def gms(given, out, constants, n, block: tl.constexpr):
    """The loss, by_x and by_y, of a^2, b^2 and their difference; the constant is c."""
    i = tl.program_id(0) * block + tl.arange(0, block)
    loss, by_x, by_y = formulas.gms(
        at(given, i, n, 0), at(given, i, n, 1), at(given, i, n, 2), tl.load(constants)
    )
    put(out, i, n, 0, loss)
    put(out, i, n, 1, by_x)
    put(out, i, n, 2, by_y)


KERNELS = {
    "minus_log1p_minus": (minus_log1p_minus, 1),
    "amplify": (amplify, 2),
    "pointwise_loss": (pointwise_loss, 2),
    "three_terms": (three_terms, 5),
    "ssim": (ssim, 5),
    "gms": (gms, 3),
}


def call(
    name: str, given: Tensor, constants: tuple[float, ...], fixed: dict[str, float | str]
) -> Tensor:
    """Rows of results for rows of numbers. fixed: the kernel's own compile-time constants."""
    kernel, rows = KERNELS[name]
    n = given.shape[-1]
    out = given.new_empty(rows, n)
    table = torch.tensor([*constants, 0.0], dtype=given.dtype)
    block = triton.next_power_of_2(n)
    kernel[(1,)](given.contiguous(), out, table, n, block, **fixed)
    return out
