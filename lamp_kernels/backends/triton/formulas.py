"""The mathematics of the losses for Triton, the same as in csrc/formulas.h.

Arguments are scalars or blocks, all of one dtype: float32 or float64. Where a function of the
header returns a struct, the one here returns a tuple of its members, in the same order.
tests/triton/test_triton_formulas.py checks these functions against the reference.

To add a pointwise metric, add its formula, a constant and a branch in `pointwise_loss`. To add an
amplification, add a branch in `amplify` and one in `amplification_constants`. Kernels and launches
stay as they are.

A metric's parameter is a constant of the kernel, because an argument would cost every launch of
every loss: a new value compiles the kernels again. The numbers of an amplification are arguments.
"""

from collections.abc import Sequence

import triton
import triton.language as tl

from lamp_kernels.spec import COMBINED, METRICS

# Kernels identify a metric by its index in METRICS, and the terms of a loss by a bit mask of these
# indices: bit 0 is SSIM, the only metric with a window.
METRIC_COUNT = tl.constexpr(len(COMBINED))
MSE = tl.constexpr(METRICS.index("mse"))
L1 = tl.constexpr(METRICS.index("l1"))
CHARBONNIER = tl.constexpr(METRICS.index("charbonnier"))


@triton.constexpr_function
def term_count(metrics):
    """The number of terms in the bit mask `metrics`."""
    return metrics.bit_count()


@triton.constexpr_function
def term_index(metrics, metric):
    """The index of this metric among the terms of the bit mask `metrics`."""
    return (metrics & ((1 << metric) - 1)).bit_count()


# ---- Numbers -------------------------------------------------------------------------------------


@triton.jit
def reciprocal(x):
    """1/x for x > 0.

    A float32 division takes nine instructions on NVIDIA GPUs, most of them for operands near the
    ends of the range. This takes four: rsqrt is one instruction, its square is within 3e-7 of 1/x
    (rsqrt.approx.ftz: 2^-22.9), and a Newton step leaves only rounding.
    """
    if x.dtype == tl.float64:
        inverse = 1.0 / x
    else:
        root = tl.rsqrt(x)
        inverse = root * root
        inverse += inverse * (1.0 - x * inverse)
    return inverse


