#include "textbook.h"

#include <cmath>
#include <limits>

namespace textbook {
namespace {

using lamp_kernels::Amplify;
using lamp_kernels::Border;
using lamp_kernels::kMetrics;
using lamp_kernels::Metric;
using lamp_kernels::Params;

// The definitions of power and Charbonnier subtract nearly equal numbers, for which `double` has too
// few digits.
using Long = long double;

// Returns A(L) and stores A'(L) in `slope`.
double amplify(const Params& p, double loss, double& slope) {
  slope = 1;
  if (p.amplify == Amplify::none) return loss;
  if (p.amplify == Amplify::power) {
    const double gamma = p.amplify_parameters[0], delta = p.amplify_parameters[1];
    // Where the loss is infinite, kernels and reference multiply infinity by zero.
    slope = std::isinf(loss) ? NAN : gamma * std::pow(loss + delta, gamma - 1);
    return double(std::pow(Long(loss) + delta, gamma) - std::pow(Long(delta), gamma));
  }
  const double eps = p.amplify_parameters[0], knee = 1 - eps;
  slope = loss > knee ? 1 / eps : 1 / (1 - loss);
  if (loss > knee) return -std::log1p(-knee) + (loss - knee) / eps;
  return -std::log1p(-loss);
}

// The index of the pixel that the border rule uses at `i`, or -1 for a zero.
int64_t seen_at(const Params& p, int64_t i, int64_t size) {
  if (i >= 0 && i < size) return i;
  if (p.border == Border::zeros) return -1;
  return i < 0 ? -i : 2 * (size - 1) - i;
}

// Prewitt's operator, times 3: along x; along y it is transposed.
constexpr int kPrewitt[3][3] = {{-1, 0, 1}, {-1, 0, 1}, {-1, 0, 1}};

// One plane of the images; `x`, `y`, ... point to its first pixel.
double loss_of(const Params& p, Metric metric, double d, double& slope) {
  if (metric == Metric::mse) {
    slope = 2 * d;
    return d * d;
  }
  if (metric == Metric::charbonnier) {
    const Long e = p.metric_parameters[int(metric)], root = std::sqrt(Long(d) * d + e * e);
    const Long whole = std::sqrt(1 + e * e) - e;
    slope = double((std::isinf(d) ? std::copysign(1, d) : d / root) / whole);
    return double((root - e) / whole);
  }
  slope = d > 0 ? 1 : d < 0 ? -1 : d;
  return std::abs(d);
}

struct Plane {
  const Params& p;
  const double *x, *y, *weight, *mask;  // weight and mask may be null
  double *map, *dx, *dy;
  double scale;  // 1 / data_range

  double weight_at(int64_t i) const { return weight ? weight[i] : 1; }
  double mask_at(int64_t i) const { return mask ? mask[i] : 1; }

  // Adds to `sum`, the map and the gradients. `factor` belongs to this image and term, `map_factor`
  // to the first image and this term.
  void pointwise(Metric metric, double factor, double map_factor, double& sum) const {
    for (int64_t i = 0; i < p.height * p.width; ++i) {
      if (mask_at(i) == 0) continue;
      const double d = (x[i] - y[i]) * scale;
      double slope, metric_slope;
      const double value = amplify(p, loss_of(p, metric, d, metric_slope), slope);
      const double dloss_dd = factor * weight_at(i) * slope * metric_slope * scale;
      sum += weight_at(i) * value;
      map[i] += map_factor * value;
      dx[i] += dloss_dd;
      dy[i] -= dloss_dd;
    }
  }

  void ssim(double factor, double map_factor, double& sum) const {
    for (int64_t row = p.first_row(); row < p.end_row(); ++row)
      for (int64_t column = p.first_row(); column < p.end_column(); ++column)
        window(row, column, factor, map_factor, sum);
  }

  void gms(double factor, double map_factor, double& sum) const {
    for (int64_t row = p.first_row(); row < p.end_row(); ++row)
      for (int64_t column = p.first_row(); column < p.end_column(); ++column)
        similarity(row, column, factor, map_factor, sum);
  }

