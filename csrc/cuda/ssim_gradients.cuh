// The second of two launches: the gradient, from the planes of h that ssim_losses.cuh has written.
//
//   h (row)     --fetch, deposit-->    shared
//   h           --push_adjoint-->      G_x^T at a thread's columns, and G_y^T of that: a finished row,
//                                      radius rows later
//   adjoint, d, s  --finish-->         gradient
//
// d and s are read anew. Two rows of h are in shared memory, and there is one barrier a row. What
// pointwise terms there are beside SSIM add their gradient later (pixels.cuh).
#pragma once

#include "terms.cuh"

namespace lamp_kernels::cuda {

// `common`: images of T whose columns lie side by side, and where a thread has two columns images and
// gradients of which they may be read and written at once.
template <class T, int radius, int gradients, bool common>
class SsimGradients {
 public:
  static constexpr int kPlanes = 2 + gradients;
  // Two columns share what they read of shared memory, if 128 registers do.
  static constexpr int kColumns = gradients == 1 && radius <= 5 ? 2 : 1;

 private:
  // As in RowReader: h is read side by side by a warp.
  static constexpr int kPieces = kColumns + 1;
  using Pair = HPair<T>;
  using Rest = HRest<T, gradients>;
  using Values = Neighbours<T, kColumns>;

  const SsimArguments<T>& a;
  const Params& p;
  const Tile tile;
  const int length = blockDim.x * kColumns + 2 * radius;  // of a row of h
  Pair* pairs;  // two rows of these, two of those
  Rest* rests;
  const Edges edge_rows;
  const int column;  // the first of this thread's pixels
  const bool active;
  Levels<T> level;  // of the losses' tile that this one is in
  bool at_edge[kColumns];  // whether the image is mirrored there
  SumsInRegisters<T, radius> adjoint_sums[kPlanes * kColumns];

  // The row of h to come. Where the pieces of one lie, in bytes from its start.
  const HPlane<T, gradients> h;
  int h_row, step;
  int h_column[kPieces];  // -1 where there is none
  bool inside[kPieces];   // whether the grid has such a column and such a row
  Levels<T> higher[kPieces];  // twice how much higher the level here is than that of h
  uint32_t pair_at[kPieces], rest_at[kPieces];
  Pair next_pair[kPieces];
  Rest next_rest[kPieces];

  // The planes of the images and of the gradients, and the pixels to come.
  using Stride = std::conditional_t<common, int, int64_t>;
  const char *x, *y;
  Stride x_row, y_row;  // bytes
  T *by_x, *by_y;
  Values next_x, next_y;

 public:
  LAMP_DEVICE SsimGradients(const SsimArguments<T>& arguments, unsigned char* shared)
      : a(arguments), p(a.p), tile(a.tiling.tile(a.tiles, blockIdx.x)),
        pairs(reinterpret_cast<Pair*>(shared)), rests(reinterpret_cast<Rest*>(pairs + 2 * length)),
        edge_rows(p, p.height), column(tile.column + kColumns * int(threadIdx.x)),
        active(column < tile.end_column),
        h(a.h_of(a.tiling.plane(tile), gradients), a.tiling.h_width()), x(plane(p.input)),
        y(plane(p.target)), x_row(Stride(p.input.row * size_in(p.input))),
        y_row(Stride(p.target.row * size_in(p.target))), by_x(element<T>(p.input_gradient, tile, 0, 0)), next_x{}, next_y{} {
    level = level_at(tile.row, tile.column);
    LAMP_UNROLL
    for (int k = 0; k < kPlanes * kColumns; ++k) {
      T* none = nullptr;
      adjoint_sums[k].clear(none);
    }
    const Edges edge_columns(p, p.width);
    LAMP_UNROLL
    for (int c = 0; c < kColumns; ++c) at_edge[c] = edge_columns.has(column + c);
    const Axis columns = grid_axis(p, p.width);
    LAMP_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      const int at = columns.at(tile.column - radius + piece<kColumns>(i));
      h_column[i] = at;
      pair_at[i] = h.pair_at(max(at, 0));
      rest_at[i] = h.rest_at(max(at, 0));
      next_pair[i] = {};
      next_rest[i] = {};
    }
    if constexpr (gradients == 2) by_y = element<T>(p.target_gradient, tile, 0, 0);
  }