@triton.jit
def at_least(value, least):
    """The greater of both. Keeps NaN, which a plain maximum hides on a GPU."""
    return tl.maximum(value, least, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def at_most(value, most):
    """The lesser of both. Keeps NaN."""
    return tl.minimum(value, most, propagate_nan=tl.PropagateNan.ALL)


# ---- Amplification -------------------------------------------------------------------------------


@triton.jit
def minus_log1p_minus(loss, inverse):
    """-log1p(-loss) for loss < 1, accurate to the last digits down to the smallest loss.

    1. u = 1 - loss is rounded. The rounding error is exactly (1 - u) - loss, so to first order
       log(1 - loss) = log(u) + ((1 - u) - loss)/u; the second order is below rounding.
    2. u = 2^k m with m in [sqrt(1/2), sqrt(2)), from the bits of u.
    3. log(m) = 2 atanh(s), s = (m - 1)/(m + 1), by its series; m - 1 is exact.
    `inverse` is 1/u, which the caller already has. On a GPU, tl.log has few digits near u = 1.
    """
    use_double: tl.constexpr = loss.dtype == tl.float64
    # The number of terms that full precision takes at |s| <= 3 - 2 sqrt(2): the first term left out
    # is s^10/11 = 2e-9 in float32, s^22/23 = 7e-19 in float64.
    terms: tl.constexpr = 11 if use_double else 5
    mantissa: tl.constexpr = 52 if use_double else 23
    bits: tl.constexpr = tl.int64 if use_double else tl.int32
    sqrt_half: tl.constexpr = 0x3FE6A09E667F3BCD if use_double else 0x3F3504F3
    fraction: tl.constexpr = 0xFFFFFFFFFFFFF if use_double else 0x7FFFFF
    u = 1.0 - loss
    lost = ((1.0 - u) - loss) * inverse
    i = u.to(bits, bitcast=True) - sqrt_half
    k = i >> mantissa
    m = ((i & fraction) + sqrt_half).to(loss.dtype, bitcast=True)
    f = m - 1.0
    s = f * reciprocal(f + 2.0)
    z = s * s
    series = tl.full(loss.shape, 1.0 / (2 * terms - 1), loss.dtype)
    for n in tl.static_range(2, terms):
        series = series * z + 1.0 / (2 * (terms - n) + 1)
    log_m = 2.0 * (s + s * (z * series))
    return -(k.to(loss.dtype) * 0.693147180559945309 + (log_m + lost))


@triton.jit
def scaled_expm1(y, scale):
    """scale (exp(y) - 1) for y >= 0, accurate to the last digits down to the smallest y.

    1. y = k log(2) + r, |r| <= log(2)/2, k by rounding.
    2. exp(r) - 1 by its series, r + r^2/2! + ... + r^n/n!.
    3. s = scale 2^k; the result is s (exp(r) - 1) + (s - scale). 2^k comes as two factors, because
       it may overflow where s does not.
    """
    use_double: tl.constexpr = y.dtype == tl.float64
    # The last power that full precision takes: the first term left out is 2e-8 r in float32,
    # 4e-18 r in float64.
    last: tl.constexpr = 13 if use_double else 7
    mantissa: tl.constexpr = 52 if use_double else 23
    bits: tl.constexpr = tl.int64 if use_double else tl.int32
    bias: tl.constexpr = 1023 if use_double else 127
    # log(2) in two parts; the first has few digits, so its product with k is exact.
    log2_high: tl.constexpr = 0.6931471803691238 if use_double else 0.693359375
    log2_low: tl.constexpr = 1.9082149292705877e-10 if use_double else -2.12194440e-4
    most: tl.constexpr = 1418.0 if use_double else 176.0  # beyond that, 2^k exceeds every scale
    bounded = at_most(y, most)
    k = tl.floor(bounded * 1.44269504088896341 + 0.5)
    r = (bounded - k * log2_high) - k * log2_low
    series = tl.full(y.shape, 1.0, y.dtype)  # 1 + r/2 (1 + r/3 (1 + ...)), from the inside
    for n in tl.static_range(2, last + 1):
        series = 1.0 + series * r * (1.0 / (last + 2 - n))
    exponent = k.to(bits)
    half = exponent >> 1
    s = scale * ((half + bias) << mantissa).to(y.dtype, bitcast=True)
    s *= ((exponent - half + bias) << mantissa).to(y.dtype, bitcast=True)
    above = s - scale  # infinite where the result is
    return tl.where(above - above == 0.0, s * (r * series) + above, above)


def amplification_constants(
    amplification: str, parameters: Sequence[float]
) -> tuple[float, float, float]:
    """The numbers that `amplify` reads, computed on the host from the amplification's options."""
    if amplification == "log":
        (eps,) = parameters
        return 1.0 - eps, 1.0 / eps, 0.0
    if amplification == "power":
        gamma, delta = parameters
        return gamma, 1.0 / delta, delta**gamma
    return 0.0, 0.0, 0.0


@triton.jit
def amplify(loss, amplification: tl.constexpr, constants):
    """A(L) and A'(L). constants: those of `amplification_constants`. NaN stays NaN."""
    if amplification == "log":
        knee = constants[0]
        steepest = constants[1]
        below = at_most(loss, knee)
        above = at_least(loss - knee, 0.0)
        inverse = reciprocal(1.0 - below)
        value = above * steepest + minus_log1p_minus(below, inverse)
        slope = tl.where(loss > knee, steepest, inverse)  # NaN is not above the knee
    elif amplification == "power":
        gamma = constants[0]
        inverse_delta = constants[1]
        scale = constants[2]
        z = loss * inverse_delta
        inverse = reciprocal(1.0 + z)
        value = scaled_expm1(-gamma * minus_log1p_minus(-z, inverse), scale)
        slope = gamma * inverse_delta * inverse * (value + scale)
        value = tl.where(z - z == 0.0, value, z)
    else:
        tl.static_assert(amplification == "none")
        value = loss
        slope = tl.full(loss.shape, 1.0, loss.dtype)
    return value, slope


# ---- Pointwise losses ----------------------------------------------------------------------------


@triton.jit
def squared_error(d):
    """L and dL/dd, d = (x - y)/data_range."""
    return d * d, d + d


@triton.jit
def absolute_error(d):
    """L and dL/dd. The slope is 0 at d = 0; at NaN it is d, so NaN."""
    return tl.where(d < 0.0, -d, d), tl.where(d > 0.0, 1.0, tl.where(d < 0.0, -1.0, d))


@triton.jit
def charbonnier(d, e: tl.constexpr):
    """L and dL/dd of (sqrt(d^2 + e^2) - e)/(sqrt(1 + e^2) - e).

    Formed without subtracting nearly equal numbers; where d^2 overflows, its limit.
    """
    norm: tl.constexpr = (1.0 + e * e) ** 0.5 + e  # 1/(sqrt(1 + e^2) - e)
    huge = tl.abs(d) > 1e18
    small = tl.where(huge, 0.0, d)
    root = tl.sqrt(small * small + e * e)
    far_loss, far_slope = absolute_error(d)
    loss = tl.where(huge, far_loss, small * small / (root + e))
    return norm * loss, norm * tl.where(huge, far_slope, small / root)


@triton.jit
def pointwise_loss(d, metric: tl.constexpr, parameter: tl.constexpr):
    """L and dL/dd of one metric. parameter: the option that its formula reads, or 0."""
    if metric == MSE:
        loss, dloss_dd = squared_error(d)
    elif metric == L1:
        loss, dloss_dd = absolute_error(d)
    else:
        tl.static_assert(metric == CHARBONNIER)
        loss, dloss_dd = charbonnier(d, parameter)
    return loss, dloss_dd


@triton.jit
def pointwise_terms(
    d, factors, metrics: tl.constexpr, metric_parameters: tl.constexpr,
    amplification: tl.constexpr, constants,
):  # fmt: skip
    """All pointwise terms of a pixel: A(L) of each, the sum of factor A(L), and its slope by d.

    factors, metric_parameters: one per term of `metrics`, SSIM included.
    """
    amplified = ()
    value = tl.zeros_like(d)
    slope = tl.zeros_like(d)
    for metric in tl.static_range(1, METRIC_COUNT):
        if (metrics >> metric) & 1:
            factor = factors[term_index(metrics, metric)]
            loss, dloss_dd = pointwise_loss(
                d, metric, metric_parameters[term_index(metrics, metric)]
            )
            amplified_loss, steepness = amplify(loss, amplification, constants)
            value += factor * amplified_loss
            slope += factor * steepness * dloss_dd
            amplified = amplified + (amplified_loss,)
    return amplified, value, slope


# ---- GMS -----------------------------------------------------------------------------------------


@triton.jit
def gms(a2, b2, a2_minus_b2, c):
    """(a - b)^2/(a^2 + b^2 + c), a = |grad x|, b = |grad y|, and by_x, by_y.

    dL/d(grad x) = by_x grad x, and the same of y. a - b is (a^2 - b^2)/(a + b), where the caller
    forms a^2 - b^2 without subtracting nearly equal numbers. Where a or b is 0, the gradient has no
    direction, and its derivative counts as 0.
    """
    a = tl.sqrt(a2)
    b = tl.sqrt(b2)
    total = a + b
    apart = a2_minus_b2 / tl.where(total == 0.0, 1.0, total)
    inverse = reciprocal(a2 + b2 + c)
    loss = apart * apart * inverse
    along_x = tl.where(a == 0.0, 0.0, apart / tl.where(a == 0.0, 1.0, a))
    along_y = tl.where(b == 0.0, 0.0, apart / tl.where(b == 0.0, 1.0, b))
    return loss, 2.0 * inverse * (along_x - loss), -2.0 * inverse * (along_y + loss)


# ---- SSIM ----------------------------------------------------------------------------------------


@triton.jit
def ssim(mean_d, mean_s, square_d, square_s, c1, c2, ssim_scale, shift_d, shift_s):
    """The loss ssim_scale T, T = p + q - p q = 1 - SSIM, and p, q, 1/M, 1/V, mu_d, mu_s.

    mean_v, square_v: G*(v - shift_v) and G*(v - shift_v)^2 at one window position, for v = d =
    x - y and v = s = x + y in units of data_range.
    """
    var_d = at_least(square_d - mean_d * mean_d, 0.0)
    var_s = at_least(square_s - mean_s * mean_s, 0.0)
    mu_d = mean_d + shift_d
    mu_s = mean_s + shift_s
    mu_d2 = mu_d * mu_d
    inverse_m = reciprocal(0.5 * (mu_d2 + mu_s * mu_s) + c1)
    inverse_v = reciprocal(0.5 * (var_d + var_s) + c2)
    p = mu_d2 * inverse_m
    q = var_d * inverse_v
    loss = ssim_scale * at_least(p + q * (1.0 - p), 0.0)
    return loss, p, q, inverse_m, inverse_v, mu_d, mu_s


@triton.jit
def ssim_adjoint(mean_d, mean_s, p, q, inverse_m, inverse_v, mu_d, mu_s, slope, ssim_scale):
    """The inputs d, s, dd, ss of the window's adjoint. The gradient is

    dx = G^T*(s + d) + 2 s' G^T*ss + 2 d' G^T*dd, and dy with the signs of d and dd flipped; s' and
    d' are the pixel's sum and difference minus their shifts.

    slope: the weight of this position times A'(L). The derivative is that of the unclamped
    variances.
    """
    g = ssim_scale * slope
    dloss_dp = g * (1.0 - q)
    dloss_dq = g * (1.0 - p)
    half_q = 0.5 * q
    qv = dloss_dq * inverse_v
    dd = qv * (1.0 - half_q)
    ss = -(qv * half_q)
    pm = dloss_dp * inverse_m
    d = pm * mu_d * (2.0 - p) - (mean_d + mean_d) * dd
    s = -(pm * p * mu_s) - (mean_s + mean_s) * ss
    return d, s, dd, ss
