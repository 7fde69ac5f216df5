// The losses computed the textbook way, in double precision and as simply as possible. The kernels
// are compared with them.
#pragma once

#include <cstdint>
#include <vector>

#include "params.h"

namespace textbook {

// A contiguous tensor (N, C, H, W).
using Image = std::vector<double>;

struct Result {
  std::vector<double> scaled_sums;  // (N, T): factors * sums of weight * A(L)
  Image map;  // sum over t of factors[0, t] * A(L); NaN outside the loss's grid
  Image input_gradient, target_gradient;  // of the sum of `scaled_sums`
};

// Uses only the shape and the options of `p`, not its pointers; the data are separate arguments.
// weight: at image size, or empty for a weight of 1. mask: at image size, or empty for none; the
// weight includes it. factors: (N, T). scales: 1 / data_range of each image. The map is 0
// where the mask is.
Result compute(const lamp_kernels::Params& p, const Image& input, const Image& target,
               const Image& weight, const Image& mask, const std::vector<double>& factors,
               const std::vector<double>& scales);

}  // namespace textbook
