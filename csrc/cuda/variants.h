// The compiled variants of the SSIM kernels, by compute type, radius and number of gradients.
#pragma once

#include <cuda_runtime_api.h>

#include "tiling.h"

namespace lamp_kernels::cuda {

// One launch of one kernel.
struct SsimLaunch {
  const Params& p;
  Tiling tiling;
  TileRange tiles;
  int64_t blocks;
  bool common;  // see the kernel
  double* partial;
  int64_t first_h_plane;  // this, h and shifts: only for the design with two launches
  void* h;
  void* shifts;
  const Device& device;
  cudaStream_t stream;
};

struct Variant {
  KernelResources resources;
  void (*launch)(const SsimLaunch&);
};

// The tables, for radius 1 .. kMaxRadius, spread over several files that compile in parallel. A
// null `launch` means that there is no such kernel.
//   double_one         float64, loss and gradients in one launch; 0 .. 2 gradients
//   float_one          float32, loss and gradients in one launch; 1 or 2 gradients
//   float_one_common   the same, specialized for the common case; 1 gradient
//   float_losses       float32, the first of two launches; 0 .. 2 gradients
//   float_gradients    float32, the second of two launches; 1 or 2 gradients
const Variant& double_one(int radius, int gradients);
const Variant& float_one(int radius, int gradients);
const Variant& float_one_common(int radius, int gradients);
const Variant& float_losses(int radius, int gradients);
const Variant& float_gradients(int radius, int gradients);

void check(cudaError_t status, const char* what);

}  // namespace lamp_kernels::cuda
