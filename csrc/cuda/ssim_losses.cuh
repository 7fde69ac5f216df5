// SSIM's loss at every position, and for a gradient the planes of h that it takes, to memory:
// ssim_gradients.cuh, the second launch, makes the gradient of them. Without a gradient, the map.
//
//   pixels (row)  --RowReader-->       shared: d, s of the row, about the tile's shifts
//   d, s          --along_x--> G_x of d, s, d^2, s^2 at a thread's column
//   these         --push-->            G_y of them: a finished row, radius rows later
//   moments       --statistics-->      loss, and h to memory
//
// A block walks down a tile, a thread for each column. There are two rows in shared memory, of which
// one is written while the other is read, and one barrier a row.
#pragma once

#include "moments.cuh"

namespace lamp_kernels::cuda {

// `common`: images of T whose columns lie side by side, no weight, no pointwise term and no map.
template <class T, int radius, int gradients, bool common>
class SsimLosses {
  using PixelRow = Pixel<T>*;

  const SsimArguments<T>& a;
  const Params& p;
  const Tile tile;
  const Factors<T, common> factor;
  PixelRow row, other;  // of pixels: the one to be read next, and the one to be written after it
  double* scratch;
  SsimConstants<T> constants;
  RowReader<T, radius, 1, common> reader;
  MomentWindows<T, radius, 1, SumsInRegisters<T, radius>> windows;
  Sum<T> sums[kMetrics];  // by metric
  const Edges edge_rows;
  const int column;  // of the image
  bool counted;      // whether the tile has it, and the loss's grid
  T own_factor;      // of the slope; 0 where it is not counted
  const HPlane<T, gradients> h;
  const uint32_t pair_at, rest_at;  // in a row of h

 public:
  LAMP_DEVICE SsimLosses(const SsimArguments<T>& arguments, unsigned char* shared)
      : a(arguments), p(a.p), tile(a.tiling.tile(a.tiles, blockIdx.x)), factor(p, tile.image),
        row(reinterpret_cast<PixelRow>(reinterpret_cast<double*>(shared) + kScratch)),
        other(row + blockDim.x + 2 * radius), scratch(reinterpret_cast<double*>(shared)),
        constants(a.constants), reader(p, tile, first_row() - radius, tile.column - radius),
        edge_rows(p, p.height), column(tile.column + int(threadIdx.x)),
        h(a.h_of(a.tiling.plane(tile), gradients), a.tiling.h_width()), pair_at(h.pair_at(column)),
        rest_at(h.rest_at(column)) {
    T* none = nullptr;
    windows.clear(none);
    counted = column < tile.end_column && grid_axis(p, p.width).at(column) == column;
  }

  LAMP_DEVICE void run() {
    reader.template fetch<0>();
    reader.continue_run();
    reader.template fetch<1>();
    const Shifts<T> shifts = shifts_of<common>(p, tile, a.scale, reinterpret_cast<T*>(scratch));
    constants.shift_d = shifts.d;
    constants.shift_s = shifts.s;
    own_factor = counted ? factor.of[0] * Edges(p, p.width).factor<T>(column) : T(0);
    if constexpr (gradients > 0) {
      Shifts<T>* const twice = a.shifts_of(tile);
      for (int i = tile.row + threadIdx.x; i < tile.end_row; i += blockDim.x)
        twice[i] = {T(2) * shifts.d, T(2) * shifts.s};
    }
    warm_up();
    walk();
    if constexpr (!common) pointwise();
    write_sums<common>(a, sums, scratch);
  }

 private:
  // Of the loss's rows, those that the tile has.
  LAMP_DEVICE int first_row() const { return max(tile.row, grid_axis(p, p.height).begin); }
  LAMP_DEVICE int end_row() const { return min(tile.end_row, grid_axis(p, p.height).end); }

