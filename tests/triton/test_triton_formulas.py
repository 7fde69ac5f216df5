"""The Triton backend's formulas.py against the reference, number by number, with edge values.

tests/test_formulas.py does the same for csrc/formulas.h.
"""

import math

import interpreted
import pytest
import torch

from lamp_kernels import reference
from lamp_kernels.spec import AMPLIFICATIONS, COMBINED, METRIC_PARAMETERS, LossSpec, Term
from lamp_kernels.tensors import Images

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
def test_log(interpret, dtype, eps):
    knee = torch.tensor(1.0 - eps, dtype=dtype)
    around = [torch.nextafter(knee, torch.tensor(to, dtype=dtype)) for to in (0.0, 2.0)]
    fixed = [0.0, 1e-40, 1e-30, 1e-8, 1e-3, 0.1, 0.4, 1.0, 2.0, 1e30, INF]
    loss = torch.stack([*torch.tensor(fixed, dtype=dtype), knee, *around])
    constants = interpret(interpreted.amplification_constants, "log", (eps,))
    value, slope = interpret(
        interpreted.formula, "amplify", loss[None], constants, amplification="log"
    )
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


def power(interpret, loss, gamma, delta):
    """A(L) and its slope for the amplification "power", as the kernels compute them."""
    constants = interpret(interpreted.amplification_constants, "power", (gamma, delta))
    return interpret(interpreted.formula, "amplify", loss[None], constants, amplification="power")


