// Pointwise losses without SSIM. Next to SSIM, the kernel only adds their gradient to SSIM's. A
// block processes a run of pixels in one plane.
#pragma once

#include "device.cuh"
#include "tiling.h"

namespace lamp_kernels::cuda {

template <class T>
struct PixelArguments {
  Params p;
  PixelTiling tiling;
  int64_t first_tile;  // of this launch
  LossFormula<T> formula;
  double* partial;  // (tiles, terms); null: only add to the gradients
};

template <class T>
__global__ void __launch_bounds__(kPixelThreads)
    pixel_kernel(const __grid_constant__ PixelArguments<T> a) {
  LAMP_SHARED(shared);
  const Params& p = a.p;
  const int64_t tile = a.first_tile + blockIdx.x, plane = tile / a.tiling.per_plane;
  const int64_t image = plane / a.tiling.channels, channel = plane % a.tiling.channels;
  const int64_t first = tile % a.tiling.per_plane * (kPixelThreads * kPixelsOfAThread);
  const Factors<T> factor(p, image);
  const T scale = p.scale_of<T>(image);
  T sums[kMetrics] = {};  // by metric; indexed only by constants, so it stays in registers

  auto at = [&](const auto& s, int64_t row, int64_t column) {
    return plane_of(s, image, channel) + row * s.row + column * s.column;
  };
  // Pixels in flight. In float64 more of them would spill registers.
#pragma unroll(sizeof(T) == 8 ? 2 : 4)
  for (int i = 0; i < kPixelsOfAThread; ++i) {
    const int64_t pixel = first + i * kPixelThreads + threadIdx.x;
    if (pixel >= a.tiling.pixels) break;
    int64_t row = 0, column = pixel;
    if (a.tiling.width != a.tiling.pixels) {
      // A 64-bit division takes about 70 instructions.
      row = a.tiling.pixels <= UINT32_MAX ? uint32_t(pixel) / uint32_t(a.tiling.width)
                                          : pixel / a.tiling.width;
      column -= row * a.tiling.width;
    }
    const T x = load<T>(p.input, at(p.input, row, column));
    const T y = load<T>(p.target, at(p.target, row, column));
    const T weight = p.weight.data ? load<T>(p.weight, at(p.weight, row, column)) : T(1);
    const T d = (x - y) * scale;
    const PointwiseSum<T> sum =
        pointwise_terms(d, weight, a.formula, factor.of, [&](int m, T value) { sums[m] += value; });
    auto write = [&](const TensorView& s, T v) {
      T& to = static_cast<T*>(s.data)[at(s, row, column)];
      to = a.partial ? v : to + v;
    };
    if (p.map.data) write(p.map, sum.value);
    if (p.input_gradient.data) write(p.input_gradient, sum.dloss_dd * scale);
    if (p.target_gradient.data) write(p.target_gradient, -(sum.dloss_dd * scale));
  }
  if (!a.partial) return;
  double* const scratch = reinterpret_cast<double*>(shared);
  LAMP_UNROLL
  for (int m = 1; m < kMetrics; ++m) {
    if (!p.terms.has(Metric(m))) continue;
    const double sum = sum_of_block(double(sums[m]), scratch);
    if (threadIdx.x == 0) a.partial[tile * p.terms.count() + p.terms.position(Metric(m))] = sum;
  }
}

}  // namespace lamp_kernels::cuda