  LAMP_DEVICE void run() {
    const Axis grid = grid_axis(p, p.height);
    // Row v of h brings row v - radius of the gradient. Meanwhile the row after it is on its way, and
    // so are the pixels of the next row of the gradient.
    int v = tile.row - radius;
    const int stop = tile.end_row + radius;
    seat(grid, v);
    fetch();
    deposit(0);
    int buffer = 0;
    while (v < stop) {
      const int end = seat(grid, v + 1);
      for (const int some = min(end - 1, stop); v < some; ++v) {
        __syncthreads();
        const int row = v - radius;
        const Values x_here = next_x, y_here = next_y;
        fetch();
        if (row + 1 >= tile.row) fetch_pixels(min(row + 1, tile.end_row - 1));
        T planes[kColumns][kPlanes];
        push_adjoint<radius, kColumns, gradients>(pairs + buffer, rests + buffer, adjoint_sums, a.tap,
                                                  planes);
        if (row >= tile.row && active) finish(row, x_here, y_here, planes);
        buffer = length - buffer;
        deposit(buffer);
      }
    }
  }

 private:
  LAMP_DEVICE bool has_piece(int i) const { return i < kColumns || threadIdx.x < 2 * radius; }

  LAMP_DEVICE Levels<T> level_at(int row, int column) const {
    const Tiling& t = a.losses_tiling;
    return a.levels[a.tiling.plane(tile) * t.tiles_per_plane() + t.tile_at(row, column)];
  }

