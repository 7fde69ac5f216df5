// From what a kernel is told to its launches. Host code; torch is not known here.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../params.h"
#include "tiling.h"

namespace lamp_kernels::cuda {

// Of the device that is current. Throws std::runtime_error where that is not `expected`, or none.
Device current_device(int expected);

// Numbers of float64 that `compute` needs for the sums of tiles.
int64_t partial_size(const Params& p, bool wide, const Device& device);

// Enqueues on `stream` what writes map and gradients as `p` says, and factors * sums over each
// image to `shares` unless that is null: (N, T), or (N,) summed over the terms. All memory is the
// device's. `wide`: computes in float64, else in float32. Throws std::runtime_error where a launch
// fails.
void compute(Params p, bool wide, void* shares, bool per_term, double* partial,
             const Device& device, cudaStream_t stream);

}  // namespace lamp_kernels::cuda
