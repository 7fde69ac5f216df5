// Computes the SSIM loss and its gradient in one launch, together with any pointwise terms. A block
// walks down a tile row by row; each thread has one or two columns. Independent of torch and of how
// the kernel is launched.
//
//   pixels (1 row)  --RowReader-->      shared memory: d and s of the row, minus the tile's shifts
//   d, s            --along_x-->        G_x of d, s, d^2 and s^2, at a thread's columns
//   G_x of these    --push-->           G_y of that: a row completes radius rows later
//   moments         --statistics-->     loss, and h planes to shared memory
//   h planes        --push_adjoint-->   G_x^T, and G_y^T of that: a row completes radius rows later
//   adjoint, d, s   --finish-->         gradient
//
// The h planes are the derivatives of the loss with respect to the windowed moments; the transposed
// window (adjoint) turns them into the gradient.
//
// There is one barrier per row (r is the radius):
//
//   before it   pixel row v is written (ring slot v mod kRingRows)
//   after it    pixel row v is read;
//               h row v - r is written (buffer v mod 2), and h row v - r - 1 is read;
//               pixel row v - 2r - 1 is read again for its gradient
//
// A thread that runs ahead writes row v + 1, to a slot that no other thread may still be reading,
// and then waits at the next barrier.
//
// A tile computes the loss on a halo of `radius` rows and columns around itself, even beyond the
// image: there, the loss is that of the mirrored image, or it is not counted.
#pragma once

#include "moments.cuh"

namespace lamp_kernels::cuda {

// `common`: the images have dtype T, a column stride of 1 and more than radius + 1 rows, a thread
// can store the gradient of its columns as one vector, is_common(amplification), all images share
// one data_range, and there is no weight, pointwise term or map.
template <class T, int radius, int gradients, bool common>
class SsimTile {
  static constexpr int kPlanes = gradients ? 2 + gradients : 0;  // of h: ss, dd, s + d, s - d
  static constexpr int kRegisters = sizeof(T) / 4;               // per number
  // Registers for the running sums of one column. They may take 160 of the 255 registers, or fewer
  // in the general kernel, whose rare cases need the others.
  static constexpr int kSums = 2 * radius * (4 + kPlanes) * kRegisters;
  // float64 does not have enough registers: the adjoint's sums go to shared memory, and for wide
  // windows those of the moments, too.
  static constexpr bool kAdjointInShared = gradients && sizeof(T) == 8;
  static constexpr bool kMomentsInShared = radius >= 5 && sizeof(T) == 8;

  static constexpr int kColumns =
      sizeof(T) == 4 && 2 * kSums <= 160 && (common || gradients < 2) ? 2 : 1;
  static constexpr int kHalo = gradients ? radius : 0;
  static constexpr int kRingRows = gradients ? 2 * radius + 3 : 2;

  using PixelOf = Pixel<T>;
  using Pixels = Adjacent<PixelOf, kColumns>;
  using Values = Adjacent<T, kColumns>;
  using Rest = HRest<T, gradients>;
  using Pairs = Adjacent<HPair<T>, kColumns>;
  using Rests = Adjacent<Rest, kColumns>;
  using AdjointSums =
      std::conditional_t<kAdjointInShared, SumsInShared<T, radius>, SumsInRegisters<T, radius>>;
  using MomentSums =
      std::conditional_t<kMomentsInShared, SumsInShared<T, radius>, SumsInRegisters<T, radius>>;

  // Where this thread writes a gradient next, row after row. `whole`: it can store all of its
  // columns as one aligned vector.
  struct Place {
    T* to;
    bool whole;
  };

  // ---- State, in the order of initialization ---------------------------------------------------

  const SsimArguments<T>& a;
  const Params& p;
  const Tile tile;
  const Factors<T, common> factor;
  const T scale;  // 1 / data_range
  const int thread = threadIdx.x;
  const int positions = blockDim.x * kColumns;
  const Axis grid_rows, grid_columns;  // of the loss's grid

  // In shared memory, one after the other.
  double* scratch;  // for block sums
  PixelOf* ring;    // kRingRows rows of pixels
  T* h;             // two rows of the planes of h

  SsimConstants<T> constants;
  RowReader<T, radius, kColumns, common> reader;
  const Edges edge_rows;
  MomentWindows<T, radius, kColumns, MomentSums> windows;
  AdjointSums adjoint_sums[kPlanes * kColumns + 1];
  Sum<T> sums[kMetrics];  // by metric

