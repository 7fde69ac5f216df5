// Chooses the kernels and the tiles that compute SSIM: the fastest ones on a device, as predicted
// from counts of the compiled code. Host code.
#pragma once

#include "variants.h"

namespace lamp_kernels::cuda {

// one: loss and gradient in one launch. two: a launch for the loss and its planes of h, then a
// launch for the gradient, for as many image planes at a time as keep h in the L2 cache; without a
// gradient, only the first launch. fastest: whichever is predicted to be faster.
enum class Design { fastest, one, two };

struct Plan {
  Design design;
  double seconds;  // predicted total of all launches
  // The kernel of the one launch, or that of the losses.
  const Variant* variant;
  Tiling tiling;
  bool common;
  // The kernel of the gradients.
  const Variant* gradients;
  int gradients_count;  // 1 or 2; 0 if there is no such kernel
  Tiling gradients_tiling;
  bool gradients_common;
  int64_t planes_at_once;
};

// Returns the fastest plan of the given design. Throws std::runtime_error if the device cannot run
// the design for this shape.
Plan plan_ssim(const Params& p, bool use_double, const Device& device,
               Design design = Design::fastest);

}  // namespace lamp_kernels::cuda
