"""csrc/formulas.h against lamp_kernels.reference, value by value, including edge cases."""

import ctypes
import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from lamp_kernels import reference
from lamp_kernels import windows as lamp_windows
from lamp_kernels.spec import (
    AMPLIFICATIONS,
    COMBINED,
    KERNEL_METRICS,
    METRIC_PARAMETERS,
    PADDINGS,
    LossSpec,
    Term,
)
from lamp_kernels.tensors import Images

np = pytest.importorskip("numpy", reason="numpy is not installed")

pytestmark = pytest.mark.cpu_only("tests the C++ header compiled for the CPU")

ROOT = Path(__file__).resolve().parents[1]
DTYPES = [np.float32, np.float64]
C_NAMES = {np.float32: "float", np.float64: "double"}
INF, NAN = math.inf, math.nan


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    """call(name, dtype, *arguments): numbers are passed as int or double, arrays by address."""
    if not shutil.which("g++"):
        pytest.skip("g++ is not installed")
    library = tmp_path_factory.mktemp("formulas") / "formulas.so"
    # The floating-point flags of the extension, which are part of what is tested.
    flags = ["-O2", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
    source = ROOT / "tests" / "cpu" / "formulas.cpp"
    command = ["g++", "-std=c++20", *flags, "-fPIC", "-shared", f"-I{ROOT / 'csrc'}", str(source)]
    subprocess.run([*command, "-o", str(library)], check=True)
    functions = ctypes.CDLL(str(library))

    def call(name, dtype, *arguments):
        def convert(argument):
            if isinstance(argument, np.ndarray):
                assert argument.dtype == dtype
                assert argument.flags.c_contiguous
                return ctypes.c_void_p(argument.ctypes.data)
            return ctypes.c_double(argument) if isinstance(argument, float) else argument

        getattr(functions, f"{name}_{C_NAMES[dtype]}")(*map(convert, arguments))

    return call


def ulps(found, expected):
    """Error in units in the last place of `found`'s dtype; 0 if equal or both NaN."""
    spacing = np.spacing(np.abs(expected).astype(found.dtype)).astype(expected.dtype)
    with np.errstate(invalid="ignore"):
        error = np.abs(found.astype(expected.dtype) - expected) / spacing
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    return np.where(same, 0.0, error).astype(np.float64)


# ---- Amplification -----------------------------------------------------------------------------


def losses_below_one(dtype):
    smallest = math.log2(np.finfo(dtype).smallest_normal)
    return np.unique(
        np.concatenate(
            [
                np.linspace(0.0, 0.999, 200_001),
                2.0 ** np.linspace(smallest, 0.0, 200_001)[:-1],  # all exponents
                1.0 - 2.0 ** np.linspace(-20.0, -1.0, 20_001),  # approaching 1
                # Where the reduced argument moves to another power of two.
                1.0 - math.sqrt(0.5) * 0.5 ** np.arange(8.0),
            ]
        ).astype(dtype)
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_log1p_is_accurate_to_a_few_ulps(call, dtype):
    loss = losses_below_one(dtype)
    value = np.empty_like(loss)
    call("minus_log1p_minus", dtype, len(loss), loss, value)
    # For float64 the expected value needs a longer type. On platforms without one, NumPy's own
    # error adds half an ulp.
    wide = np.float64 if dtype == np.float32 else np.longdouble
    error = ulps(value, -np.log1p(-loss.astype(wide)))
    worst = int(error.argmax())
    print(f"{C_NAMES[dtype]}: {error[worst]:.2f} ulp at L = {loss[worst]!r}")
    assert error[worst] <= 3.0


# Numbered as in csrc/params.h.
KINDS = {"none": 0, "log": 1, "power": 2}


def test_the_header_and_python_list_the_same_names():
    header = (ROOT / "csrc" / "params.h").read_text(encoding="utf-8")
    names = re.findall(r"constexpr const char\* k(\w+)Names\[\] = \{(.*?)\};", header, re.DOTALL)
    found = {kind: tuple(re.findall(r'"(\w+)"', listed)) for kind, listed in names}
    assert found["Metric"] == KERNEL_METRICS
    assert found["Amplify"] == tuple(KINDS)
    assert set(KINDS) == set(AMPLIFICATIONS)
    assert found["Border"] == PADDINGS


def amplified(call, loss, spec):
    """A(L) and its slope, as computed by the header."""
    value, slope = np.empty_like(loss), np.empty_like(loss)
    parameters = (*spec.amplification_parameters, 0.0, 0.0)[:2]
    kind = KINDS[spec.amplification]
    call("amplify", loss.dtype.type, len(loss), kind, *parameters, loss, value, slope)
    return value, slope


def reference_amplify(loss, spec):
    leaf = torch.from_numpy(loss.astype(np.float64)).requires_grad_()
    value = reference.amplify(leaf, spec)
    (slope,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach().numpy(), slope.numpy()


def edge_losses(dtype, eps):
    tiny = np.finfo(dtype).smallest_subnormal
    knee = dtype(1.0 - eps)
    around = [knee, np.nextafter(knee, dtype(0)), np.nextafter(knee, dtype(2))]
    fixed = [0.0, -0.0, tiny, 5 * tiny, 1e-40, 1e-30, 1e-8, 1e-3, 0.1, 0.5, 0.9]
    above = [1.0, np.nextafter(dtype(1), dtype(0)), np.nextafter(dtype(1), dtype(2)), 2.0, 1e30]
    return np.array([*fixed, *around, *above, INF], dtype=dtype)


@pytest.mark.parametrize("eps", [0.5, 1e-1, 1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("kind", ["log", "none"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_amplify(call, dtype, kind, eps):
    loss, log = edge_losses(dtype, eps), kind == "log"
    spec = LossSpec(amplification=kind, eps=eps)
    value, slope = amplified(call, loss, spec)
    expected, expected_slope = reference_amplify(loss, spec)
    # A kernel's knee is the floating-point number nearest to 1 - eps, off by up to half an ulp of
    # 1. That changes the slope at the knee, and the value from there on to second order.
    resolution = np.finfo(dtype).eps
    shift = log * 0.5 * resolution / eps
    second_order = np.where(loss >= dtype(1.0 - eps), shift**2 / 2, 0.0)
    finite = np.isfinite(loss)
    assert np.array_equal(value[~finite], expected[~finite])
    error = np.abs(value[finite] - expected[finite])
    spacing = np.spacing(np.abs(value[finite]))
    assert (error <= 4 * spacing + second_order[finite]).all()
    near_knee = np.abs(loss - (1.0 - eps)) <= 2 * resolution
    assert (np.abs(slope / expected_slope - 1.0) <= 4 * resolution + 2 * shift * near_knee).all()


@pytest.mark.parametrize("delta", [1e-3, 0.03, 0.5, 1e3])
@pytest.mark.parametrize("gamma", [1e-3, 0.5, 1.0, 2.0, 3.3, 8.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_power(call, dtype, gamma, delta):
    """Accurate to the last digits for small losses too, against the definition in a longer type."""
    loss = np.logspace(-12, 1.5, 20_001).astype(dtype)  # for smaller losses A is subnormal
    value, slope = amplified(call, loss, LossSpec(amplification="power", gamma=gamma, delta=delta))
    wide = np.float64 if dtype == np.float32 else np.longdouble
    g, d = wide(gamma), wide(delta)
    exponent = g * np.log1p(loss.astype(wide) / d)
    # log1p has an error of up to 3 ulps, and exponentiation multiplies it by the exponent.
    digits = (6 + 4 * exponent) * np.finfo(dtype).eps
    assert (np.abs(value / (d**g * np.expm1(exponent)) - 1) <= digits).all()
    assert (np.abs(slope / (g * (loss.astype(wide) + d) ** (g - 1)) - 1) <= digits).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_power_of_zero_and_overflow(call, dtype):
    large = 1e-3 * np.finfo(dtype).max
    loss = np.array([0.0, large, INF], dtype=dtype)
    value, slope = amplified(call, loss, LossSpec(amplification="power"))
    assert value.tolist() == [0.0, INF, INF]
    assert slope[0] == 1.0  # gamma delta^(gamma - 1)
    value, slope = amplified(call, loss, LossSpec(amplification="power", gamma=0.5))
    assert value[:2] == pytest.approx([0.0, math.sqrt(large)], rel=1e-5)
    assert slope[:2] == pytest.approx([math.sqrt(0.5), 0.5 / math.sqrt(large)], rel=1e-5)


@pytest.mark.parametrize("kind", AMPLIFICATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_amplify_keeps_nan(call, dtype, kind):
    loss = np.array([NAN, -NAN], dtype=dtype)
    value, slope = amplified(call, loss, LossSpec(amplification=kind))
    assert np.isnan(value).all()
    assert np.isnan(slope).all() == (kind != "none")  # without amplification, the slope is always 1


# ---- Pointwise losses --------------------------------------------------------------------------


POINTWISE = COMBINED[1:]


def pointwise(call, d, metric):
    """L and its slope, as computed by the header with the metric's default parameter."""
    loss, slope = np.empty_like(d), np.empty_like(d)
    (parameter,) = LossSpec(terms=(Term(metric),)).metric_parameters
    number = KERNEL_METRICS.index(metric)
    call("pointwise", d.dtype.type, len(d), number, parameter, d, loss, slope)
    return loss, slope


@pytest.mark.parametrize("metric", POINTWISE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_pointwise(call, dtype, metric):
    tiny = np.finfo(dtype).smallest_subnormal
    some = [0.0, tiny, 1e-30, 1e-3, 0.5, 1.0, 3.0, 1e10, INF]
    d = np.array([*some, *(-value for value in some)], dtype=dtype)
    loss, slope = pointwise(call, d, metric)

    leaf = torch.from_numpy(d).requires_grad_()
    expected = reference.pointwise_loss(metric, Images(leaf, torch.zeros_like(leaf)), LossSpec())
    (expected_slope,) = torch.autograd.grad(expected.sum(), leaf)
    # A metric with a parameter adds and rounds; the others are exact.
    digits = 4 * np.finfo(dtype).eps if metric in METRIC_PARAMETERS else 0.0
    np.testing.assert_allclose(loss, expected.detach().numpy(), digits)
    np.testing.assert_allclose(slope, expected_slope.numpy(), digits)


@pytest.mark.parametrize("dtype", DTYPES)
def test_charbonnier_does_not_cancel_for_small_losses(call, dtype):
    """Accurate to the last digits for small losses too, against the definition in a longer type."""
    d = np.logspace(-12, 12, 10_001).astype(dtype)
    loss, slope = pointwise(call, d, "charbonnier")
    e = LossSpec().charbonnier_epsilon
    wide = np.longdouble if dtype == np.float64 else np.float64
    root = np.sqrt(d.astype(wide) ** 2 + wide(e) ** 2)
    norm = np.sqrt(1 + wide(e) ** 2) + e
    digits = 6 * np.finfo(dtype).eps
    np.testing.assert_allclose(loss, norm * d.astype(wide) ** 2 / (root + e), digits)
    np.testing.assert_allclose(slope, norm * d / root, digits)


@pytest.mark.parametrize("metric", POINTWISE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_pointwise_keeps_nan(call, dtype, metric):
    d = np.array([NAN, -NAN], dtype=dtype)
    loss, slope = pointwise(call, d, metric)
    assert np.isnan(loss).all()
    assert np.isnan(slope).all()


# ---- SSIM --------------------------------------------------------------------------------------


OPTIONS = LossSpec(window_size=3, sigma=1.5, padding="valid")
TAPS = np.outer(lamp_windows.gaussian(3, 1.5), lamp_windows.gaussian(3, 1.5))
# Noise between the images, their brightness, and an offset between them.
WINDOWS = {
    "alike": (1e-3, 0.5, 0.0),
    "far apart": (0.5, 0.5, 0.0),
    "dark": (1e-3, 1e-3, 0.0),
    "black and white": (0.0, 0.0, 1.0),
    "both black": (0.0, 0.0, 0.0),
    "equal": (0.0, 0.7, 0.0),
    "another brightness": (1e-3, 0.2, 0.6),
}


def windows(kind):
    """Pairs of images the size of a single window, (n, 1, 3, 3), in float64."""
    apart, brightness, offset = WINDOWS[kind]
    random = np.random.default_rng(1)
    y = brightness * (0.5 + 0.5 * random.random((50, 1, 3, 3)))
    return y + offset + apart * random.standard_normal(y.shape), y


@pytest.mark.parametrize("a", [0.5, 1.0])
@pytest.mark.parametrize("shifts", [(0.0, 0.0), "mean"])
@pytest.mark.parametrize("kind", WINDOWS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_ssim(call, dtype, kind, shifts, a):
    """Loss and gradient of one window from its moments, as a kernel uses the formulas."""
    x, y = windows(kind)
    leaves = [torch.from_numpy(image).requires_grad_() for image in (x, y)]
    expected = a * reference.ssim_dissimilarity(Images(leaves[0], leaves[1]), OPTIONS)
    gradients = [g.numpy() for g in torch.autograd.grad(expected.sum(), leaves)]

    d, s = x - y, x + y
    shift_d, shift_s = (d.mean(), s.mean()) if shifts == "mean" else shifts
    shift_d, shift_s = float(dtype(shift_d)), float(dtype(shift_s))
    d, s = d - shift_d, s - shift_s
    mean = [(TAPS * v).sum(axis=(1, 2, 3)) for v in (d, s, d * d, s * s)]
    moments = np.ascontiguousarray(np.stack(mean, axis=1).astype(dtype))
    constants = np.array([OPTIONS.k1**2, OPTIONS.k2**2, a, shift_d, shift_s], dtype=dtype)
    loss, h = np.empty(len(moments), dtype), np.empty_like(moments)
    call("ssim", dtype, len(moments), moments, constants, loss, h)

    h_d, h_s, h_dd, h_ss = h.astype(np.float64).T.reshape(4, -1, 1, 1, 1)
    found = [TAPS * (h_s + sign * h_d + 2 * s * h_ss + sign * 2 * d * h_dd) for sign in (1, -1)]
    # The moments are rounded first: far from the shift, that already loses digits.
    limit = 1e-9 if dtype == np.float64 else 2e-5 if shifts == "mean" else 5e-2
    floor = np.finfo(dtype).eps ** 2 if dtype == np.float64 else 1e-9
    np.testing.assert_allclose(loss, expected.detach().numpy().ravel(), rtol=limit, atol=floor)
    for one, other in zip(found, gradients, strict=True):
        error, norm = np.linalg.norm(one - other), np.linalg.norm(other)
        # A pixel's gradient is a difference of terms that may be nearly equal.
        terms = np.linalg.norm(h_d) + np.linalg.norm(h_s)
        assert error <= max(limit * norm, np.finfo(dtype).eps * terms, floor)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_negative_variance_is_clamped_but_keeps_its_derivative(call, dtype):
    """As in the reference, a variance that rounding puts below 0 counts as 0."""
    moments = np.array(
        [
            [0.1, 0.5, 0.01 - 1e-6, 0.30],
            [0.0, 0.5, -1e-7, 0.25 - 1e-5],
            [0.2, 0.0, 0.05, -1e-6],
            [0.0, 0.0, 0.0, 0.0],
        ],
        dtype=dtype,
    )
    constants = np.array([1e-4, 9e-4, 0.5, 0.0, 0.0], dtype=dtype)
    loss, h = np.empty(len(moments), dtype), np.empty_like(moments)
    call("ssim", dtype, len(moments), moments, constants, loss, h)

    leaf = torch.from_numpy(moments.astype(np.float64)).requires_grad_()
    mean_d, mean_s, square_d, square_s = leaf.unbind(1)
    var_d = reference._at_least_zero(square_d - mean_d.square())
    var_s = reference._at_least_zero(square_s - mean_s.square())
    c1, c2, a = constants[:3].astype(np.float64)
    p = mean_d.square() / ((mean_d.square() + mean_s.square()) / 2 + c1)
    q = var_d / ((var_d + var_s) / 2 + c2)
    expected = a * (p + q - p * q)
    (gradient,) = torch.autograd.grad(expected.sum(), leaf)
    limit = 1e-12 if dtype == np.float64 else 1e-4  # 1 - 1e-5 has 2 fewer digits than 1e-5
    np.testing.assert_allclose(loss, expected.detach().numpy(), rtol=limit)
    np.testing.assert_allclose(h, gradient.numpy(), rtol=limit, atol=limit)
    assert (loss >= 0).all()


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("dtype", DTYPES)
def test_ssim_keeps_nan(call, dtype, value):
    moments = np.full((4, 4), 0.1, dtype=dtype)
    np.fill_diagonal(moments, value)
    if math.isinf(value):  # an infinite pixel makes the mean and the mean square infinite
        moments[:, 2:] = np.where(moments[:, :2] == INF, INF, moments[:, 2:])
        moments = np.ascontiguousarray(moments[:2])
    constants = np.array([1e-4, 9e-4, 0.5, 0.0, 0.0], dtype=dtype)
    loss, h = np.empty(len(moments), dtype), np.empty_like(moments)
    call("ssim", dtype, len(moments), moments, constants, loss, h)
    assert np.isnan(loss).all()
    assert np.isnan(h).any(axis=1).all()


# ---- GMS ---------------------------------------------------------------------------------------


GMS_CONSTANT = LossSpec().gms_constant


def gms(call, gradients):
    """L and its slopes by grad x and grad y, as computed by the header; gradients: (n, 4)."""
    x, y = gradients[:, :2], gradients[:, 2:]
    rows = np.ascontiguousarray(np.concatenate([x, y, x - y], axis=1))
    loss, by = np.empty(len(rows), rows.dtype), np.empty((len(rows), 2), rows.dtype)
    call("gms", rows.dtype.type, len(rows), rows, GMS_CONSTANT, loss, by)
    return loss, by[:, :1] * x, by[:, 1:] * y


@pytest.mark.parametrize("apart", [1.0, 1e-2, 1e-5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gms(call, dtype, apart):
    random = np.random.default_rng(1)
    y = 10.0 ** random.uniform(-4, 0, (1000, 1)) * random.standard_normal((1000, 2))
    x = y + apart * np.abs(y) * random.standard_normal((1000, 2))
    gradients = np.concatenate([x, y], axis=1).astype(dtype)
    loss, by_x, by_y = gms(call, gradients)
    # The definition, in a longer type. Even that loses digits of a - b.
    wide = gradients.astype(np.longdouble)
    a, b = np.hypot(wide[:, 0], wide[:, 1]), np.hypot(wide[:, 2], wide[:, 3])
    below = a**2 + b**2 + GMS_CONSTANT
    expected = (a - b) ** 2 / below
    slope_a = 2 * (a - b) / below - 2 * a * expected / below
    slope_b = -2 * (a - b) / below - 2 * b * expected / below
    # a - b is a small difference of its own where the gradients differ in direction.
    floor = 20 * np.finfo(dtype).eps * np.linalg.norm(wide[:, :2] - wide[:, 2:], axis=1)
    floor += 4 * np.finfo(np.longdouble).eps * (a + b)
    limit = 20 * np.finfo(dtype).eps * expected + (2 * np.abs(a - b) + floor) * floor / below
    assert (np.abs(loss - expected) <= limit).all()
    limit = (20 * np.finfo(dtype).eps * np.abs(slope_a) + 2 * floor / below)[:, None]
    assert (np.abs(by_x - slope_a[:, None] * wide[:, :2] / a[:, None]) <= limit).all()
    assert (np.abs(by_y - slope_b[:, None] * wide[:, 2:] / b[:, None]) <= limit).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_gms_where_a_gradient_is_zero(call, dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    rows = [[0, 0, 0, 0], [0, 0, 0.5, 0], [0, 0.5, 0, 0], [tiny, 0, 0, 0], [tiny, 0, 0.5, 0]]
    loss, by_x, by_y = gms(call, np.array(rows, dtype=dtype))
    one = 0.25 / (0.25 + GMS_CONSTANT)
    np.testing.assert_allclose(loss, [0, one, one, 0, one], 4 * np.finfo(dtype).eps)
    assert np.isfinite(by_x).all()
    assert np.isfinite(by_y).all()
    assert not by_x[[0, 1, 3]].any()  # without a direction, or without a difference
    assert by_y[1, 0] > 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_gms_keeps_nan(call, dtype):
    rows = np.full((4, 4), 0.1, dtype=dtype)
    np.fill_diagonal(rows, NAN)
    loss, by_x, by_y = gms(call, rows)
    assert np.isnan(loss).all()
    assert np.isnan(by_x).all()
    assert np.isnan(by_y).all()
