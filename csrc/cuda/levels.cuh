// The levels of each plane, for the design with two launches: the means of d and s over some pixels.
// The rounding of a variance grows with the square of the distance to the level.
#pragma once

#include "device.cuh"
#include "tiling.h"

namespace lamp_kernels::cuda {

constexpr int kLevelThreads = 256;
constexpr int kLevelPixels = 8;  // of a thread

template <class T>
struct LevelArguments {
  Params p;
  T scale;
  uint32_t first_plane;  // of this launch
  T* levels;             // (planes, 2)
};

// A block for each plane. What is not finite does not count, so that a NaN stays in its windows.
template <class T>
__global__ void __launch_bounds__(kLevelThreads)
    level_kernel(const __grid_constant__ LevelArguments<T> a) {
  LAMP_SHARED(shared);
  const Params& p = a.p;
  const uint32_t plane = a.first_plane + blockIdx.x, channels = uint32_t(p.channels);
  const uint32_t height = uint32_t(p.height), width = uint32_t(p.width);
  const int64_t x = plane_of(p.input, plane / channels, plane % channels);
  const int64_t y = plane_of(p.target, plane / channels, plane % channels);
  // All of a small plane. Of a large one points of the R2 sequence, which are evenly spread and meet
  // no texture's period: multiples of 1/g and 1/g^2 modulo 1, in units of 2^-32; g^3 = g + 1.
  constexpr uint32_t kAll = kLevelThreads * kLevelPixels;
  const int64_t pixels = p.height * p.width;
  bool there[kLevelPixels];
  T at_x[kLevelPixels], at_y[kLevelPixels];  // all asked for before the first is waited for
  LAMP_UNROLL
  for (int i = 0; i < kLevelPixels; ++i) {
    const uint32_t k = i * kLevelThreads + threadIdx.x;
    uint32_t row = uint32_t(uint64_t(k * 3242174889u) * height >> 32);
    uint32_t column = uint32_t(uint64_t(k * 2447445414u) * width >> 32);
    if (pixels <= kAll) row = k / width, column = k % width;
    there[i] = pixels > kAll || k < pixels;
    // What lies behind the last pixel is that again, and does not count.
    if (!there[i]) row = height - 1, column = width - 1;
    at_x[i] = load<T>(p.input, x + row * p.input.row + column * p.input.column);
    at_y[i] = load<T>(p.target, y + row * p.target.row + column * p.target.column);
  }
  T sum_d = 0, sum_s = 0, count = 0;
  LAMP_UNROLL
  for (int i = 0; i < kLevelPixels; ++i) {
    const T d = at_x[i] - at_y[i], s = at_x[i] + at_y[i];
    if (there[i] && d - d == T(0) && s - s == T(0)) sum_d += d, sum_s += s, count += 1;
  }
  T* const scratch = reinterpret_cast<T*>(shared);
  count = sum_of_block(count, scratch);
  sum_d = sum_of_block(sum_d, scratch);
  sum_s = sum_of_block(sum_s, scratch);
  if (threadIdx.x != 0) return;
  const T mean = a.scale / max(count, T(1));
  a.levels[2 * int64_t(plane)] = sum_d * mean;
  a.levels[2 * int64_t(plane) + 1] = sum_s * mean;
}

}  // namespace lamp_kernels::cuda
