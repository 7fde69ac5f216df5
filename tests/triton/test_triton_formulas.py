"""The Triton backend's formulas.py against the reference, number by number, with edge values.

tests/test_formulas.py does the same for csrc/formulas.h.
"""

import math

import interpreted
import pytest
import torch

from lamp_kernels import reference
from lamp_kernels.spec import METRICS

pytestmark = pytest.mark.cpu_only("interpreted on the CPU")

DTYPES = [torch.float32, torch.float64]
INF, NAN = math.inf, math.nan


def ulps(found, expected):
    exponent = torch.frexp(expected.abs()).exponent.double() - 1
    spacing = torch.finfo(found.dtype).eps * 2.0**exponent
    least = torch.finfo(found.dtype).smallest_normal * torch.finfo(found.dtype).eps
    error = (found.double() - expected).abs() / spacing.clamp(min=least)
    return torch.where(found.double() == expected, 0.0, error)


@pytest.mark.parametrize("dtype", DTYPES)
def test_log1p_is_right_to_the_last_digits(interpret, dtype):
    smallest = math.log2(torch.finfo(dtype).smallest_normal)
    loss = torch.cat(
        [
            torch.linspace(0.0, 0.999, 20_001, dtype=torch.float64),
            2.0 ** torch.linspace(smallest, -1e-3, 20_001, dtype=torch.float64),
            1.0 - 2.0 ** torch.linspace(-20.0, -1.0, 2_001, dtype=torch.float64),
        ]
    ).to(dtype)
    (value,) = interpret(interpreted.formula, "minus_log1p_minus", loss[None])
    error = ulps(value, -torch.log1p(-loss.double()))
    assert error.max() <= 3.0


@pytest.mark.parametrize("eps", [0.5, 1e-2, 1e-6])
@pytest.mark.parametrize("dtype", DTYPES)
def test_amplify(interpret, dtype, eps):
    knee = torch.tensor(1.0 - eps, dtype=dtype)
    around = [torch.nextafter(knee, torch.tensor(to, dtype=dtype)) for to in (0.0, 2.0)]
    fixed = [0.0, 1e-40, 1e-30, 1e-8, 1e-3, 0.1, 0.4, 1.0, 2.0, 1e30, INF]
    loss = torch.stack([*torch.tensor(fixed, dtype=dtype), knee, *around])
    constants = interpret(interpreted.amplification_constants, "log", (eps,))
    value, slope = interpret(interpreted.formula, "amplify", loss[None], constants)
    leaf = loss.double().requires_grad_()
    expected = reference.amplify_log(leaf, eps)
    (expected_slope,) = torch.autograd.grad(expected.sum(), leaf)
    # The kernel's knee is the number nearest to 1 - eps: a change of second order of the value.
    resolution = torch.finfo(dtype).eps
    beside = 0.5 * resolution / eps
    finite = loss.isfinite()
    assert value[~finite].isinf().all()
    error = (value.double() - expected.detach())[finite].abs()
    assert (error <= 4 * resolution * expected.detach()[finite] + beside**2).all()
    near_knee = (loss.double() - (1.0 - eps)).abs() <= 2 * resolution
    limit = 4 * resolution + 2 * beside * near_knee
    assert ((slope.double() / expected_slope - 1.0).abs() <= limit).all()


@pytest.mark.parametrize("name", ["amplify", "unamplified"])
def test_amplify_keeps_nan(interpret, name):
    loss = torch.tensor([[NAN, -NAN]])
    value, slope = interpret(interpreted.formula, name, loss, (0.99, 100.0, 0.0))
    assert value.isnan().all()
    assert slope.isnan().all() == (name == "amplify")  # else the slope is 1 whatever the loss


