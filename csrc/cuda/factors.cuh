// For the SSIM kernels, which read the factors of an image from memory: those that all images share.
#pragma once

#include "device.cuh"

namespace lamp_kernels::cuda {

constexpr int kFactorThreads = 256;

struct FactorArguments {
  void* factors;  // (images, terms)
  int64_t first;  // of this launch
  int64_t count;  // of all
  int terms;
  double shared_factors[kMaxTerms];
};

template <class T>
__global__ void __launch_bounds__(kFactorThreads)
    factor_kernel(const __grid_constant__ FactorArguments a) {
  const int64_t i = (a.first + blockIdx.x) * kFactorThreads + threadIdx.x;
  if (i < a.count) static_cast<T*>(a.factors)[i] = T(a.shared_factors[i % a.terms]);
}

}  // namespace lamp_kernels::cuda
