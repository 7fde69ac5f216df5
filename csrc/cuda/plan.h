// Which kernels compute SSIM, in which tiles: what takes the least time on a device by the counts of
// the compiled code. Host code.
#pragma once

#include "variants.h"

namespace lamp_kernels::cuda {

// one: loss and gradient in one launch. two: the loss and its planes of h, then the gradient, for as
// many image planes at a time as leave h in the L2 cache; without a gradient the first of these.
enum class Design { fastest, one, two };

struct Plan {
  Design design;
  double seconds;  // predicted, all launches
  // Of the one launch, or of the losses.
  const Variant* variant;
  Tiling tiling;
  bool common;
  // Of the gradients.
  const Variant* gradients;
  int gradients_count;  // 1 or 2, 0 for the losses alone
  Tiling gradients_tiling;
  bool gradients_common;
  int64_t planes_at_once;
};

// What is the fastest of the design. Throws std::runtime_error where the device or the shape has
// none.
Plan plan_ssim(const Params& p, bool use_double, const Device& device,
               Design design = Design::fastest);

}  // namespace lamp_kernels::cuda