  // The 2 radius rows of pixels that do not fill the windows yet. They have a loop of their own, as
  // nothing beside a branch runs beside what is in it. Such a row takes less time than one needs to
  // come: two are on their way.
  LAMP_DEVICE void warm_up() {
    int left = 2 * radius;
    while (left > 0) {
      reader.continue_run();
      const int stop = left - min(reader.left_in_run(), left);
      LAMP_ROLLED
      while (left > stop && !windows.must_follow()) {
        push_row<0>();
        if (--left == stop || windows.must_follow()) {
          reader.swap_buffers();
          break;
        }
        push_row<1>();
        --left;
      }
      if (windows.must_follow()) windows.follow(other, a.tap);
    }
    reader.keep_first_buffer();
  }
  // The rows after them, each of which brings one of the loss, radius rows above it.
  LAMP_DEVICE void walk() {
    int loss_row = first_row();
    const int stop = end_row();
    while (loss_row < stop) {
      reader.continue_run();
      const int some = min(loss_row + min(reader.left_in_run(), Sum<T>::kFlushEvery), stop);
      for (; loss_row < some && !windows.must_follow(); ++loss_row)
        statistics(loss_row, push_row<0>());
      sums[0].flush();
      if (windows.must_follow()) windows.follow(other, a.tap);
    }
  }
  template <int buffer>
  LAMP_DEVICE Moments<T> push_row() {
    reader.template deposit<buffer>(row, a.scale, constants.shift_d, constants.shift_s);
    // Before the barrier, else the compiler asks for some when it is late.
    reader.template fetch<buffer>();
    __syncthreads();
    Moments<T> moments;
    windows.push_row(row, a, &moments);
    PixelRow const read = row;
    row = other;
    other = read;
    return moments;
  }

  LAMP_DEVICE void statistics(int row, const Moments<T>& moments) {
    const Dissimilarity<T> at = ssim(moments, constants);
    const Amplified<T> amplified = amplified_loss<common>(at.loss, a.formula.amplification);
    T slope = own_factor * edge_rows.factor<T>(row) * amplified.slope;
    T loss = amplified.value;
    if constexpr (!common) {
      if (p.weight.data && counted) {
        const T weight = weight_at<T>(p, tile, row, column);
        slope *= weight;
        loss *= weight;
      }
    }
    if (counted) sums[0].partial += loss;
    if constexpr (gradients == 0) {
      if (!common && p.map.data && counted)
        *element<T>(p.map, tile, row, column) = amplified.value * factor.of[0];
    } else {
      const Adjoint<T> adjoint = ssim_adjoint(moments.mean_d, moments.mean_s, at, slope, constants);
      HRest<T, gradients> rest;
      rest.at[0] = adjoint.s + adjoint.d;
      if constexpr (gradients == 2) rest.at[1] = adjoint.s - adjoint.d;
      if (counted) {
        char* const h_row = h.row(row);
        const HPair<T> pair{adjoint.ss, adjoint.dd};
        auto* const to_pair = reinterpret_cast<HPair<T>*>(h_row + pair_at);
        auto* const to_rest = reinterpret_cast<HRest<T, gradients>*>(h_row + rest_at);
        LAMP_IS_GLOBAL(to_pair);
        LAMP_IS_GLOBAL(to_rest);
        *to_pair = pair;
        *to_rest = rest;
      }
    }
  }

  // The values of the pointwise terms.
  LAMP_DEVICE void pointwise() {
    if (!p.terms.pointwise() || column >= tile.end_column) return;
    for (int row = tile.row; row < tile.end_row; ++row) {
      const T value = pixel_terms(a, tile, factor, row, column, sums).value;
      if (gradients == 0 && p.map.data) *element<T>(p.map, tile, row, column) += value;
      if ((row - tile.row) % Sum<T>::kFlushEvery == Sum<T>::kFlushEvery - 1) {
        LAMP_UNROLL
        for (int m = 1; m < kMetrics; ++m) sums[m].flush();
      }
    }
  }
};

template <class T, int radius, int gradients>
constexpr KernelResources losses_resources() {
  KernelResources r;
  r.radius = radius;
  r.pixel_bytes = 2 * 2 * int(sizeof(T));
  r.warps_at_once = radius < 7 ? 16 : 12;  // as the launch bounds and the registers have it
  r.cycles[0] = 690;
  r.cycles[1] = 680 + 20 * radius;
  r.cycles[2] = 740 + 90 * radius;
  r.warming = 0.65;
  r.beside[0] = 3300;
  r.beside[1] = 820;
  r.bytes = 2 * int(sizeof(T));
  return r;
}

// Blocks on a multiprocessor. Of 128 registers nvcc 13.0 spills some of windows of 13 for compute
// capability 7.5.
template <int radius>
constexpr int losses_blocks() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  return radius < 6 ? 2 : 1;
#else
  return radius < 7 ? 2 : 1;
#endif
}

template <class T, int radius, int gradients>
__global__ void __launch_bounds__(kMostWarps* kWarp, losses_blocks<radius>())
    ssim_losses_kernel(const __grid_constant__ SsimArguments<T> a) {
  LAMP_SHARED(shared);
  if (a.common)
    SsimLosses<T, radius, gradients, true>(a, shared).run();
  else
    SsimLosses<T, radius, gradients, false>(a, shared).run();
}

}  // namespace lamp_kernels::cuda