  // For each of this thread's window positions: the factor of its slope, and whether its loss
  // counts in this tile.
  T own_factor[kColumns];
  bool counted[kColumns];
  bool active;        // whether this thread has any pixels
  int column_offset;  // from its own columns to those whose adjoint it computes
  T share[kColumns];  // of the adjoint, for each pixel

  Place input_gradient, target_gradient;

 public:
  static constexpr KernelResources resources() {
    constexpr int kInShared =
        2 * radius * (4 * kMomentsInShared + kPlanes * kAdjointInShared) * kColumns;
    constexpr int kInRegisters =
        2 * radius * (4 * !kMomentsInShared + kPlanes * !kAdjointInShared) * kColumns;
    KernelResources r;
    r.radius = radius;
    r.columns = kColumns;
    r.halo = kHalo;
    r.pixel_bytes = kRingRows * 2 * int(sizeof(T));
    r.thread_bytes = (2 * kPlanes * kColumns + kInShared) * int(sizeof(T));
    // From the registers that ptxas allocates (docs/gpu_static.md): at most 168 or 255.
    r.warps_at_once = kInRegisters * kRegisters <= 48 ? 12 : 8;
    // The general kernel takes half as long again, and float64 six times as long.
    const double times = (common ? 1.0 : 1.5) * (sizeof(T) == 8 ? 4.0 : 1.0);
    const bool two = kColumns == 2;
    r.cycles[0] = int(times * (two ? 850 + 90 * radius : 800 + 38 * radius));
    r.cycles[1] = int(times * (two ? 1060 + 140 * radius : 920 + 73 * radius));
    r.cycles[2] = int(times * (two ? 1630 + 255 * radius : 350 + 294 * radius));
    r.warmup = 0.45;
    r.overhead[0] = 5200;
    r.overhead[1] = 930;
    r.bytes = 2 * int(sizeof(T)) + gradients * int(sizeof(T));
    return r;
  }

  LAMP_DEVICE SsimTile(const SsimArguments<T>& arguments, unsigned char* shared)
      : a(arguments), p(a.p), tile(a.tiling.tile(a.tiles, blockIdx.x)), factor(p, tile.image),
        scale(scale_of<common>(a, tile)), grid_rows(grid_axis(p, p.height)),
        grid_columns(grid_axis(p, p.width)), scratch(reinterpret_cast<double*>(shared)),
        ring(reinterpret_cast<PixelOf*>(scratch + kScratch)),
        h(reinterpret_cast<T*>(ring + kRingRows * row_length())), constants(a.constants),
        reader(p, tile, tile.row - kHalo - radius, tile.column - kHalo - radius),
        edge_rows(p, p.height) {
    const Edges edge_columns(p, p.width);
    T* shared_sums = h + 2 * kPlanes * positions + thread;
    LAMP_UNROLL
    for (int k = 0; k < kPlanes * kColumns; ++k) adjoint_sums[k].clear(shared_sums);
    windows.clear(shared_sums);
    LAMP_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      const int column = window_column(c), in_grid = grid_columns.at(column);
      counted[c] = in_grid == column && column >= tile.column && column < tile.end_column;
      own_factor[c] = in_grid < 0 ? T(0) : edge_columns.factor<T>(in_grid);
      share[c] = scale * edge_columns.share<T>(pixel_column(c));
    }
    active = pixel_column(0) < tile.end_column;
    const int last = (tile.end_column - tile.column - 1) / kColumns;
    column_offset = (min(thread, last) - thread) * kColumns;
    if constexpr (gradients > 0) place(p.input_gradient, input_gradient);
    if constexpr (gradients == 2) place(p.target_gradient, target_gradient);
  }

  LAMP_DEVICE void run() {
    // Pixel row v completes row v - r of the loss and row v - 2r - 1 of the gradient. The row after
    // it is in flight.
    const int first = tile.row - kHalo;
    int v = first - radius, slot = 0;
    reader.template fetch<0>();
    const Shifts<T> shifts = shifts_of<common>(p, tile, scale, reinterpret_cast<T*>(scratch));
    constants.shift_d = shifts.d;
    constants.shift_s = shifts.s;
    LAMP_UNROLL
    for (int c = 0; c < kColumns; ++c)
      if (own_factor[c] != T(0)) own_factor[c] *= factor.of[0];
    walk<false>(v, first + radius, slot);
    walk<true>(v, gradients ? tile.end_row + 2 * radius + 1 : tile.end_row + radius, slot);
    write_sums<common>(a, sums, scratch);
  }

