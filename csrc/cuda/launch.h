// From what a kernel is told to its launches. Host code; torch is not known here.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../params.h"
#include "plan.h"

namespace lamp_kernels::cuda {

// Throws std::runtime_error where another device is current, or none.
void expect_device(int expected);
// Asks for clocks, which takes a millisecond.
Device describe_device(int device);

// One call, cut into tiles for a device. Its memory is all of that device.
class Call {
 public:
  // `use_double`: computes in float64, else in float32. Throws std::runtime_error for what no launch can
  // do, and for a design that does not serve it.
  Call(const Params& p, bool use_double, const Device& device, Design design = Design::fastest);

  // What `enqueue` needs beside the tensors: sums of tiles, planes of h, shifts.
  int64_t scratch_bytes() const;

  // Of SSIM; may be replaced by another one for the same design.
  const Plan& plan() const { return plan_; }
  void use(const Plan& plan);

  // Enqueues on `stream` what writes map and gradients as the parameters say, and factors * sums
  // over each image, added up as `sums` says, to `scaled_sums` unless that is null. `scratch` is aligned
  // as an allocation is. Throws std::runtime_error where a launch fails.
  void enqueue(void* scaled_sums, Sums sums, void* scratch, cudaStream_t stream) const;

 private:
  Params p_;
  bool use_double_;
  Device device_;
  Plan plan_{};
  int64_t per_plane_ = 0;  // tiles whose sums there are

  int64_t planes() const { return p_.batch * p_.channels; }
  // Bytes from the start of the scratch.
  int64_t h_at() const;
  int64_t shifts_at() const;
  void enqueue_ssim(char* scratch, cudaStream_t stream) const;
};

// Enqueues the multiplication of each image of a dense `gradient` (images, size) by its factor;
// factors lie `stride` apart. Nothing is written where that is 1.
void scale(void* gradient, const void* factor, int64_t stride, int64_t images, int64_t size,
           bool use_double, const Device& device, cudaStream_t stream);

}  // namespace lamp_kernels::cuda
