// The mathematics of the losses, once, for CPU and CUDA: lamp_kernels/reference.py for single numbers
// or vectors instead of tensors. `V` is float, double, or a GCC vector of these; `S` is its element
// type. `c ? a : b` selects lane by lane.
//
// There is no include guard: the CPU kernels include this file once per instruction set, each time
// in another namespace, so that every copy is compiled for its own instruction set.
//
// Requires params.h, <cmath>, <utility>; LAMP_INLINE (how to declare a function), LAMP_INLINE_LAMBDA
// (an attribute of lambdas) and LAMP_UNROLL (the pragma that unrolls the next loop); bits<V>::type
// (the integer type of V's size), as_bits, as_value and to_value; quotient(a, b), which is a/b; and
// at_least_zero(v), which keeps NaN.

// ---- Amplification ------------------------------------------------------------------------------

// The constants of one kind of amplification. The function of that kind names them.
template <class S>
struct Amplification {
  Amplify kind;
  S constants[4];
};

template <class S>
LAMP_INLINE Amplification<S> amplification(const Params& p) {
  const double* parameter = p.amplify_parameters;
  switch (p.amplify) {
    case Amplify::none: return {p.amplify, {}};
    case Amplify::log: {
      const double eps = parameter[0];
      return {p.amplify, {S(1.0 - eps), S(1.0 / eps)}};
    }
    case Amplify::power: {
      const double gamma = parameter[0], delta = parameter[1];
      return {p.amplify, {S(gamma), S(1.0 / delta), S(pow(delta, gamma))}};
    }
  }
  return {};
}

// The number of terms of atanh(s)/s = 1 + s^2/3 + s^4/5 + ... that full precision requires for
// |s| <= 3 - 2 sqrt(2) = 0.172. The first omitted term is s^10/11 = 2e-9 (float), s^22/23 = 7e-19.
template <class S>
struct LogSeries;
template <>
struct LogSeries<float> {
  static constexpr int terms = 5, mantissa = 23;
  static constexpr int32_t sqrt_half = 0x3f3504f3, fraction = 0x7fffff;
};
template <>
struct LogSeries<double> {
  static constexpr int terms = 11, mantissa = 52;
  static constexpr int64_t sqrt_half = 0x3fe6a09e667f3bcd, fraction = 0xfffffffffffff;
};

// The last term r^(n-1)/n! of (exp(r) - 1)/r = 1 + r/2! + r^2/3! + ... that full precision requires
// for |r| <= log(2)/2. The first omitted term is r^7/8! = 2e-8 (float), r^13/14! = 1e-17.
template <class S>
struct ExpSeries;
template <>
struct ExpSeries<float> {
  static constexpr int last = 7, bias = 127;
  static constexpr double last_coefficient = 1 / 5040.0;
  // log(2) in two parts. The first has few digits, so its product with k is exact.
  static constexpr float log2_high = 0.693359375f, log2_low = -2.12194440e-4f;
  static constexpr float round = 12582912.f, most = 176.f;  // beyond it, 2^k exceeds every scale
};
template <>
struct ExpSeries<double> {
  static constexpr int last = 13;
  static constexpr int64_t bias = 1023;
  static constexpr double last_coefficient = 1 / 6227020800.0;
  static constexpr double log2_high = 0x1.62e42fee00000p-1, log2_low = 0x1.a39ef35793c76p-33;
  static constexpr double round = 6755399441055744., most = 1418.;
};

// -log1p(-loss) for loss < 1, accurate to the last digits down to the smallest loss.
//   1. u = 1 - loss is rounded. The rounding error is exactly (1 - u) - loss, so to first order
//      log(1 - loss) = log(u) + ((1 - u) - loss)/u; the second order is below rounding.
//   2. u = 2^k m with m in [sqrt(1/2), sqrt(2)), from the bits of u.
//   3. log(m) = 2 atanh(s), s = (m - 1)/(m + 1); m - 1 is exact.
// `inverse` is 1/u, which the caller already has.
template <class S, class V>
LAMP_INLINE V minus_log1p_minus(V loss, V inverse) {
  using Series = LogSeries<S>;
  using I = typename bits<V>::type;
  const V u = S(1) - loss;
  const V lost = ((S(1) - u) - loss) * inverse;
  const I i = as_bits(u) - Series::sqrt_half;
  const I k = i >> Series::mantissa;
  const V m = as_value<V>((i & Series::fraction) + Series::sqrt_half);
  const V f = m - S(1), s = quotient(f, f + S(2)), z = s * s;
  V series = V{} + S(1.0 / (2 * Series::terms - 1));
  LAMP_UNROLL
  for (int n = Series::terms - 2; n >= 1; --n) series = series * z + S(1.0 / (2 * n + 1));
  const V log_m = S(2) * (s + s * (z * series));
  return -(to_value<V>(k) * S(0.693147180559945309) + (log_m + lost));
}