 private:
  LAMP_DEVICE int row_length() const { return positions + 2 * radius; }
  LAMP_DEVICE HPair<T>* h_pairs(int v) const {
    return reinterpret_cast<HPair<T>*>(h + (v & 1) * kPlanes * positions);
  }
  LAMP_DEVICE Rest* h_rests(int v) const { return reinterpret_cast<Rest*>(h_pairs(v) + positions); }
  LAMP_DEVICE int window_column(int c) const { return tile.column - kHalo + kColumns * thread + c; }
  LAMP_DEVICE int pixel_column(int c) const { return tile.column + kColumns * thread + c; }

  // Advances to row `stop`. There is no loss until the running sums are `full`. A loop for each
  // case avoids a branch, which would keep the compiler from overlapping instructions.
  template <bool full>
  LAMP_DEVICE void walk(int& v, int stop, int& slot) {
    while (v < stop) {
      reader.continue_run();
      const int some = min(v + min(reader.left_in_run(), Sum<T>::kFlushEvery), stop);
      int last = 0;  // slot of the previous row
      for (; v < some && !windows.must_follow(); ++v) {
        step<full>(v, slot);
        last = slot;
        if (++slot == kRingRows) slot = 0;
      }
      LAMP_UNROLL
      for (int m = 0; m < kMetrics; ++m) sums[m].flush();
      if (windows.must_follow()) windows.follow(ring + last * row_length(), a.tap);
    }
  }

  template <bool full>
  LAMP_DEVICE void step(int v, int slot) {
    PixelOf* const pixels = ring + slot * row_length();
    reader.template deposit<0>(pixels, scale, constants.shift_d, constants.shift_s);
    reader.template fetch<0>();  // before the barrier, else the compiler issues some loads late
    __syncthreads();
    const int row = v - radius;
    Moments<T> moments[kColumns];
    windows.push_row(pixels, a, moments);
    if constexpr (!full) return;
    statistics(row, moments, v);
    if constexpr (gradients > 0) {
      // The first time, h is uninitialized shared memory, but no window of the tile's pixels sees
      // that row.
      const int finished = row - 1 - radius;
      const int old = slot + 2 < kRingRows ? slot + 2 : slot + 2 - kRingRows;
      const PixelOf* const from = ring + old * row_length() + 2 * radius;
      auto centered = [&] { return reinterpret_cast<const Pixels*>(from)[thread]; };
      // Loaded early, unless registers are scarce.
      const Pixels early = gradients == 1 ? centered() : Pixels{};
      T planes[kColumns][kPlanes];
      // A thread without pixels repeats those of the last thread that has some: its own windows
      // would read beyond the row.
      push_adjoint<radius, kColumns, gradients>(h_pairs(v - 1) + column_offset,
                                                h_rests(v - 1) + column_offset, adjoint_sums, a.tap,
                                                planes, [](int, T along, T, T) { return along; });
      if (finished >= tile.row && active)
        finish(finished, gradients == 1 ? early : centered(), planes);
    } else if constexpr (!common) {
      if (p.terms.pointwise() && row >= tile.row && row < tile.end_row) value_of_pixels(row);
    }
  }

