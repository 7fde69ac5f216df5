"""The shape of A for any loss; every backend shares one implementation."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given

from lamp_kernels import amplify
from lamp_kernels.spec import DELTAS, GAMMAS

losses_in_unit = st.floats(0.0, 0.999)
any_loss = st.floats(0.0, 10.0)
eps_values = st.floats(1e-4, 0.5)


def a(loss: float, eps: float) -> float:
    return amplify(torch.tensor(loss, dtype=torch.float64), eps=eps).item()


@given(losses_in_unit, eps_values)
def test_amplification_is_the_logarithm_below_the_knee(loss, eps):
    if loss <= 1 - eps:
        assert a(loss, eps) == pytest.approx(-math.log1p(-loss), rel=1e-14, abs=1e-300)


@given(any_loss, eps_values)
def test_amplification_is_its_tangent_above_the_knee(loss, eps):
    if loss > 1 - eps:
        assert a(loss, eps) == pytest.approx(-math.log(eps) + (loss - (1 - eps)) / eps, rel=1e-12)


@given(any_loss, any_loss, eps_values)
def test_amplification_is_monotone(loss, other, eps):
    low, high = sorted([loss, other])
    assert a(low, eps) <= a(high, eps)


@given(any_loss, any_loss, st.floats(0.0, 1.0), eps_values)
def test_amplification_is_convex(loss, other, share, eps):
    between = share * loss + (1 - share) * other
    chord = share * a(loss, eps) + (1 - share) * a(other, eps)
    assert a(between, eps) <= chord * (1 + 1e-12) + 1e-12


@given(any_loss, eps_values)
def test_amplification_is_at_or_above_the_identity(loss, eps):
    assume(loss == 0.0 or loss > 1e-300)  # subnormal numbers may be flushed to zero
    assert a(loss, eps) >= loss * (1 - 1e-15)


@pytest.mark.parametrize("eps", [0.5, 2.0**-10])
def test_the_slope_at_the_knee_and_at_nan(eps):
    loss = torch.tensor([1.0 - eps, 1.0, float("nan")], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(amplify(loss, eps=eps).sum(), loss)
    assert slope[:2].tolist() == [1.0 / eps, 1.0 / eps]
    assert slope[2].isnan()


def test_amplification_of_nan_and_of_very_large_losses():
    values = amplify(torch.tensor([float("nan"), float("inf"), 1e30]))
    assert values[0].isnan()
    assert values[1].isinf()
    assert values[2].isfinite()


def test_power_by_default_adds_the_square_of_the_loss():
    loss = torch.rand(100, dtype=torch.float64)
    torch.testing.assert_close(amplify(loss, "power"), loss + loss**2, rtol=1e-14, atol=0)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 3.0])
def test_power_matches_its_definition_and_has_a_finite_slope_at_0(gamma):
    loss = torch.tensor([0.0, 1e-3, 0.7, 40.0], dtype=torch.float64, requires_grad=True)
    value = amplify(loss, "power", gamma=gamma, delta=0.01)
    torch.testing.assert_close(value, (loss + 0.01) ** gamma - 0.01**gamma)
    (slope,) = torch.autograd.grad(value.sum(), loss)
    torch.testing.assert_close(slope, gamma * (loss.detach() + 0.01) ** (gamma - 1))


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize("gamma", GAMMAS)
def test_power_at_the_ends_of_its_range(gamma, delta, dtype, limit):
    """Finite and accurate wherever the result is a number of the dtype."""
    np = pytest.importorskip("numpy", reason="numpy is not installed")
    loss = torch.tensor([0.0, 1e-6, 1.0, 1e4], dtype=dtype, requires_grad=True)
    value = amplify(loss, "power", gamma=gamma, delta=delta)
    (slope,) = torch.autograd.grad(value.sum(), loss)
    exact = loss.detach().cpu().double().numpy().astype(np.longdouble)
    g, d = np.longdouble(gamma), np.longdouble(delta)
    expected = d**g * np.expm1(g * np.log1p(exact / d))
    expected_slope = g * (exact + d) ** (g - 1)
    for found, wanted in ((value.detach(), expected), (slope, expected_slope)):
        wanted = torch.from_numpy(wanted.astype(np.float64))
        assert wanted.max() < torch.finfo(dtype).max
        torch.testing.assert_close(found.cpu().double(), wanted, rtol=limit, atol=0.0)


def test_amplification_none_is_the_identity():
    loss = torch.rand(5)
    assert torch.equal(amplify(loss, amplification="none"), loss)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_amplified_in_float32(dtype):
    loss = torch.tensor([0.25, 0.9], dtype=dtype)
    found = amplify(loss)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, amplify(loss.float()), rtol=0, atol=0)
