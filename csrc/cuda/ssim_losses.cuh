// The first of two launches: computes the SSIM loss and, if a gradient is requested, writes the
// planes of h to global memory, from which the second launch (ssim_gradients.cuh) computes the
// gradient. Without a gradient, it can write the map.
//
//   pixels (1 row)  --RowReader-->    shared memory: d and s of the row, minus the tile's shifts
//   d, s            --along_x-->      G_x of d, s, d^2 and s^2, at a thread's column
//   G_x of these    --push-->         G_y of that: a row completes radius rows later
//   moments         --statistics-->   loss, and h to global memory
//
// A block walks down a tile row by row, one thread per column. Two rows in shared memory form a
// double buffer: one is written while the other is read. There is one barrier per row.
#pragma once

#include "moments.cuh"

namespace lamp_kernels::cuda {

// `common`: the images have dtype T and a column stride of 1, is_common(amplification), all images
// share one data_range, and there is no weight, pointwise term or map.
template <class T, int radius, int gradients, bool common>
class SsimLosses {
  using PixelRow = Pixel<T>*;

  const SsimArguments<T>& a;
  const Params& p;
  const Tile tile;
  const Factors<T, common> factor;
  const T scale;        // 1 / data_range
  PixelRow row, other;  // rows of pixels: the next one to read, and the one to write after it
  double* scratch;
  SsimConstants<T> constants;
  RowReader<T, radius, 1, common> reader;
  MomentWindows<T, radius, 1, SumsInRegisters<T, radius>> windows;
  Sum<T> sums[kMetrics];  // by metric
  const Edges edge_rows;
  const int column;  // in the image
  bool counted;      // whether this column is in the tile and in the loss's grid
  T own_factor;      // of the slope; 0 if not counted
  const HPlane<T, gradients> h;
  const uint32_t pair_at, rest_at;  // offsets in a row of h

 public:
  LAMP_DEVICE SsimLosses(const SsimArguments<T>& arguments, unsigned char* shared)
      : a(arguments), p(a.p), tile(a.tiling.tile(a.tiles, blockIdx.x)), factor(p, tile.image),
        scale(scale_of<common>(a, tile)),
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
    const Shifts<T> shifts = shifts_of<common>(p, tile, scale, reinterpret_cast<T*>(scratch));
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
  // The rows of the loss's grid that the tile contains.
  LAMP_DEVICE int first_row() const { return max(tile.row, grid_axis(p, p.height).begin); }
  LAMP_DEVICE int end_row() const { return min(tile.end_row, grid_axis(p, p.height).end); }

  // Pushes the first 2 radius rows of pixels, which do not complete a window yet. They have a
  // separate loop, because a branch would keep the compiler from overlapping instructions. Such a
  // row takes less time than a load's latency, so two rows are in flight.
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
  // Pushes the following rows, each of which completes the row of the loss that is radius rows
  // above it.
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
    reader.template deposit<buffer>(row, scale, constants.shift_d, constants.shift_s);
    // Before the barrier, else the compiler issues some loads late.
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

  // Computes the values of the pointwise terms.
  LAMP_DEVICE void pointwise() {
    if (!p.terms.pointwise() || column >= tile.end_column) return;
    for (int row = tile.row; row < tile.end_row; ++row) {
      const T value = pixel_terms(a, tile, factor, scale, row, column, sums).value;
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
  r.warps_at_once = radius < 7 ? 16 : 12;  // given by the launch bounds and the registers
  r.cycles[0] = 690;
  r.cycles[1] = 680 + 20 * radius;
  r.cycles[2] = 740 + 90 * radius;
  r.warmup = 0.65;
  r.overhead[0] = 3300;
  r.overhead[1] = 820;
  r.bytes = 2 * int(sizeof(T));
  return r;
}

// Blocks per multiprocessor, for the launch bounds. Limited to 128 registers, nvcc 13.0 spills for
// window size 13 on compute capability 7.5.
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
