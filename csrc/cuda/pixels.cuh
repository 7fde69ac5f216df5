// Pointwise losses without SSIM, and beside it their gradient, added to SSIM's: a block takes a run of
// pixels in one plane.
#pragma once

#include "device.cuh"
#include "tiling.h"

namespace lamp_kernels::cuda {

template <class T>
struct PixelArguments {
  Params p;
  PixelTiling tiling;
  int64_t first_tile;  // of this launch
  T scale;
  Amplification<T> amplification;
  double* partial;  // (tiles, terms); null: gradients are added to what is there, and nothing else
};

template <class T>
__global__ void __launch_bounds__(kPixelThreads)
    pixel_kernel(const __grid_constant__ PixelArguments<T> a) {
  LAMP_SHARED(shared);
  const Params& p = a.p;
  const int64_t tile = a.first_tile + blockIdx.x, plane = tile / a.tiling.per_plane;
  const int64_t image = plane / a.tiling.channels, channel = plane % a.tiling.channels;
  const int64_t first = tile % a.tiling.per_plane * (kPixelThreads * kPixelsOfAThread);
  const int terms = p.terms();
  const int first_term = int(p.ssim);
  const T factor = factor_of<T>(p, image, first_term);
  const T second_factor = terms > first_term + 1 ? factor_of<T>(p, image, first_term + 1) : T(0);
  T sum = 0, second_sum = 0;  // not an array: that would lie in memory

  auto at = [&](const auto& s, int64_t row, int64_t column) {
    return plane_of(s, image, channel) + row * s.row + column * s.column;
  };
#pragma unroll 4
  for (int i = 0; i < kPixelsOfAThread; ++i) {
    const int64_t pixel = first + i * kPixelThreads + threadIdx.x;
    if (pixel >= a.tiling.pixels) break;
    int64_t row = 0, column = pixel;
    if (a.tiling.width != a.tiling.pixels) {
      // A division of 64 bits takes some 70 instructions.
      row = a.tiling.pixels <= UINT32_MAX ? uint32_t(pixel) / uint32_t(a.tiling.width)
                                          : pixel / a.tiling.width;
      column -= row * a.tiling.width;
    }
    const T x = load<T>(p.input, at(p.input, row, column));
    const T y = load<T>(p.target, at(p.target, row, column));
    const T weight = p.weight.data ? load<T>(p.weight, at(p.weight, row, column)) : T(1);
    const T d = (x - y) * a.scale;
    T value = 0, by_d = 0;
    auto term = [&](const Pointwise<T>& l, T own, bool second) {
      const Amplified<T> amplified = amplify<T>(l.loss, a.amplification);
      const T weighted = weight * amplified.value;
      sum += second ? T(0) : weighted;
      second_sum += second ? weighted : T(0);
      value += amplified.value * own;
      by_d += weight * own * amplified.slope * l.slope;
    };
    if (p.mse) term(squared_error(d), factor, false);
    if (p.l1) term(absolute_error<T>(d), p.mse ? second_factor : factor, p.mse);
    auto write = [&](const Sink& s, T v) {
      T& to = static_cast<T*>(s.data)[at(s, row, column)];
      to = a.partial ? v : to + v;
    };
    if (p.map.data) write(p.map, value);
    if (p.input_gradient.data) write(p.input_gradient, by_d * a.scale);
    if (p.target_gradient.data) write(p.target_gradient, -(by_d * a.scale));
  }
  if (!a.partial) return;
  double* const scratch = reinterpret_cast<double*>(shared);
  const double total = sum_of_block(double(sum), scratch);
  if (threadIdx.x == 0) a.partial[tile * terms] = total;
  if (terms > 1) {
    const double other = sum_of_block(double(second_sum), scratch);
    if (threadIdx.x == 0) a.partial[tile * terms + 1] = other;
  }
}

}  // namespace lamp_kernels::cuda
