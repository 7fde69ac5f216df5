"""The mathematics of the losses for Triton: csrc/formulas.h, function by function.

Arguments are numbers or blocks of them, all of one dtype: float32 or float64. Where a function of
the header returns a struct, the one here returns its members as a tuple, in their order.
tests/triton/test_triton_formulas.py holds both against the reference.
"""

import triton
import triton.language as tl

# ---- Numbers -------------------------------------------------------------------------------------


@triton.jit
def reciprocal(x):
    """1/x for x > 0.

    A division of float32 takes nine instructions on NVIDIA GPUs, most for operands near the ends of
    the range. This takes four: rsqrt is one, its square is within 3e-7 of 1/x (rsqrt.approx.ftz:
    2^-22.9), and a Newton step leaves rounding.
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
    """The greater of both; NaN stays, which a plain maximum hides on a GPU."""
    return tl.maximum(value, least, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def at_most(value, most):
    """The lesser of both; NaN stays."""
    return tl.minimum(value, most, propagate_nan=tl.PropagateNan.ALL)


# ---- Amplification -------------------------------------------------------------------------------


@triton.jit
def minus_log1p_minus(loss, inverse):
    """-log1p(-loss) for 0 <= loss < 1, to the last digits down to the smallest loss.

    1. u = 1 - loss is rounded; what it lost is (1 - u) - loss, exactly, so
       log(1 - loss) = log(u) + ((1 - u) - loss)/u to first order; the second is below rounding.
    2. u = 2^k m with m in [sqrt(1/2), sqrt(2)), by the bits of u.
    3. log(m) = 2 atanh(s), s = (m - 1)/(m + 1), by its series; m - 1 is exact.
    `inverse` is 1/u, which the caller has. tl.log has few digits near u = 1, on a GPU.
    """
    wide: tl.constexpr = loss.dtype == tl.float64
    # The series' terms that full precision takes at |s| <= 3 - 2 sqrt(2): the first left out is
    # s^10/11 = 2e-9 in float32, s^22/23 = 7e-19 in float64.
    terms: tl.constexpr = 11 if wide else 5
    mantissa: tl.constexpr = 52 if wide else 23
    bits: tl.constexpr = tl.int64 if wide else tl.int32
    sqrt_half: tl.constexpr = 0x3FE6A09E667F3BCD if wide else 0x3F3504F3
    fraction: tl.constexpr = 0xFFFFFFFFFFFFF if wide else 0x7FFFFF
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
def amplify(loss, log: tl.constexpr, knee, steepest):
    """A(L) and A'(L). knee: 1 - eps, steepest: 1/eps. NaN stays NaN: it is not above the knee."""
    if log:
        below = at_most(loss, knee)
        above = at_least(loss - knee, 0.0)
        inverse = reciprocal(1.0 - below)
        value = above * steepest + minus_log1p_minus(below, inverse)
        slope = tl.where(loss > knee, steepest, inverse)
    else:
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
    """L and dL/dd; the slope is 0 at d = 0, and NaN at NaN: there it is d."""
    return tl.where(d < 0.0, -d, d), tl.where(d > 0.0, 1.0, tl.where(d < 0.0, -1.0, d))


# ---- SSIM ----------------------------------------------------------------------------------------


@triton.jit
def ssim(mean_d, mean_s, square_d, square_s, c1, c2, a, level_d, level_s):
    """The loss a T, T = p + q - p q = 1 - SSIM, and p, q, 1/M, 1/V, mu_d, mu_s.

    mean_v, square_v: G*(v - level) and G*(v - level)^2 at one window position, of v = d = x - y and
    v = s = x + y in units of data_range.
    """
    var_d = at_least(square_d - mean_d * mean_d, 0.0)
    var_s = at_least(square_s - mean_s * mean_s, 0.0)
    mu_d = mean_d + level_d
    mu_s = mean_s + level_s
    mu_d2 = mu_d * mu_d
    inverse_m = reciprocal(0.5 * (mu_d2 + mu_s * mu_s) + c1)
    inverse_v = reciprocal(0.5 * (var_d + var_s) + c2)
    p = mu_d2 * inverse_m
    q = var_d * inverse_v
    loss = a * at_least(p + q * (1.0 - p), 0.0)
    return loss, p, q, inverse_m, inverse_v, mu_d, mu_s


@triton.jit
def ssim_adjoint(mean_d, mean_s, p, q, inverse_m, inverse_v, mu_d, mu_s, slope, a):
    """What the window's adjoint takes, d, s, dd, ss: the gradient is

    dx = G^T*(s + d) + 2 s' G^T*ss + 2 d' G^T*dd, and dy with the signs of d and dd turned; s', d'
    are the pixel's sum and difference about the levels.

    slope: the weight of this position times A'(L). The derivative is that of the variances before
    they were kept at 0 or above.
    """
    g = a * slope
    by_p = g * (1.0 - q)
    by_q = g * (1.0 - p)
    half_q = 0.5 * q
    qv = by_q * inverse_v
    dd = qv * (1.0 - half_q)
    ss = -(qv * half_q)
    pm = by_p * inverse_m
    d = pm * mu_d * (2.0 - p) - (mean_d + mean_d) * dd
    s = -(pm * p * mu_s) - (mean_s + mean_s) * ss
    return d, s, dd, ss
