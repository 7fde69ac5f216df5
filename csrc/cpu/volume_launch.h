// Runs the kernel of volumes on all boxes, in parallel; see launch.h.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>

#include "isa.h"
#include "launch.h"

namespace lamp_kernels {

template <class T, class ParallelFor>
void compute_volumes(Volume v, T* scaled_sums, Sums sums, ParallelFor&& parallel_for) {
  Params& p = v.plane;
  const bool for_input = p.input_gradient.data, for_target = p.target_gradient.data;
  if (for_target && !for_input) {  // swap: every term is symmetric in its images
    std::swap(p.input, p.target);
    std::swap(p.input_gradient, p.target_gradient);
    std::swap(v.step.input, v.step.target);
    std::swap(v.step.input_gradient, v.step.target_gradient);
  }
  const int gradients = int(for_input) + int(for_target);
  const VolumeTiling tiling(v);
  std::unique_ptr<double[]> partial(new double[tiling.boxes() * p.terms.count()]);
  const RunBoxes run = isa().run_boxes;
  parallel_for(int64_t(0), tiling.boxes(),
               std::max<int64_t>(1, kPixelsWorthAThread / tiling.voxels()),
               [&](int64_t begin, int64_t end) {
                 run(v, tiling, sizeof(T) == sizeof(double), gradients, begin, end, partial.get());
               });
  add_up(p, p.terms.count(), partial.get(), tiling.boxes_per_volume() * p.channels, scaled_sums,
         sums);
}

}  // namespace lamp_kernels