template <class V>
struct Amplified {
  V value, slope;  // A(L), A'(L)
};

// A(L) = -log1p(-L) up to the knee, and its tangent above. NaN stays NaN, because comparisons with it
// are false.
template <class S, class V>
LAMP_INLINE Amplified<V> amplify_log(V loss, const Amplification<S>& a) {
  const S knee = a.constants[0], steepest = a.constants[1];
  const auto steep = loss > knee;
  const V below = steep ? V{} + knee : loss;
  const V above = steep ? loss - knee : V{};
  const V inverse = quotient(V{} + S(1), S(1) - below);
  return {above * steepest + minus_log1p_minus<S>(below, inverse),
          steep ? V{} + steepest : inverse};
}

// scale (exp(y) - 1) for y >= 0, accurate to the last digits down to the smallest y.
//   1. y = k log(2) + r, |r| <= log(2)/2, k by rounding.
//   2. exp(r) - 1 by its series.
//   3. s = scale 2^k; the result is s (exp(r) - 1) + (s - scale). 2^k is applied as two factors,
//      because it may overflow where s does not.
template <class S, class V>
LAMP_INLINE V scaled_expm1(V y, S scale) {
  using Series = ExpSeries<S>;
  using I = typename bits<V>::type;
  const V most = V{} + Series::most;
  const V bounded = y > most ? most : y;
  // Adding 1.5 * 2^mantissa rounds to an integer, which is then in the lowest bits.
  const V shifted = bounded * S(1.44269504088896341) + Series::round;
  const V k = shifted - Series::round;
  const V r = (bounded - k * Series::log2_high) - k * Series::log2_low;
  double coefficient = Series::last_coefficient;  // 1/n!, a constant once the loop is unrolled
  V series = V{} + S(coefficient);
  LAMP_UNROLL
  for (int n = Series::last; n > 1; --n) {
    coefficient *= n;
    series = series * r + S(coefficient);
  }
  const I exponent = as_bits(shifted) - as_bits(V{} + Series::round), half = exponent >> 1;
  const V s = (scale * as_value<V>((half + Series::bias) << LogSeries<S>::mantissa)) *
              as_value<V>((exponent - half + Series::bias) << LogSeries<S>::mantissa);
  const V above = s - scale;  // infinite where the result is
  return above - above == V{} ? s * (r * series) + above : above;
}

// A(L) = (L + delta)^gamma - delta^gamma = delta^gamma (exp(gamma log(1 + L/delta)) - 1), L >= 0.
template <class S, class V>
LAMP_INLINE Amplified<V> amplify_power(V loss, const Amplification<S>& a) {
  const S gamma = a.constants[0], inverse_delta = a.constants[1], scale = a.constants[2];
  const V z = loss * inverse_delta, inverse = quotient(V{} + S(1), S(1) + z);
  const V value = scaled_expm1<S>(-gamma * minus_log1p_minus<S>(-z, inverse), scale);
  const auto finite = z - z == V{};
  return {finite ? value : z, gamma * inverse_delta * inverse * (value + scale)};
}

template <class S, class V>
LAMP_INLINE Amplified<V> amplify(V loss, const Amplification<S>& a) {
  switch (a.kind) {
    case Amplify::log: return amplify_log(loss, a);
    case Amplify::power: return amplify_power(loss, a);
    case Amplify::none: break;
  }
  return {loss, V{} + S(1)};
}

// ---- Pointwise losses ---------------------------------------------------------------------------

template <class V>
struct Pointwise {
  V loss, slope;  // L and dL/dd, d = (x - y)/data_range
};

