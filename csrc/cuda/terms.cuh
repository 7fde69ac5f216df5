// Shared by all SSIM kernels, besides the windows: their arguments, the pointwise terms of a pixel,
// block sums, and the layout of the planes of h.
#pragma once

#include "centering.cuh"
#include "windows.cuh"

namespace lamp_kernels::cuda {

template <class T>
struct SsimArguments {
  Params p;
  TileGrid tiling;
  TileRange tiles;  // of this launch
  T tap[kMaxRadius + 1];
  int rows_to_follow;          // see below
  T scale;                     // if all images share it
  SsimConstants<T> constants;  // the kernel fills in the tile's shifts
  LossFormula<T> formula;
  bool common;      // whether the kernel may use its specialization for the common case
  double* partial;  // (tiles of all planes, terms)
  // For the design with two launches, which processes a group of planes at a time:
  int64_t first_h_plane;  // the first plane of the group
  T* h;                   // (planes, rows, columns as in HPlane)
  Shifts<T>* shifts;      // (planes, strips, rows): twice the shifts that h is relative to

  LAMP_DEVICE Shifts<T>* shifts_of(int64_t plane) const {
    return shifts + (plane - first_h_plane) * tiling.strips * tiling.height;
  }
  LAMP_DEVICE Shifts<T>* shifts_of(const Tile& tile) const {
    return shifts_of(tiling.plane(tile)) + tiling.strip_of(tile.column) * tiling.height;
  }
  LAMP_DEVICE T* h_of(int64_t plane, int gradients) const {
    return h + (plane - first_h_plane) * tiling.h_plane(gradients);
  }
};

// How many rows beyond an edge MomentWindows (moments.cuh) pushes before it moves its shift to
// them: as many as it takes until the window that completes with the next row sees at least 1/200
// of that side.
inline int rows_to_follow(const Params& p) {
  int rows = 1;
  double seen = p.taps[p.radius] + p.taps[p.radius - 1];  // by the window completing a row later
  while (seen < 0.005) seen += p.taps[p.radius - ++rows];
  return rows;
}

template <class T>
LAMP_DEVICE T weight_at(const Params& p, const Tile& tile, int row, int column) {
  return p.weight.data ? load_at<T>(p.weight, tile, row, column) : T(1);
}
template <class T>
LAMP_DEVICE T* element(const TensorView& s, const Tile& tile, int row, int column) {
  return static_cast<T*>(s.data) + plane_of(s, tile.image, tile.channel) + row * s.row +
         column * s.column;
}

// 1 / data_range of a tile's image. `common`: all images share it, so that the compiler reads it
// from constant memory, as an operand, and keeps no register for it.
template <bool common, class T>
LAMP_DEVICE T scale_of(const SsimArguments<T>& a, const Tile& tile) {
  return common ? a.scale : a.p.template scale_of<T>(tile.image);
}

// The pointwise terms of one pixel. Adds weight times A(L) to `sums`, by metric. Reads the pixels
// again, because subtracting the shift has cost d some digits.
template <class T, bool common>
LAMP_DEVICE PointwiseSum<T> pixel_terms(const SsimArguments<T>& a, const Tile& tile,
                                        const Factors<T, common>& factor, T scale, int row,
                                        int column, Sum<T>* sums) {
  const T x = load_at<T>(a.p.input, tile, row, column);
  const T y = load_at<T>(a.p.target, tile, row, column);
  return pointwise_terms((x - y) * scale, weight_at<T>(a.p, tile, row, column), a.formula,
                         factor.of, [&](int m, T value) { sums[m].partial += value; });
}

// A(L). In float32, and if `common`, without a branch, so that the compiler can overlap it with
// other work.
template <bool common, class T>
LAMP_DEVICE Amplified<T> amplified_loss(T loss, const Amplification<T>& a) {
  if (sizeof(T) == 8 || (!common && !is_common(a.kind))) return amplify<T>(loss, a);
  const bool log = a.kind == Amplify::log;
  const Amplified<T> amplified = amplify_log(loss, a);
  return {log ? amplified.value : loss, log ? amplified.slope : T(1)};
}

// Writes the block's sum of each term; `sums` is indexed by metric. `common`: SSIM is the only
// term.
template <bool common, class T>
LAMP_DEVICE void write_sums(const SsimArguments<T>& a, Sum<T>* sums, double* scratch) {
  const Terms has = a.p.terms;
  const int64_t first = (a.tiles.first + blockIdx.x) * (common ? 1 : has.count());
  LAMP_UNROLL
  for (int m = 0; m < (common ? 1 : kMetrics); ++m) {
    if (m > 0 && !has.has(Metric(m))) continue;
    sums[m].flush();
    const double sum = sum_of_block(sums[m].total, scratch);
    if (threadIdx.x == 0) a.partial[first + has.position(Metric(m))] = sum;
  }
}

// ---- The planes of h, between the two launches -------------------------------------------------

// A row of h holds the pairs (ss, dd) of all image columns, followed by the "rests" of all columns:
// s + d and, with both gradients, s - d. So one instruction reads two numbers.
template <class T>
struct alignas(2 * sizeof(T)) HPair {
  T ss, dd;
};
template <class T, int gradients>
using HRest = Adjacent<T, gradients ? gradients : 1>;  // without a gradient, unused

// Applies G_x^T to a row of h in shared memory, pushes the results to the running sums of G_y^T,
// and returns in `planes` the pixel row that this completes, at a thread's columns: of ss, dd,
// s + d and, with both gradients, s - d. rebase(g, along, ss, dd) may replace `along`, the G_x^T of
// rest g, given the G_x^T of ss and dd.
template <int radius, int columns, int gradients, class T, class Sums, class Rebase>
LAMP_DEVICE void push_adjoint(const HPair<T>* pairs, const HRest<T, gradients>* rests, Sums* sums,
                              const T* tap, T (*planes)[2 + gradients], Rebase rebase) {
  const Seen<radius, columns, HPair<T>> pair(pairs);
  const Seen<radius, columns, HRest<T, gradients>> rest(rests);
  LAMP_UNROLL
  for (int c = 0; c < columns; ++c) {
    const int center = c + radius;
    auto finish = [&](int k, T along_x) {
      planes[c][k] = push<radius>(sums[k * columns + c], along_x, tap);
    };
    const T ss = adjoint_along_x<radius>([&](int k) { return pair.at[center + k].ss; }, tap);
    const T dd = adjoint_along_x<radius>([&](int k) { return pair.at[center + k].dd; }, tap);
    finish(0, ss);
    finish(1, dd);
    LAMP_UNROLL
    for (int g = 0; g < gradients; ++g) {
      const T along =
          adjoint_along_x<radius>([&](int k) { return rest.at[center + k].at[g]; }, tap);
      finish(2 + g, rebase(g, along, ss, dd));
    }
  }
}

// One plane of h, of `width` columns (Tiling::h_width()). It fits the L2 cache, so offsets in bytes
// fit 32 bits.
template <class T, int gradients>
struct HPlane {
  char* start;
  int width, row_bytes;

  LAMP_DEVICE HPlane(T* plane, int columns)
      : start(reinterpret_cast<char*>(plane)), width(columns),
        row_bytes(columns * (2 + gradients) * int(sizeof(T))) {}
  LAMP_DEVICE char* row(int i) const { return start + uint32_t(i * row_bytes); }
  // Offsets in bytes from the start of a row.
  LAMP_DEVICE uint32_t pair_at(int column) const { return column * uint32_t(sizeof(HPair<T>)); }
  LAMP_DEVICE uint32_t rest_at(int column) const {
    return width * uint32_t(sizeof(HPair<T>)) + column * uint32_t(sizeof(HRest<T, gradients>));
  }
};

}  // namespace lamp_kernels::cuda