  // 1 - (2 a b + c)/(a^2 + b^2 + c), a = |grad x|, b = |grad y|. It subtracts nearly equal numbers.
  void similarity(int64_t row, int64_t column, double factor, double map_factor,
                  double& sum) const {
    const int64_t here = row * p.width + column;
    if (std::isnan(map[here])) map[here] = 0;
    if (mask_at(here) == 0) return;
    Long gx[2] = {}, gy[2] = {};
    int64_t at[3][3];
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 3; ++j) {
        const int64_t y_at = seen_at(p, row + i - 1, p.height);
        const int64_t x_at = seen_at(p, column + j - 1, p.width);
        const int64_t k = at[i][j] = y_at < 0 || x_at < 0 ? -1 : y_at * p.width + x_at;
        for (int axis = 0; axis < 2 && k >= 0; ++axis) {
          const int tap = axis ? kPrewitt[j][i] : kPrewitt[i][j];
          if (tap) gx[axis] += tap * Long(x[k]);
          if (tap) gy[axis] += tap * Long(y[k]);
        }
      }
    for (int axis = 0; axis < 2; ++axis) gx[axis] *= scale / 3, gy[axis] *= scale / 3;
    const Long a = std::hypot(gx[0], gx[1]), b = std::hypot(gy[0], gy[1]);
    const Long c = p.metric_parameters[int(Metric::gms)];
    const Long above = 2 * a * b + c, below = a * a + b * b + c;
    double slope;
    const double value = amplify(p, double(1 - above / below), slope);
    sum += weight_at(here) * value;
    map[here] += map_factor * value;

    // The quotient rule, then from a gradient's magnitude to the gradient, and to every pixel.
    const Long g = factor * weight_at(here) * slope;
    const Long by_a = g * (2 * a * above - 2 * b * below) / (below * below);
    const Long by_b = g * (2 * b * above - 2 * a * below) / (below * below);
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 3; ++j)
        for (int axis = 0; axis < 2 && at[i][j] >= 0; ++axis) {
          const int tap = axis ? kPrewitt[j][i] : kPrewitt[i][j];
          if (!tap) continue;
          dx[at[i][j]] += a == 0 ? 0 : double(by_a * gx[axis] / a * tap * scale / 3);
          dy[at[i][j]] += b == 0 ? 0 : double(by_b * gy[axis] / b * tap * scale / 3);
        }
  }

