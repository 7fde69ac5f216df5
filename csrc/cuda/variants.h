// The variants of the SSIM kernels: by the type computed in, the radius and the gradients.
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
  bool common;  // as the kernel says
  double* partial;
  int64_t first_h_plane;  // these for the design with two launches
  void* h;
  void* shifts;
  const Device& device;
  cudaStream_t stream;
};

struct Variant {
  KernelResources resources;
  void (*launch)(const SsimLaunch&);
};

// Of radius 1 .. kMaxRadius. A file each, so that they compile side by side; a null launch: there is
// no such kernel.
//   double_one, float_one   loss and gradients in one launch; in float32 with 1 or 2 gradients
//   float_one_common        the same without what is rare, with 1 gradient
//   float_losses            0 .. 2 gradients
//   float_gradients         1 or 2
const Variant& double_one(int radius, int gradients);
const Variant& float_one(int radius, int gradients);
const Variant& float_one_common(int radius, int gradients);
const Variant& float_losses(int radius, int gradients);
const Variant& float_gradients(int radius, int gradients);

void check(cudaError_t status, const char* what);

}  // namespace lamp_kernels::cuda
