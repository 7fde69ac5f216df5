// The last, small launch: adds up the tiles' sums per image, or over the whole batch.
#pragma once

#include "device.cuh"
#include "sums.h"

namespace lamp_kernels::cuda {

struct SumArguments {
  const double* partial;  // (images, tiles of an image, terms)
  int64_t first_image;    // of this launch
  int64_t images;
  int64_t tiles;  // per image
  int terms;
  bool per_term;
  const void* factors;              // (images, terms), or null
  double shared_factors[kMetrics];  // the factors of every image, if null
  void* scaled_sums;  // (images, terms) if per_term, else (images,) or, for the batch, ()
};

// One block per image. Tiles are always assigned to its threads in the same way, so the order of
// the additions is fixed.
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
    const T factor = a.factors ? static_cast<const T*>(a.factors)[at] : T(a.shared_factors[k]);
    const T share = T(double(factor) * sum);
    all += share;
    if (a.per_term && threadIdx.x == 0) static_cast<T*>(a.scaled_sums)[at] = share;
  }
  if (!a.per_term && threadIdx.x == 0) static_cast<T*>(a.scaled_sums)[image] = all;
}

// One block for all images, which have the same factors. Rounds to T once, at the end.
template <class T>
__global__ void __launch_bounds__(kMostBatchThreads)
    batch_sum_kernel(const __grid_constant__ SumArguments a) {
  LAMP_SHARED(shared);
  const int64_t tiles = a.images * a.tiles;
  double sum = 0;
  for (int k = 0; k < a.terms; ++k) {
    double of_term = 0;
#pragma unroll 4
    for (int64_t i = threadIdx.x; i < tiles; i += blockDim.x) of_term += a.partial[i * a.terms + k];
    const T factor = a.factors ? static_cast<const T*>(a.factors)[k] : T(a.shared_factors[k]);
    sum += double(factor) * of_term;
  }
  sum = sum_of_block(sum, reinterpret_cast<double*>(shared));
  if (threadIdx.x == 0) *static_cast<T*>(a.scaled_sums) = T(sum);
}

}  // namespace lamp_kernels::cuda
