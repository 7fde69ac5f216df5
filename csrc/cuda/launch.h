// Turns parameters into kernel launches. Host code, independent of torch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../params.h"
#include "plan.h"

namespace lamp_kernels::cuda {

// Throws std::runtime_error unless `expected` is the current CUDA device.
void expect_device(int expected);
// Takes a millisecond, because it queries clock rates.
Device describe_device(int device);

// One operator call, cut into tiles for a device. All of its memory must be on that device.
class Call {
 public:
  // `use_double`: compute in float64, else in float32. Throws std::runtime_error if the kernels do
  // not support the shape, or the requested design is not available for it.
  Call(const Params& p, bool use_double, const Device& device, Design design = Design::fastest);

  // The scratch memory that enqueue() needs: for sums of tiles, planes of h, and shifts.
  int64_t scratch_bytes() const;

  // The plan for SSIM. use() may replace it with another plan of the same design.
  const Plan& plan() const { return plan_; }
  void use(const Plan& plan);

  // Enqueues on `stream` the kernels that write the map and the gradients that the parameters ask
  // for and, unless `scaled_sums` is null, the factors * sums of the images, added up as `sums`
  // says. `scratch` must be aligned like a CUDA allocation. Throws std::runtime_error if a launch
  // fails.
  void enqueue(void* scaled_sums, Sums sums, void* scratch, cudaStream_t stream) const;

 private:
  Params p_;
  bool use_double_;
  Device device_;
  Plan plan_{};
  int64_t per_plane_ = 0;  // tiles per plane, each with its own sums

  int64_t planes() const { return p_.batch * p_.channels; }
  // Offsets in bytes from the start of the scratch memory.
  int64_t h_at() const;
  int64_t shifts_at() const;
  void enqueue_ssim(char* scratch, cudaStream_t stream) const;
};

// Enqueues the multiplication of each image of a dense `gradient` (images, size) by its factor.
// Factors are `stride` elements apart. An image whose factor is 1 is not touched.
void scale(void* gradient, const void* factor, int64_t stride, int64_t images, int64_t size,
           bool use_double, const Device& device, cudaStream_t stream);

}  // namespace lamp_kernels::cuda