template <class V>
LAMP_INLINE Pointwise<V> squared_error(V d) {
  return {d * d, d + d};
}

// The slope is 0 at d = 0. At NaN it is d, so NaN.
template <class S, class V>
LAMP_INLINE Pointwise<V> absolute_error(V d) {
  const V zero = V{}, one = zero + S(1);
  return {d < zero ? -d : d, d > zero ? one : (d < zero ? -one : d)};
}

// sqrt(v), lane by lane. The compiler turns the loop into one instruction.
template <class S, class V>
LAMP_INLINE V square_root(V v) {
  if constexpr (sizeof(V) == sizeof(S)) {
    return V(sqrt(v));
  } else {
    V root;
    for (int i = 0; i < int(sizeof(V) / sizeof(S)); ++i) root[i] = S(sqrt(v[i]));
    return root;
  }
}

// (sqrt(d^2 + e^2) - e)/(sqrt(1 + e^2) - e), computed without subtracting nearly equal numbers; its
// limit where d^2 overflows.
template <class S, class V>
LAMP_INLINE Pointwise<V> charbonnier(V d, S e) {
  const S norm = square_root<S>(S(1) + e * e) + e;  // 1/(sqrt(1 + e^2) - e)
  const auto huge = (d > S(1e18)) | (d < S(-1e18));
  const V small = huge ? V{} : d;
  const V root = square_root<S>(small * small + e * e);
  const Pointwise<V> limit = absolute_error<S>(d);
  return {norm * (huge ? limit.loss : quotient(small * small, root + e)),
          norm * (huge ? limit.slope : quotient(small, root))};
}

template <Metric metric, class S, class V>
LAMP_INLINE Pointwise<V> pointwise_loss(V d, S parameter) {
  if constexpr (metric == Metric::mse) return squared_error(d);
  if constexpr (metric == Metric::l1) return absolute_error<S>(d);
  if constexpr (metric == Metric::charbonnier) return charbonnier(d, parameter);
}

// Everything that a pixel's losses depend on, except the pixel.
template <class S>
struct LossFormula {
  Terms terms;
  Amplification<S> amplification;
  S parameter[kMetrics];
};

template <class S>
LAMP_INLINE LossFormula<S> loss_formula(const Params& p) {
  LossFormula<S> f{p.terms, amplification<S>(p), {}};
  for (int m = 0; m < kMetrics; ++m) f.parameter[m] = S(p.metric_parameters[m]);
  return f;
}

template <class V>
struct PointwiseSum {
  V value = {};     // of factor times A(L)
  V dloss_dd = {};  // of weight times factor times dA/dd
};

// The pointwise terms of one pixel, from d = (x - y)/data_range. Calls add(metric, weight times A(L))
// for each. factor: by metric.
template <class S, class V, class Add, int... m>
LAMP_INLINE PointwiseSum<V> pointwise_terms(V d, V weight, const LossFormula<S>& f, const S* factor,
                                            Add add, std::integer_sequence<int, m...>) {
  PointwiseSum<V> sum;
  auto term = [&](auto metric, const Pointwise<V>& l) LAMP_INLINE_LAMBDA {
    constexpr int i = decltype(metric)::value;
    const Amplified<V> amplified = amplify<S>(l.loss, f.amplification);
    add(i, weight * amplified.value);
    sum.value += amplified.value * factor[i];
    sum.dloss_dd += weight * factor[i] * amplified.slope * l.slope;
  };
  auto one = [&](auto metric) LAMP_INLINE_LAMBDA {
    constexpr int i = decltype(metric)::value;
    if (f.terms.has(Metric(i))) term(metric, pointwise_loss<Metric(i)>(d, f.parameter[i]));
  };
  (one(std::integral_constant<int, m + 1>()), ...);  // all but SSIM
  return sum;
}
template <class S, class V, class Add>
LAMP_INLINE PointwiseSum<V> pointwise_terms(V d, V weight, const LossFormula<S>& f, const S* factor,
                                            Add add) {
  return pointwise_terms(d, weight, f, factor, add,
                         std::make_integer_sequence<int, kMetrics - 1>());
}

// ---- GMS ----------------------------------------------------------------------------------------