  void window(int64_t row, int64_t column, double factor, double map_factor, double& sum) const {
    const int r = p.radius;
    if (mask_at(row * p.width + column) == 0) {
      double& value = map[row * p.width + column];
      if (std::isnan(value)) value = 0;
      return;
    }
    double seen = 0;  // the window's sum of the mask, which is 0 beyond the border
    double d[15][15], s[15][15], tap[15][15], mean_d = 0, mean_s = 0, var_d = 0, var_s = 0;
    int64_t at[15][15];
    for (int i = 0; i <= 2 * r; ++i)
      for (int j = 0; j <= 2 * r; ++j) {
        const int64_t y_at = seen_at(p, row + i - r, p.height);
        const int64_t x_at = seen_at(p, column + j - r, p.width);
        const int64_t k = at[i][j] = y_at < 0 || x_at < 0 ? -1 : y_at * p.width + x_at;
        const double m = mask ? (k < 0 ? 0 : mask[k]) : 1;
        d[i][j] = k < 0 || m == 0 ? 0 : (x[k] - y[k]) * scale;
        s[i][j] = k < 0 || m == 0 ? 0 : (x[k] + y[k]) * scale;
        tap[i][j] = p.taps[std::abs(i - r)] * p.taps[std::abs(j - r)] * m;
        seen += tap[i][j];
      }
    for (int i = 0; i <= 2 * r; ++i)
      for (int j = 0; j <= 2 * r; ++j) {
        if (mask) tap[i][j] /= seen;
        mean_d += tap[i][j] * d[i][j];
        mean_s += tap[i][j] * s[i][j];
      }
    for (int i = 0; i <= 2 * r; ++i)
      for (int j = 0; j <= 2 * r; ++j) {
        var_d += tap[i][j] * (d[i][j] - mean_d) * (d[i][j] - mean_d);
        var_s += tap[i][j] * (s[i][j] - mean_s) * (s[i][j] - mean_s);
      }
    const double m = (mean_d * mean_d + mean_s * mean_s) / 2 + p.c1;
    const double v = (var_d + var_s) / 2 + p.c2;
    const double pp = mean_d * mean_d / m, q = var_d / v;
    double slope;
    const double value = amplify(p, p.ssim_scale * (pp + q - pp * q), slope);
    const int64_t here = row * p.width + column;
    sum += weight_at(here) * value;
    map[here] = (std::isnan(map[here]) ? 0 : map[here]) + map_factor * value;

    // The chain rule, from the loss to the moments and from these to every pixel of the window.
    const double g = factor * weight_at(here) * slope * p.ssim_scale;
    const double dloss_dp = g * (1 - q), dloss_dq = g * (1 - pp);
    const double by_mean_d = dloss_dp * (2 * mean_d / m - mean_d * mean_d / (m * m) * mean_d);
    const double by_mean_s = -dloss_dp * mean_d * mean_d / (m * m) * mean_s;
    const double by_var_d = dloss_dq * (1 / v - var_d / (2 * v * v));
    const double by_var_s = -dloss_dq * var_d / (2 * v * v);
    for (int i = 0; i <= 2 * r; ++i)
      for (int j = 0; j <= 2 * r; ++j) {
        if (at[i][j] < 0 || mask_at(at[i][j]) == 0) continue;
        const double dloss_dd = tap[i][j] * (by_mean_d + 2 * (d[i][j] - mean_d) * by_var_d);
        const double by_s = tap[i][j] * (by_mean_s + 2 * (s[i][j] - mean_s) * by_var_s);
        dx[at[i][j]] += (by_s + dloss_dd) * scale;
        dy[at[i][j]] += (by_s - dloss_dd) * scale;
      }
  }
};

}  // namespace

Result compute(const Params& p, const Image& input, const Image& target, const Image& weight,
               const Image& mask, const std::vector<double>& factors,
               const std::vector<double>& scales) {
  const int terms = p.terms.count();
  const int64_t size = p.height * p.width;
  const bool whole =
      !p.windowed() || p.border != Border::valid;  // the grid of the loss is the image
  Result r;
  r.scaled_sums.assign(p.batch * terms, 0);
  r.map.assign(input.size(), whole ? 0 : std::numeric_limits<double>::quiet_NaN());
  r.input_gradient.assign(input.size(), 0);
  r.target_gradient.assign(input.size(), 0);
  for (int64_t plane = 0; plane < p.batch * p.channels; ++plane) {
    const int64_t at = plane * size, image = plane / p.channels;
    const Plane one{p,
                    &input[at],
                    &target[at],
                    weight.empty() ? nullptr : &weight[at],
                    mask.empty() ? nullptr : &mask[at],
                    &r.map[at],
                    &r.input_gradient[at],
                    &r.target_gradient[at],
                    scales[image]};
    const double* factor = &factors[image * terms];
    double* sum = &r.scaled_sums[image * terms];
    int t = 0;
    if (p.ssim()) one.ssim(factor[t], factors[t], sum[t]), ++t;
    if (p.gms()) one.gms(factor[t], factors[t], sum[t]);
    for (int m = 1; m < kMetrics; ++m)
      if (p.terms.has(Metric(m))) one.pointwise(Metric(m), factor[t], factors[t], sum[t]), ++t;
  }
  for (size_t i = 0; i < r.scaled_sums.size(); ++i) r.scaled_sums[i] *= factors[i];
  return r;
}

}  // namespace textbook
