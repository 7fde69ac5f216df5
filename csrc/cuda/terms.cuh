// What the SSIM kernels share beside the windows: their arguments, the tile of a block, and the
// terms of a pixel.
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
  int rows_to_follow;  // of MomentWindows
  T scale;
  SsimConstants<T> constants;  // the shifts are the tile's
  LossFormula<T> formula;
  bool common;      // the kernel may take the way that leaves out what is rare
  double* partial;  // (tiles of all planes, terms)
  // Of the design with two launches, of the planes at once:
  int64_t first_h_plane;  // the first of them
  T* h;                   // (planes, rows, what HPlane says)
  Shifts<T>* shifts;      // (planes, strips, rows): twice the shifts that h is about

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

// Rows of the new side of an edge that are pushed before MomentWindows (moments.cuh) moves its shift there:
// then the window that ends with the next row sees at least 1/200 of that side.
inline int rows_to_follow(const Params& p) {
  int rows = 1;
  double seen = p.taps[p.radius] + p.taps[p.radius - 1];  // by windows that end a row later
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

// The pointwise terms of one pixel. Adds weight times A(L) to `sums`, by metric. From the pixels
// themselves: d about its shift has lost digits.
template <class T, bool common>
LAMP_DEVICE PointwiseSum<T> pixel_terms(const SsimArguments<T>& a, const Tile& tile,
                                        const Factors<T, common>& factor, int row, int column,
                                        Sum<T>* sums) {
  const T x = load_at<T>(a.p.input, tile, row, column);
  const T y = load_at<T>(a.p.target, tile, row, column);
  return pointwise_terms((x - y) * a.scale, weight_at<T>(a.p, tile, row, column), a.formula,
                         factor.of, [&](int m, T value) { sums[m].partial += value; });
}

// A(L). In float32 without a branch, if `common`: it would part what can run beside it.
template <bool common, class T>
LAMP_DEVICE Amplified<T> amplified_loss(T loss, const Amplification<T>& a) {
  if (sizeof(T) == 8 || (!common && !is_common(a.kind))) return amplify<T>(loss, a);
  const bool log = a.kind == Amplify::log;
  const Amplified<T> amplified = amplify_log(loss, a);
  return {log ? amplified.value : loss, log ? amplified.slope : T(1)};
}

// Writes the block's sums of the terms, which come by metric. `common`: SSIM is the only one.
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

// ---- The planes of h, between the two launches ---------------------------------------------------

// A row of h holds for each column of the image ss and dd, and behind these, for each again, s + d
// and, with both gradients, s - d: one instruction reads two numbers.
template <class T>
struct alignas(2 * sizeof(T)) HPair {
  T ss, dd;
};
template <class T, int gradients>
using HRest = Adjacent<T, gradients ? gradients : 1>;  // there is no h without a gradient

// G^T of a row of h that lies in shared memory, as far as a row of pixels is finished by it, at a
// thread's columns: of ss, dd, s + d and, with both gradients, s - d. `rebase(g, along, ss, dd)`: what
// goes on instead of `along`, rest g's G_x^T, given those of ss and dd.
template <int radius, int columns, int gradients, class T, class Sums, class Rebase>
LAMP_DEVICE void push_adjoint(const HPair<T>* pairs, const HRest<T, gradients>* rests, Sums* sums,
                              const T* tap, T (*planes)[2 + gradients], Rebase rebase) {
  const Seen<radius, columns, HPair<T>> pair(pairs);
  const Seen<radius, columns, HRest<T, gradients>> rest(rests);
  LAMP_UNROLL
  for (int c = 0; c < columns; ++c) {
    const int centre = c + radius;
    auto finish = [&](int k, T along_x) {
      planes[c][k] = push<radius>(sums[k * columns + c], along_x, tap);
    };
    const T ss = adjoint_along_x<radius>([&](int k) { return pair.at[centre + k].ss; }, tap);
    const T dd = adjoint_along_x<radius>([&](int k) { return pair.at[centre + k].dd; }, tap);
    finish(0, ss);
    finish(1, dd);
    LAMP_UNROLL
    for (int g = 0; g < gradients; ++g) {
      const T along =
          adjoint_along_x<radius>([&](int k) { return rest.at[centre + k].at[g]; }, tap);
      finish(2 + g, rebase(g, along, ss, dd));
    }
  }
}

// One plane of h, of `width` columns (Tiling::h_width()). As it is kept in a cache, 32 bits count its
// bytes.
template <class T, int gradients>
struct HPlane {
  char* start;
  int width, row_bytes;

  LAMP_DEVICE HPlane(T* plane, int columns)
      : start(reinterpret_cast<char*>(plane)), width(columns),
        row_bytes(columns * (2 + gradients) * int(sizeof(T))) {}
  LAMP_DEVICE char* row(int i) const { return start + uint32_t(i * row_bytes); }
  // Bytes from the start of a row.
  LAMP_DEVICE uint32_t pair_at(int column) const { return column * uint32_t(sizeof(HPair<T>)); }
  LAMP_DEVICE uint32_t rest_at(int column) const {
    return width * uint32_t(sizeof(HPair<T>)) + column * uint32_t(sizeof(HRest<T, gradients>));
  }
};

}  // namespace lamp_kernels::cuda
