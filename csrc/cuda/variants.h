// The variants of the SSIM kernel: by the type computed in, the radius and the gradients.
#pragma once

#include <cuda_runtime_api.h>

#include "tiling.h"

namespace lamp_kernels::cuda {

struct Variant {
  Demands demands;
  // Launches tiles first .. first + count - 1.
  void (*launch)(const Params&, const Tiling&, int64_t first, int64_t count, double* partial,
                 const Device&, cudaStream_t);
};

// radius 1 .. kMaxRadius, gradients 0 .. 2. A file each, so that they compile side by side.
const Variant& float_variant(int radius, int gradients);
const Variant& double_variant(int radius, int gradients);

void check(cudaError_t status, const char* what);

}  // namespace lamp_kernels::cuda