  LAMP_DEVICE void statistics(int row, const Moments<T>* moments, int v) {
    // Stage by stage for all columns, so that their dependency chains overlap.
    Dissimilarity<T> all[kColumns];
    LAMP_UNROLL
    for (int c = 0; c < kColumns; ++c) all[c] = ssim(moments[c], constants);
    Amplified<T> all_amplified[kColumns];
    LAMP_UNROLL
    for (int c = 0; c < kColumns; ++c)
      all_amplified[c] = amplified_loss<common>(all[c].loss, a.formula.amplification);
    // The row of the grid that this row is, or mirrors; -1 if none. In the common case, images are
    // high enough that no mirrored row is an edge row.
    const bool in_rows = row >= grid_rows.begin && row < grid_rows.end;
    const int in_grid = common ? row : grid_rows.at(row);
    const T row_factor = (common ? in_rows || grid_rows.reflects : in_grid >= 0)
                             ? edge_rows.factor<T>(in_grid)
                             : T(0);
    const bool own_row = row >= tile.row && row < tile.end_row && in_rows;
    Pairs pairs;
    Rests rests;
    LAMP_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      const Dissimilarity<T>& at = all[c];
      const Amplified<T>& amplified = all_amplified[c];
      const T factor_here = own_factor[c] * row_factor;
      const bool counts = counted[c] && own_row;
      T weight = 1;
      if constexpr (!common) {
        if (p.weight.data && factor_here != T(0))
          weight = weight_at<T>(p, tile, in_grid, grid_columns.at(window_column(c)));
      }
      sums[0].partial += counts ? weight * amplified.value : T(0);
      if constexpr (gradients == 0 && !common) {
        if (p.map.data && counts)
          *element<T>(p.map, tile, row, window_column(c)) = amplified.value * factor.of[0];
      }
      if constexpr (gradients > 0) {
        const T slope = weight * factor_here * amplified.slope;
        const Adjoint<T> adjoint =
            ssim_adjoint(moments[c].mean_d, moments[c].mean_s, at, slope, constants);
        pairs.at[c] = {adjoint.ss, adjoint.dd};
        rests.at[c].at[0] = adjoint.s + adjoint.d;
        if constexpr (gradients == 2) rests.at[c].at[1] = adjoint.s - adjoint.d;
      }
    }
    if constexpr (gradients > 0) {
      reinterpret_cast<Pairs*>(h_pairs(v))[thread] = pairs;
      reinterpret_cast<Rests*>(h_rests(v))[thread] = rests;
    }
  }

  // ---- Results ---------------------------------------------------------------------------------

  LAMP_DEVICE void value_of_pixels(int row) {
    LAMP_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      const int column = window_column(c);
      if (column >= tile.end_column) continue;
      const T value = pixel_terms(a, tile, factor, scale, row, column, sums).value;
      if (p.map.data) *element<T>(p.map, tile, row, column) += value;
    }
  }

  LAMP_DEVICE void finish(int row, const Pixels& centered, const T (*planes)[kPlanes]) {
    const T row_share = edge_rows.share<T>(row);
    Values grad_x, grad_y;
    LAMP_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      const T* plane = planes[c];
      const T s_term = T(2) * centered.at[c].s * plane[0],
              d_term = T(2) * centered.at[c].d * plane[1];
      T dloss_dd = 0;
      if constexpr (!common) {
        if (p.terms.pointwise() && pixel_column(c) < tile.end_column)
          dloss_dd =
              pixel_terms(a, tile, factor, scale, row, pixel_column(c), sums).dloss_dd * scale;
      }
      grad_x.at[c] = (plane[2] + s_term + d_term) * (share[c] * row_share) + dloss_dd;
      if constexpr (gradients == 2)
        grad_y.at[c] = (plane[3] + s_term - d_term) * (share[c] * row_share) - dloss_dd;
    }
    write(p.input_gradient, input_gradient, grad_x);
    if constexpr (gradients == 2) write(p.target_gradient, target_gradient, grad_y);
  }

  LAMP_DEVICE void place(const TensorView& s, Place& place) const {
    place.to = element<T>(s, tile, tile.row, pixel_column(0));
    place.whole = pixel_column(kColumns - 1) < tile.end_column && s.column == 1 &&
                  s.row % kColumns == 0 &&
                  reinterpret_cast<uintptr_t>(place.to) % sizeof(Values) == 0;
  }

  LAMP_DEVICE void write(const TensorView& s, Place& place, const Values& values) const {
    if (!common && !place.whole) {
      LAMP_UNROLL
      for (int c = 0; c < kColumns; ++c) {
        T* const to = place.to + c * s.column;
        LAMP_IS_GLOBAL(to);
        if (pixel_column(c) < tile.end_column) *to = values.at[c];
      }
    } else {
      auto* const to = reinterpret_cast<Values*>(place.to);
      LAMP_IS_GLOBAL(to);
      *to = values;
    }
    place.to += s.row;
  }
};

template <class T, int radius, int gradients, bool common>
__global__ void __launch_bounds__(kMostWarps* kWarp, 1)
    ssim_kernel(const __grid_constant__ SsimArguments<T> arguments) {
  LAMP_SHARED(shared);
  SsimTile<T, radius, gradients, common>(arguments, shared).run();
}

}  // namespace lamp_kernels::cuda
