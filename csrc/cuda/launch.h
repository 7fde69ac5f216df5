// From what a kernel is told to its launches. Host code; torch is not known here.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../params.h"
#include "tiling.h"

namespace lamp_kernels::cuda {

// Of the device that is current. Throws std::runtime_error where that is not `expected`, or none.
Device current_device(int expected);

// One call, cut into tiles for a device. Its memory is all of that device.
class Call {
 public:
  // `wide`: computes in float64, else in float32. Throws std::runtime_error for what no launch can
  // do.
  Call(const Params& p, bool wide, const Device& device);

  // Numbers of float64 that `enqueue` needs for the sums of tiles.
  int64_t partial_size() const { return planes() * per_plane_ * p_.terms(); }

  // Enqueues on `stream` what writes map and gradients as the parameters say, and factors * sums
  // over each image to `shares` unless that is null: (N, T), or (N,) summed over the terms. Throws
  // std::runtime_error where a launch fails.
  void enqueue(void* shares, bool per_term, double* partial, cudaStream_t stream) const;

 private:
  Params p_;
  bool wide_;
  Device device_;
  Tiling tiling_{};  // of SSIM
  int64_t per_plane_ = 0;  // tiles

  int64_t planes() const { return p_.batch * p_.channels; }
};

// Enqueues the multiplication of each image of a dense `gradient` (images, size) by its factor;
// factors lie `stride` apart. Nothing is written where that is 1.
void scale(void* gradient, const void* factor, int64_t stride, int64_t images, int64_t size,
           bool wide, const Device& device, cudaStream_t stream);

}  // namespace lamp_kernels::cuda
