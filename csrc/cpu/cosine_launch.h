// Runs the cosine kernel on all tiles, in parallel, and reduces their sums on the calling thread.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>

#include "isa.h"
#include "launch.h"

namespace lamp_kernels {

// As `compute`, for the cosine loss, which is the only term.
template <class T, class ParallelFor>
void compute_cosine(CosineParams c, T* scaled_sums, Sums sums, ParallelFor&& parallel_for) {
  Params& p = c.p;
  const bool for_input = p.input_gradient.data, for_target = p.target_gradient.data;
  if (for_target && !for_input) {  // swap: the loss is symmetric in its images
    std::swap(p.input, p.target);
    std::swap(p.input_gradient, p.target_gradient);
  }
  const int gradients = int(for_input) + int(for_target);
  const bool empty = p.batch * p.height * p.width == 0;
  const int64_t per_image = empty ? 0 : c.tiles_per_image();
  std::unique_ptr<double[]> partial(new double[p.batch * per_image]);
  if (!empty) {
    const RunCosine run = isa().run_cosine;
    const int64_t size = std::min(p.width, CosineParams::kPositions) * p.channels;
    parallel_for(int64_t(0), c.tiles(), std::max<int64_t>(1, kPixelsWorthAThread * 10 / size),
                 [&](int64_t begin, int64_t end) {
                   run(c, sizeof(T) == sizeof(double), gradients, begin, end, partial.get());
                 });
  }
  add_up(p, 1, partial.get(), per_image, scaled_sums, sums);
}

}  // namespace lamp_kernels
