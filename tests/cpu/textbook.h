// The losses as a textbook would compute them, in double precision and without any cleverness:
// what the kernels are compared with.
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

// Of `p` only the shape and the numbers are used; the data are what is passed beside it.
// weight: at image size, or empty for 1. factors: (N, T).
Result compute(const lamp_kernels::Params& p, const Image& input, const Image& target,
               const Image& weight, const std::vector<double>& factors);

}  // namespace textbook