@pytest.mark.parametrize("metric", ["squared_error", "absolute_error"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_pointwise(interpret, dtype, metric):
    some = [0.0, 1e-30, 1e-3, 0.5, 1.0, 3.0, 1e10, INF]
    d = torch.tensor([*some, *(-value for value in some)], dtype=dtype)
    loss, slope = interpret(interpreted.formula, metric, d[None])
    leaf = d.clone().requires_grad_()
    expected = getattr(reference, metric)(leaf)
    (expected_slope,) = torch.autograd.grad(expected.sum(), leaf)
    assert torch.equal(loss, expected.detach())
    assert torch.equal(slope, expected_slope)
    for result in interpret(interpreted.formula, metric, torch.full((1, 2), NAN, dtype=dtype)):
        assert result.isnan().all()


def test_pointwise_terms_have_their_own_factors(interpret):
    d = torch.linspace(-1.0, 1.0, 9)
    squared, absolute, value, slope = interpret(
        interpreted.formula, "two_terms", d[None], (3.0, 0.5)
    )
    assert torch.equal(squared, d.square())
    assert torch.equal(absolute, d.abs())
    torch.testing.assert_close(value, 3.0 * d.square() + 0.5 * d.abs())
    torch.testing.assert_close(slope, 6.0 * d + 0.5 * d.sign())


@pytest.mark.parametrize("metrics", ["mse", "ssim+l1", "ssim+mse+l1"])
def test_a_bit_mask_stands_for_the_terms(interpret, metrics):
    names = metrics.split("+")
    mask, count, indices = interpret(interpreted.bit_mask, metrics)
    assert mask == sum(1 << METRICS.index(name) for name in names)
    assert count == len(names)
    assert indices == [*range(len(names))]


CONSTANTS = (1e-4, 9e-4, 0.5, 0.1, 0.9)  # c1, c2, ssim_scale, the shifts of d and s


def moments(dtype, brightness, apart):
    """(4, n): of d and s minus their shifts, of many pixels."""
    generator = torch.Generator().manual_seed(1)
    y = brightness * torch.rand(50, 9, generator=generator, dtype=torch.float64)
    x = y + apart * torch.randn(50, 9, generator=generator, dtype=torch.float64)
    centered = torch.stack([x - y - CONSTANTS[3], x + y - CONSTANTS[4]])
    return torch.cat([centered.mean(-1), centered.square().mean(-1)]).to(dtype)


@pytest.mark.parametrize(("brightness", "apart"), [(1.0, 1e-2), (1.0, 0.5), (1e-3, 1e-3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_ssim(interpret, dtype, brightness, apart):
    """The loss, and its derivative by the moments: the adjoint with shifts of 0."""
    given = moments(dtype, brightness, apart)
    loss, *adjoint = interpret(interpreted.formula, "ssim", given, CONSTANTS)
    leaf = given.double().requires_grad_()
    mean_d, mean_s, square_d, square_s = leaf.unbind(0)
    c1, c2, ssim_scale, shift_d, shift_s = CONSTANTS
    mu_d, mu_s = mean_d + shift_d, mean_s + shift_s
    var_d, var_s = square_d - mean_d.square(), square_s - mean_s.square()
    p = mu_d.square() / ((mu_d.square() + mu_s.square()) / 2 + c1)
    q = var_d / ((var_d + var_s) / 2 + c2)
    expected = ssim_scale * (p + q - p * q)
    (gradient,) = torch.autograd.grad(expected.sum(), leaf)
    limit = 1e-11 if dtype == torch.float64 else 2e-3 if brightness < 0.1 else 1e-4
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=limit, atol=0.0)
    norm = gradient.norm()
    for found, exact in zip(adjoint, gradient, strict=True):
        assert (found.double() - exact).norm() <= limit * norm


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_variance_below_zero_costs_the_value_only(interpret, dtype):
    given = torch.tensor(
        [[0.1, 0.0, 0.2], [0.5, 0.5, 0.0], [0.01 - 1e-6, -1e-7, 0.05], [0.30, 0.25 - 1e-5, -1e-6]],
        dtype=dtype,
    )
    constants = (1e-4, 9e-4, 0.5, 0.0, 0.0)
    loss, *adjoint = interpret(interpreted.formula, "ssim", given, constants)
    leaf = given.double().requires_grad_()
    mean_d, mean_s, square_d, square_s = leaf.unbind(0)
    var_d = reference._at_least_zero(square_d - mean_d.square())
    var_s = reference._at_least_zero(square_s - mean_s.square())
    p = mean_d.square() / ((mean_d.square() + mean_s.square()) / 2 + 1e-4)
    q = var_d / ((var_d + var_s) / 2 + 9e-4)
    expected = 0.5 * (p + q - p * q)
    (gradient,) = torch.autograd.grad(expected.sum(), leaf)
    limit = 1e-12 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=limit, atol=0.0)
    torch.testing.assert_close(torch.stack(adjoint).double(), gradient, rtol=limit, atol=limit)
    assert (loss >= 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_ssim_keeps_nan(interpret, dtype):
    given = torch.full((4, 4), 0.1, dtype=dtype).fill_diagonal_(NAN)
    loss, *adjoint = interpret(interpreted.formula, "ssim", given, CONSTANTS)
    assert loss.isnan().all()
    assert torch.stack(adjoint).isnan().any(0).all()