  // From row v on fetch() reads the rows of the grid that the border rule puts there, as far as they
  // follow one another in one band of the losses' tiles. Returns the first row that does not.
  LAMP_DEVICE int seat(const Axis& grid, int v) {
    const Axis::Run run = grid.run(v);
    h_row = max(run.at, 0);
    step = run.step;
    const int height = a.losses_tiling.band_height, in_band = h_row % height;
    LAMP_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      inside[i] = h_column[i] >= 0 && run.at >= 0;
      const Levels<T> there = level_at(h_row, max(h_column[i], 0));
      higher[i] = {T(2) * (level.d - there.d), T(2) * (level.s - there.s)};
    }
    if (step == 0) return run.end;
    return min(run.end, v + (step > 0 ? height - in_band : in_band + 1));
  }
  LAMP_DEVICE void fetch() {
    const char* const row = h.row(h_row);
    LAMP_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      if (!has_piece(i)) continue;
      next_pair[i] = inside[i] ? *reinterpret_cast<const Pair*>(row + pair_at[i]) : Pair{};
      next_rest[i] = inside[i] ? *reinterpret_cast<const Rest*>(row + rest_at[i]) : Rest{};
    }
    h_row += step;
  }
  // Writes the row that was asked for last, about the level here.
  LAMP_DEVICE void deposit(int buffer) const {
    LAMP_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      if (!has_piece(i)) continue;
      const Pair pair = next_pair[i];
      Rest rest = next_rest[i];
      const T by_s = pair.ss * higher[i].s, by_d = pair.dd * higher[i].d;
      rest.at[0] += by_s + by_d;
      if constexpr (gradients == 2) rest.at[1] += by_s - by_d;
      pairs[buffer + piece<kColumns>(i)] = pair;
      rests[buffer + piece<kColumns>(i)] = rest;
    }
  }

  LAMP_DEVICE static int64_t size_in(const Source& s) { return common ? sizeof(T) : size_of(s.dtype); }
  LAMP_DEVICE const char* plane(const Source& s) const {
    return static_cast<const char*>(s.data) +
           plane_of(s, tile.image, tile.channel) * size_of(s.dtype);
  }
  LAMP_DEVICE void fetch_pixels(int row) {
    if (!active) return;
    read(p.input, x + int64_t(row) * x_row, next_x);
    read(p.target, y + int64_t(row) * y_row, next_y);
  }
  LAMP_DEVICE void read(const Source& s, const char* row, Values& to) const {
    if constexpr (common) {
      const auto* const at = reinterpret_cast<const Values*>(row + uint32_t(column) * sizeof(T));
      LAMP_IS_GLOBAL(at);
      to = *at;
    } else {
      LAMP_UNROLL
      for (int c = 0; c < kColumns; ++c)
        if (column + c < tile.end_column)
          to.at[c] = load_as<T>(row + (column + c) * s.column * size_in(s), s.dtype);
    }
  }

  LAMP_DEVICE void finish(int row, const Values& x_here, const Values& y_here,
                          const T (*planes)[kPlanes]) {
    const T row_share = a.scale * edge_rows.share<T>(row);
    Values x_values, y_values;
    LAMP_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      const T* plane = planes[c];
      const T share = at_edge[c] ? T(0.5) * row_share : row_share;
      const T d = (x_here.at[c] - y_here.at[c]) * a.scale - level.d;
      const T s = (x_here.at[c] + y_here.at[c]) * a.scale - level.s;
      const T by_s = T(2) * s * plane[0], by_dd = T(2) * d * plane[1];
      x_values.at[c] = (plane[2] + by_s + by_dd) * share;
      if constexpr (gradients == 2)
        y_values.at[c] = (plane[3] + by_s - by_dd) * share;
    }
    write(p.input_gradient, by_x + int64_t(row) * Stride(p.input_gradient.row), x_values);
    if constexpr (gradients == 2)
      write(p.target_gradient, by_y + int64_t(row) * Stride(p.target_gradient.row), y_values);
  }
  LAMP_DEVICE void write(const Sink& s, T* row, const Values& values) const {
    if constexpr (common && kColumns > 1) {
      auto* const at = reinterpret_cast<Values*>(row + uint32_t(column));
      LAMP_IS_GLOBAL(at);
      *at = values;
    } else {
      LAMP_UNROLL
      for (int c = 0; c < kColumns; ++c) {
        T* const at = row + (column + c) * s.column;
        LAMP_IS_GLOBAL(at);
        if (column + c < tile.end_column) *at = values.at[c];
      }
    }
  }
};

template <class T, int radius, int gradients>
constexpr KernelResources gradients_resources() {
  KernelResources r;
  r.radius = radius;
  r.columns = SsimGradients<T, radius, gradients, true>::kColumns;
  r.pixel_bytes = 2 * (2 + gradients) * int(sizeof(T));
  r.warps_at_once = 16;  // as the launch bounds have it
  const bool two = r.columns == 2;
  r.cycles[0] = two ? 950 : 1100;
  r.cycles[1] = two ? 1000 : 1250;
  r.cycles[2] = (two ? 1090 : 1250) + 100 * radius;
  r.bytes = (2 + gradients) * int(sizeof(T));
  return r;
}

// Blocks on a multiprocessor, where a thread has two columns: as strips are those of the losses, such
// blocks have half of the most warps. Of 128 registers nvcc 13.0 spills some for compute capability
// 12.0.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kGradientBlocks = 3;
#else
constexpr int kGradientBlocks = 4;
#endif

template <class T, int radius, int gradients>
__global__ void __launch_bounds__(
    kMostWarps* kWarp / SsimGradients<T, radius, gradients, true>::kColumns,
    SsimGradients<T, radius, gradients, true>::kColumns == 2 ? kGradientBlocks : 2)
    ssim_gradients_kernel(const __grid_constant__ SsimArguments<T> a) {
  LAMP_SHARED(shared);
  if (a.common)
    SsimGradients<T, radius, gradients, true>(a, shared).run();
  else
    SsimGradients<T, radius, gradients, false>(a, shared).run();
}

}  // namespace lamp_kernels::cuda