@pytest.mark.parametrize("delta", [1e-3, 0.03, 0.5, 1e3])
@pytest.mark.parametrize("gamma", [1e-3, 0.5, 1.0, 2.0, 3.3, 8.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_power(interpret, dtype, gamma, delta):
    loss = torch.logspace(-12.0, 1.5, 2_001, dtype=torch.float64).to(dtype)
    value, slope = power(interpret, loss, gamma, delta)
    leaf = loss.double().requires_grad_()
    expected = reference.amplify_power(leaf, gamma, delta)
    (expected_slope,) = torch.autograd.grad(expected.sum(), leaf)
    # log1p has an error of up to 3 ulps, and exponentiation multiplies it by the exponent.
    exponent = gamma * torch.log1p(loss.double() / delta)
    digits = (6.0 + 4.0 * exponent) * torch.finfo(dtype).eps
    assert ((value.double() / expected.detach() - 1.0).abs() <= digits).all()
    assert ((slope.double() / expected_slope - 1.0).abs() <= digits).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_power_of_zero_and_of_huge_losses(interpret, dtype):
    large = 1e-3 * torch.finfo(dtype).max
    loss = torch.tensor([0.0, large, INF], dtype=dtype)
    value, slope = power(interpret, loss, 2.0, 0.5)
    assert value.tolist() == [0.0, INF, INF]
    assert slope[0] == 1.0  # gamma delta^(gamma - 1)
    value, slope = power(interpret, loss, 0.5, 0.5)
    assert value.tolist() == pytest.approx([0.0, math.sqrt(large), INF], rel=1e-5)
    expected = [math.sqrt(0.5), 0.5 / math.sqrt(large)]
    assert slope[:2].tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("amplification", AMPLIFICATIONS)
def test_amplify_keeps_nan(interpret, amplification):
    loss = torch.tensor([[NAN, -NAN]])
    parameters = LossSpec(amplification=amplification).amplification_parameters
    constants = interpret(interpreted.amplification_constants, amplification, parameters)
    value, slope = interpret(
        interpreted.formula, "amplify", loss, constants, amplification=amplification
    )
    assert value.isnan().all()
    assert slope.isnan().all() == (amplification != "none")  # else the slope is always 1


POINTWISE = COMBINED[1:]


def pointwise(interpret, d, metric, spec):
    """L and its slope, as the kernels compute them."""
    (parameter,) = spec.replace(terms=(Term(metric),)).metric_parameters
    return interpret(
        interpreted.formula,
        "pointwise_loss",
        d[None],
        metric=COMBINED.index(metric),
        parameter=parameter,
    )


@pytest.mark.parametrize("epsilon", [1e-3, 0.3])
@pytest.mark.parametrize("metric", POINTWISE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_pointwise(interpret, dtype, metric, epsilon):
    """At edge values and on both sides of 1e18, where Charbonnier changes to its limit."""
    tiny = torch.finfo(dtype).tiny
    some = [0.0, tiny, 1e-30, 1e-12, 1e-3, 0.5, 1.0, 3.0, 1e10, 0.9e18, 1.1e18, 1e19, INF]
    d = torch.tensor([*some, *(-value for value in some)], dtype=dtype)
    spec = LossSpec(charbonnier_epsilon=epsilon)
    loss, slope = pointwise(interpret, d, metric, spec)
    leaf = d.double().requires_grad_()
    expected = reference.pointwise_loss(metric, Images(leaf, torch.zeros_like(leaf)), spec)
    (expected_slope,) = torch.autograd.grad(expected.sum(), leaf)
    # In float32, squares may underflow, and overflow to infinity.
    wanted = expected.detach().to(dtype)
    # A metric with a parameter adds and rounds; the others round once.
    digits = 4 * torch.finfo(dtype).eps if metric in METRIC_PARAMETERS else 0.0
    torch.testing.assert_close(loss, wanted, rtol=digits, atol=4 * tiny)
    torch.testing.assert_close(slope, expected_slope.to(dtype), rtol=digits, atol=0.0)


@pytest.mark.parametrize("metric", POINTWISE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_pointwise_keeps_nan(interpret, dtype, metric):
    d = torch.tensor([NAN, -NAN], dtype=dtype)
    for result in pointwise(interpret, d, metric, LossSpec()):
        assert result.isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_charbonnier_does_not_cancel_for_small_losses(interpret, dtype):
    d = torch.logspace(-12.0, 12.0, 2_001, dtype=torch.float64).to(dtype)
    loss, slope = pointwise(interpret, d, "charbonnier", LossSpec())
    leaf = d.double().requires_grad_()
    expected = reference.charbonnier(leaf, LossSpec().charbonnier_epsilon)
    (expected_slope,) = torch.autograd.grad(expected.sum(), leaf)
    digits = 6 * torch.finfo(dtype).eps
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=digits, atol=0.0)
    torch.testing.assert_close(slope.double(), expected_slope, rtol=digits, atol=0.0)


def test_pointwise_terms_have_their_own_factors(interpret):
    d, epsilon = torch.linspace(-1.0, 1.0, 9), 0.3
    squared, absolute, charbonnier, value, slope = interpret(
        interpreted.formula, "three_terms", d[None], (3.0, 0.5, 2.0), charbonnier_epsilon=epsilon
    )
    leaf = d.clone().requires_grad_()
    expected = reference.charbonnier(leaf, epsilon)
    (expected_slope,) = torch.autograd.grad(expected.sum(), leaf)
    assert torch.equal(squared, d.square())
    assert torch.equal(absolute, d.abs())
    torch.testing.assert_close(charbonnier, expected.detach())
    torch.testing.assert_close(value, 3.0 * squared + 0.5 * absolute + 2.0 * charbonnier)
    torch.testing.assert_close(slope, 6.0 * d + 0.5 * d.sign() + 2.0 * expected_slope)


@pytest.mark.parametrize("metrics", ["mse", "ssim+l1", "l1+charbonnier", "+".join(COMBINED)])
def test_a_bit_mask_stands_for_the_terms(interpret, metrics):
    names = metrics.split("+")
    mask, count, indices = interpret(interpreted.bit_mask, metrics)
    assert mask == sum(1 << COMBINED.index(name) for name in names)
    assert count == len(names)
    assert indices == [*range(len(names))]


@pytest.mark.parametrize("dtype", DTYPES)
def test_gms(interpret, dtype):
    """By the magnitudes a and b: by_x is dL/da / a."""
    pairs = [(0.3, 0.4), (0.4, 0.3), (0.2, 0.2), (1e-3, 0.9), (0.0, 0.5), (0.5, 0.0), (0.0, 0.0)]
    a, b = torch.tensor(pairs, dtype=torch.float64).T.to(dtype).double().requires_grad_()
    c = 0.0026
    expected = (a - b) ** 2 / (a**2 + b**2 + c)
    slopes = torch.autograd.grad(expected.sum(), (a, b))
    given = torch.stack([a * a, b * b, a * a - b * b]).detach().to(dtype)
    loss, by_x, by_y = interpret(interpreted.formula, "gms", given, (c,))
    digits = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=digits, atol=digits**2)
    for found, slope, magnitude in ((by_x, slopes[0], a), (by_y, slopes[1], b)):
        has_direction = magnitude.detach() > 0
        wanted = (slope / magnitude).detach()[has_direction]
        found = found.double()
        torch.testing.assert_close(found[has_direction], wanted, rtol=digits, atol=digits)
        assert found.isfinite().all()


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
