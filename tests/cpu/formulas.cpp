// Exposes every formula of csrc/formulas.h to Python, applied to arrays.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include "params.h"

#define LAMP_INLINE static inline
#define LAMP_INLINE_LAMBDA
#define LAMP_UNROLL

template <class V>
struct bits;
template <>
struct bits<float> {
  using type = int32_t;
};
template <>
struct bits<double> {
  using type = int64_t;
};
template <class V>
typename bits<V>::type as_bits(V v) {
  typename bits<V>::type i;
  std::memcpy(&i, &v, sizeof v);
  return i;
}
template <class V>
V as_value(typename bits<V>::type i) {
  V v;
  std::memcpy(&v, &i, sizeof v);
  return v;
}
template <class V>
V to_value(typename bits<V>::type i) {
  return V(i);
}

template <class V>
V at_least_zero(V v) {
  return v < V{} ? V{} : v;
}
template <class V>
V quotient(V a, V b) {
  return a / b;
}

namespace {

using namespace lamp_kernels;

#include "formulas.h"

template <class T>
void minus_log1p_minus_of(int n, const T* loss, T* value) {
  for (int i = 0; i < n; ++i) value[i] = minus_log1p_minus<T>(loss[i], T(1) / (T(1) - loss[i]));
}

template <class T>
void amplify_of(int n, int kind, double first, double second, const T* loss, T* value, T* slope) {
  Params p{};
  p.amplify = Amplify(kind);
  p.amplify_parameters[0] = first;
  p.amplify_parameters[1] = second;
  const Amplification<T> a = amplification<T>(p);
  for (int i = 0; i < n; ++i) {
    const Amplified<T> result = amplify<T>(loss[i], a);
    value[i] = result.value;
    slope[i] = result.slope;
  }
}

template <class T>
void pointwise_of(int n, int metric, double parameter, const T* d, T* loss, T* slope) {
  Params p{};
  p.terms.set(Metric(metric));
  p.metric_parameters[metric] = parameter;
  const LossFormula<T> formula = loss_formula<T>(p);
  T factor[kMetrics];
  std::fill(factor, factor + kMetrics, T(1));
  for (int i = 0; i < n; ++i) {
    const PointwiseSum<T> sum = pointwise_terms(d[i], T(1), formula, factor, [](int, T) {});
    loss[i] = sum.value;
    slope[i] = sum.dloss_dd;
  }
}

// moments: (n, 4); constants: c1, c2, a, shift_d, shift_s. adjoint: (n, 4), for slope 1, the
// derivatives with respect to mean_d, mean_s, square_d and square_s.
template <class T>
void ssim_of(int n, const T* moments, const T* constants, T* loss, T* adjoint) {
  const SsimConstants<T> c{constants[0], constants[1], constants[2], constants[3], constants[4]};
  for (int i = 0; i < n; ++i) {
    const T* m = moments + 4 * i;
    const Dissimilarity<T> result =
        ssim(Moments<T>{m[0], m[1], variance(m[2], m[0]), variance(m[3], m[1])}, c);
    const Adjoint<T> h = ssim_adjoint(m[0], m[1], result, T(1), c);
    loss[i] = result.loss;
    const T row[4] = {h.d, h.s, h.dd, h.ss};
    std::memcpy(adjoint + 4 * i, row, sizeof row);
  }
}

// gradients: (n, 6), grad x, grad y and their difference. slopes: (n, 2), of grad x and grad y.
template <class T>
void gms_of(int n, const T* gradients, double constant, T* loss, T* slopes) {
  auto dot = [](const T* a, const T* b) { return a[0] * b[0] + a[1] * b[1]; };
  for (int i = 0; i < n; ++i) {
    const T *x = gradients + 6 * i, *y = x + 2, *d = x + 4;
    const T sum[2] = {x[0] + y[0], x[1] + y[1]};
    const Gms<T> result = gms(dot(x, x), dot(y, y), dot(d, sum), T(constant));
    loss[i] = result.loss;
    slopes[2 * i] = result.by_x;
    slopes[2 * i + 1] = result.by_y;
  }
}

}  // namespace

#define LAMP_EXPORT(T)                                                                       \
  void minus_log1p_minus_##T(int n, const T* loss, T* value) {                               \
    minus_log1p_minus_of(n, loss, value);                                                    \
  }                                                                                          \
  void amplify_##T(int n, int kind, double a, double b, const T* loss, T* value, T* slope) { \
    amplify_of(n, kind, a, b, loss, value, slope);                                           \
  }                                                                                          \
  void pointwise_##T(int n, int metric, double parameter, const T* d, T* loss, T* slope) {   \
    pointwise_of(n, metric, parameter, d, loss, slope);                                      \
  }                                                                                          \
  void ssim_##T(int n, const T* moments, const T* constants, T* loss, T* adjoint) {          \
    ssim_of(n, moments, constants, loss, adjoint);                                           \
  }                                                                                          \
  void gms_##T(int n, const T* gradients, double constant, T* loss, T* slopes) {             \
    gms_of(n, gradients, constant, loss, slopes);                                            \
  }

extern "C" {
LAMP_EXPORT(float)
LAMP_EXPORT(double)
}
