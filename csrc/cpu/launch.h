// Runs a kernel on all tiles, in parallel, and reduces their sums on the calling thread.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>

#include "isa.h"

namespace lamp_kernels {

// The least work that makes waking a thread worthwhile, in pixels of SSIM. A pixel of a pointwise
// loss takes a tenth of the work.
constexpr int64_t kPixelsWorthAThread = 4096;

// Writes the factors * sums of the images to `scaled_sums`, unless it is null, added up as `sums`
// says. `partial` has the sums of `per_image` tiles for each image, by tile and term.
template <class T>
void add_up(const Params& p, int64_t terms, const double* partial, int64_t per_image,
            T* scaled_sums, Sums sums) {
  if (!scaled_sums) return;
  const T* factors = static_cast<const T*>(p.factors);
  double all = 0;
  for (int64_t image = 0; image < p.batch; ++image) {
    T of_image = 0;
    for (int64_t term = 0; term < terms; ++term) {
      double sum = 0;
      for (int64_t i = image * per_image; i < (image + 1) * per_image; ++i)
        sum += partial[i * terms + term];
      const int64_t at = image * terms + term;
      const T factor = factors ? factors[at] : T(p.shared_factors[term]);
      const double scaled_sum = double(factor) * sum;
      all += scaled_sum;
      of_image += T(scaled_sum);
      if (sums == Sums::terms) scaled_sums[at] = T(scaled_sum);
    }
    if (sums == Sums::images) scaled_sums[image] = of_image;
  }
  if (sums == Sums::batch) *scaled_sums = T(all);
}

// Writes the map and the gradients that `p` asks for. Unless `scaled_sums` is null, also writes the
// factors * sums of the images there, added up as `sums` says. parallel_for(begin, end, grain, f)
// calls f(begin, end) on parts of the range. The tiles' sums are always added in the same order,
// whichever threads computed them.
template <class T, class ParallelFor>
void compute(Params p, T* scaled_sums, Sums sums, ParallelFor&& parallel_for) {
  const bool for_input = p.input_gradient.data, for_target = p.target_gradient.data;
  if (for_target && !for_input) {  // swap: every term is symmetric in its images
    std::swap(p.input, p.target);
    std::swap(p.input_gradient, p.target_gradient);
  }
  if (p.weight.data == p.mask.data) p.weight = {};  // with a mask alone, kernels weight by it
  const int gradients = int(for_input) + int(for_target);
  const int64_t terms = p.terms.count();
  const bool empty = p.batch * p.channels * p.height * p.width == 0;
  const int64_t per_image = empty ? 0 : Tiling(p).tiles_per_plane() * p.channels;
  std::unique_ptr<double[]> partial(new double[p.batch * per_image * terms]);
  if (!empty) {
    const Tiling tiling(p);
    const RunTiles run = isa().run;
    const int64_t worth = kPixelsWorthAThread * (p.windowed() ? 1 : 10);
    parallel_for(int64_t(0), tiling.tiles(), std::max<int64_t>(1, worth / tiling.pixels()),
                 [&](int64_t begin, int64_t end) {
                   run(p, tiling, sizeof(T) == sizeof(double), gradients, begin, end,
                       partial.get());
                 });
  }
  add_up(p, terms, partial.get(), per_image, scaled_sums, sums);
}

}  // namespace lamp_kernels
