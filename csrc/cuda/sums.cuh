// The second, small launch: from the tiles' sums to those of the images.
#pragma once

#include "device.cuh"

namespace lamp_kernels::cuda {

constexpr int kSumThreads = 128;

struct SumArguments {
  const double* partial;  // (images, tiles of an image, terms)
  int64_t first_image;    // of this launch
  int64_t tiles;          // of an image
  int terms;
  bool per_term;
  const void* factors;    // (images, terms)
  void* shares;           // (images, terms), or (images,), their sum over the terms
};

// A block for each image; its threads share the tiles, always in the same way.
template <class T>
__global__ void __launch_bounds__(kSumThreads) sum_kernel(const __grid_constant__ SumArguments a) {
  LAMP_SHARED(shared);
  double* const scratch = reinterpret_cast<double*>(shared);
  const int64_t image = a.first_image + blockIdx.x;
  T all = 0;
  for (int k = 0; k < a.terms; ++k) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < a.tiles; i += kSumThreads)
      sum += a.partial[(image * a.tiles + i) * a.terms + k];
    sum = sum_of_block(sum, scratch);
    const int64_t at = image * a.terms + k;
    const T share = T(double(static_cast<const T*>(a.factors)[at]) * sum);
    all += share;
    if (a.per_term && threadIdx.x == 0) static_cast<T*>(a.shares)[at] = share;
  }
  if (!a.per_term && threadIdx.x == 0) static_cast<T*>(a.shares)[image] = all;
}

}  // namespace lamp_kernels::cuda
