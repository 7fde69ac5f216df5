// In the backward pass, multiplies the stored gradient by the upstream factor, which only the
// device knows. If the factor is 1, as under loss.backward(), the kernel reads nothing but the
// factor.
#pragma once

#include "device.cuh"
#include "tiling.h"

namespace lamp_kernels::cuda {

struct ScaleArguments {
  void* gradient;      // (images, size), dense
  const void* factor;  // (images,), `stride` apart
  int64_t stride;
  int64_t size;         // elements per image
  int64_t per_image;    // blocks per image
  int64_t first_block;  // of this launch
};

// The widest vector that one instruction loads.
template <class T>
struct alignas(16) ScaleVector {
  static constexpr int kSize = 16 / sizeof(T);
  T at[kSize];
};

template <class T>
__global__ void __launch_bounds__(kScaleThreads)
    scale_kernel(const __grid_constant__ ScaleArguments a) {
  using Vector = ScaleVector<T>;
  const int64_t block = a.first_block + blockIdx.x, image = block / a.per_image;
  const T factor = static_cast<const T*>(a.factor)[image * a.stride];
  if (factor == T(1)) return;
  constexpr int64_t kChunk = kScaleBytes / sizeof(T);
  const int64_t begin = block % a.per_image * kChunk;
  const int64_t end = begin + kChunk < a.size ? begin + kChunk : a.size;
  T* const gradient = static_cast<T*>(a.gradient) + image * a.size;
  if (reinterpret_cast<uintptr_t>(gradient) % sizeof(Vector) == 0 && end - begin == kChunk) {
    auto* const vectors = reinterpret_cast<Vector*>(gradient + begin);
    LAMP_UNROLL
    for (int i = 0; i < kScaleBytes / (kScaleThreads * int(sizeof(Vector))); ++i) {
      Vector some = vectors[i * kScaleThreads + threadIdx.x];
      LAMP_UNROLL
      for (int k = 0; k < Vector::kSize; ++k) some.at[k] *= factor;
      vectors[i * kScaleThreads + threadIdx.x] = some;
    }
    return;
  }
  for (int64_t i = begin + threadIdx.x; i < end; i += kScaleThreads) gradient[i] *= factor;
}

}  // namespace lamp_kernels::cuda