template <class V>
struct Gms {
  V loss;
  V by_x, by_y;  // dL/d(grad x) = by_x grad x, and the same of y
};

// (a - b)^2/(a^2 + b^2 + c), a = |grad x|, b = |grad y|. a - b is (a^2 - b^2)/(a + b), where the
// caller forms a^2 - b^2 without subtracting nearly equal numbers. Where a or b is 0, the gradient
// has no direction, and its derivative counts as 0.
template <class S, class V>
LAMP_INLINE Gms<V> gms(V a2, V b2, V a2_minus_b2, S c) {
  const V zero = V{}, one = zero + S(1);
  const V a = square_root<S>(a2), b = square_root<S>(b2), sum = a + b;
  const V apart = quotient(a2_minus_b2, sum == zero ? one : sum);
  const V inverse = quotient(one, a2 + b2 + c), twice = inverse + inverse;
  const V loss = apart * apart * inverse;
  return {loss, twice * ((a == zero ? zero : quotient(apart, a)) - loss),
          -(twice * ((b == zero ? zero : quotient(apart, b)) + loss))};
}

// ---- SSIM ---------------------------------------------------------------------------------------

template <class S>
struct SsimConstants {
  S c1, c2, a;         // L = a (1 - SSIM)
  S shift_d, shift_s;  // subtracted from d and s before the windows
};

// Moments at one window position of d = x - y and s = x + y, in units of data_range.
template <class V>
struct Moments {
  V mean_d, mean_s;  // G*(v - c), with the shifts c
  V variance_d, variance_s;
};

// From G*(v - c)^2 and G*(v - c) for any constant c. The rounding error grows with the square of the
// mean, so c must be close to the window's values.
template <class V>
LAMP_INLINE V variance(V square, V mean) {
  return square - mean * mean;
}

template <class V>
struct Dissimilarity {
  V loss;  // a T, T = p + q - p q = 1 - SSIM
  V p, q, inverse_m, inverse_v, mu_d, mu_s;
};

template <class S, class V>
LAMP_INLINE Dissimilarity<V> ssim(const Moments<V>& m, const SsimConstants<S>& c) {
  Dissimilarity<V> o;
  // Values below zero are rounding errors.
  const V var_d = at_least_zero(m.variance_d), var_s = at_least_zero(m.variance_s);
  o.mu_d = m.mean_d + c.shift_d;
  o.mu_s = m.mean_s + c.shift_s;
  const V mu_d2 = o.mu_d * o.mu_d;
  o.inverse_m = quotient(V{} + S(1), S(0.5) * (mu_d2 + o.mu_s * o.mu_s) + c.c1);
  o.inverse_v = quotient(V{} + S(1), S(0.5) * (var_d + var_s) + c.c2);
  o.p = mu_d2 * o.inverse_m;
  o.q = var_d * o.inverse_v;
  o.loss = c.a * at_least_zero(o.p + o.q * (S(1) - o.p));
  return o;
}

// The inputs of the window's adjoint: dx = G^T*(s + d) + 2 s' G^T*ss + 2 d' G^T*dd, and dy with the
// signs of d and dd flipped; s' and d' are the pixel's sum and difference minus their shifts.
template <class V>
struct Adjoint {
  V d, s, dd, ss;
};

// slope: the weight of this position times A'(L). The derivative is that of the unclamped variances.
template <class S, class V>
LAMP_INLINE Adjoint<V> ssim_adjoint(V mean_d, V mean_s, const Dissimilarity<V>& o, V slope,
                                    const SsimConstants<S>& c) {
  const V g = c.a * slope;
  const V dloss_dp = g * (S(1) - o.q), dloss_dq = g * (S(1) - o.p);
  const V half_q = S(0.5) * o.q, qv = dloss_dq * o.inverse_v;
  Adjoint<V> h;
  h.dd = qv * (S(1) - half_q);
  h.ss = -(qv * half_q);
  const V pm = dloss_dp * o.inverse_m;
  h.d = pm * o.mu_d * (S(2) - o.p) - (mean_d + mean_d) * h.dd;
  h.s = -(pm * o.p * o.mu_s) - (mean_s + mean_s) * h.ss;
  return h;
}
