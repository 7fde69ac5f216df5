// The second of two launches: the gradient, from the planes of h that ssim_losses.cuh has written.
//
//   h, x, y (row)  --fetch-->         shared, kAhead rows ahead
//   h              --push_adjoint-->  G_x^T at a thread's columns, and G_y^T of that: a finished row,
//                                     radius rows later
//   adjoint, x, y  --finish-->        gradient
//
// There is one barrier a row. What pointwise terms there are beside SSIM add their gradient later
// (pixels.cuh).
#pragma once

#include "terms.cuh"

namespace lamp_kernels::cuda {

// `common`: images of T whose columns lie side by side, and where a thread has two columns images and
// gradients of which they may be read and written at once.
template <class T, int radius, int gradients, bool common>
class SsimGradients {
 public:
  static constexpr int kPlanes = 2 + gradients;
  // Two columns share what they read of shared memory, if the registers do.
  static constexpr int kColumns = gradients == 1 && radius <= 5 ? 2 : 1;
  static constexpr int kAhead = 3;          // rows that are on their way, or there already
  static constexpr int kRows = kAhead + 1;  // in shared memory

  using Values = Neighbours<T, kColumns>;
  struct alignas(2 * sizeof(Values)) Pixels {
    Values x, y;
  };
  // Of the losses' tiles: this one's, and those in the band that some rows of h are in, of this strip
  // and of the one that this thread's halo column is in.
  struct TileLevels {
    Levels<T> here, own, halo;
  };

 private:
  // As in RowReader: h is read side by side by a warp.
  static constexpr int kPieces = kColumns + 1;
  using Pair = HPair<T>;
  using Rest = HRest<T, gradients>;

  const SsimArguments<T>& a;
  const Params& p;
  const Tile tile;
  const Axis grid_rows;
  const Edges edge_rows;
  const int column;  // the first of this thread's pixels
  const bool active;
  T share[kColumns];  // of the adjoint, in units of the images
  SumsInRegisters<T, radius> adjoint_sums[kPlanes * kColumns];

  // The first of kRows rows in shared memory, from where this thread reads and writes on; the others
  // lie row_bytes apart.
  const int length;  // of a row of h
  const int row_bytes;
  Pixels* pixels;
  Pair* pairs;
  Rest* rests;

  // Where h is read: the next row, and the row after it is `step` bytes on; up to row `run_end`.
  const HPlane<T, gradients> h;
  const char* h_row;
  int step, run_end;
  uint32_t pair_at[kPieces], rest_at[kPieces];
  uint32_t has_column, has;  // bit i: whether the grid has piece i, and in this row

  // h is about the level of the losses' tile that it comes from. Twice how much higher the level of
  // this tile is: in the row of h that is read, in the next ones up to `band_end`, and how much more
  // than that in another strip.
  Levels<T> higher, coming, halo_higher;
  // The levels of the band after that, which ends at `next_end`, are on their way to shared memory.
  int band_end, next_end;
  TileLevels* const levels;
  int halo_column;  // -1 if this thread looks after none

  // The pixels to come, and where the gradients go.
  const char *x, *y;
  T *by_x, *by_y;

 public:
  LAMP_DEVICE SsimGradients(const SsimArguments<T>& arguments, unsigned char* shared)
      : a(arguments), p(a.p), tile(a.tiling.tile(a.tiles, blockIdx.x)),
        grid_rows(grid_axis(p, p.height)), edge_rows(p, p.height),
        column(tile.column + kColumns * int(threadIdx.x)), active(column < tile.end_column),
        length(blockDim.x * kColumns + 2 * radius),
        row_bytes(int(round_up(
            blockDim.x * sizeof(Pixels) + length * (sizeof(Pair) + sizeof(Rest)), sizeof(Pixels)))),
        pixels(reinterpret_cast<Pixels*>(shared)),
        pairs(reinterpret_cast<Pair*>(pixels + blockDim.x)),
        rests(reinterpret_cast<Rest*>(pairs + length)),
        levels(reinterpret_cast<TileLevels*>(shared + kRows * row_bytes) + threadIdx.x),
        h(a.h_of(a.tiling.plane(tile), gradients), a.tiling.h_width()), has_column(0) {
    pixels += threadIdx.x;
    const Axis columns = grid_axis(p, p.width);
    LAMP_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      const int at = columns.at(tile.column - radius + piece<kColumns>(i));
      pair_at[i] = h.pair_at(max(at, 0));
      rest_at[i] = h.rest_at(max(at, 0));
      has_column |= uint32_t(at >= 0 && has_piece(i)) << i;
    }
    halo_column = threadIdx.x < 2 * radius ? columns.at(tile.column - radius + halo_place()) : -1;
    x = pixel(p.input);
    y = pixel(p.target);
    by_x = element<T>(p.input_gradient, tile, tile.row, column);
    if constexpr (gradients == 2) by_y = element<T>(p.target_gradient, tile, tile.row, column);
  }

  LAMP_DEVICE void run() {
    // Row v of h brings row v - radius of the gradient.
    int v = tile.row - radius, slot = 0, free_slot = 0;
    const TileGrid& t = a.losses_tiling;
    copy_ahead(copy_of(levels->here, t.band_of(tile.row), tile.column, true));
    ask_for_band(v);
    start_run(v);
    LAMP_ROLLED
    for (int i = 0; i < kAhead; ++i) {
      if (v + i == run_end) start_run(v + i);
      fetch<false>(v - radius + i, free_slot);
      end_copies();
      free_slot += row_bytes;
    }
    const Edges edge_columns(p, p.width);
    LAMP_UNROLL
    for (int c = 0; c < kColumns; ++c) share[c] = a.scale * edge_columns.share<T>(column + c);
    LAMP_UNROLL
    for (int k = 0; k < kPlanes * kColumns; ++k) {
      T* none = nullptr;
      adjoint_sums[k].clear(none);
    }
    end_copies();
    wait_for_copies<0>();
    start_band();
    __syncthreads();
    rebase_halo(slot);
    walk<false, true>(v, tile.row + radius, slot, free_slot);
    walk<true, true>(v, tile.end_row + radius - kAhead, slot, free_slot);
    walk<true, false>(v, tile.end_row + radius, slot, free_slot);
  }

 private:
  LAMP_DEVICE bool has_piece(int i) const { return i < kColumns || threadIdx.x < 2 * radius; }
  // In a row of h: the place beyond the strip that this thread looks after, one of 2 radius.
  LAMP_DEVICE int halo_place() const {
    const int i = threadIdx.x;
    return i < radius ? i : i + tile.end_column - tile.column;
  }
  template <class Element>
  LAMP_DEVICE static Element* in_row(Element* first, int slot) {
    return reinterpret_cast<Element*>(reinterpret_cast<char*>(first) + slot);
  }

  // Goes on to row `stop`. Until the sums are full there are no gradients: two loops, in which
  // no branch parts what can run beside one another. `slot`: where row v lies.
  template <bool full, bool fetching>
  LAMP_DEVICE void walk(int& v, int stop, int& slot, int& free_slot) {
    while (v < stop) {
      if (fetching && v + kAhead == run_end) start_run(v + kAhead);
      higher = coming;
      const bool ends_band = v + 1 == band_end;
      if (ends_band) {
        end_copies();
        wait_for_copies<0>();
        start_band();
      }
      const int same_levels = ends_band ? v + 1 : band_end - 1;
      const int same = fetching ? min(same_levels, run_end - kAhead) : same_levels;
      for (const int some = min(same, stop); v < some; ++v) {
        __syncthreads();
        const int row = v - radius;
        if constexpr (fetching) fetch<full>(row + kAhead, free_slot);
        end_copies();
        RawPixels raw;
        if constexpr (full && !common) raw = read_pixels(row);
        T planes[kColumns][kPlanes];
        push_adjoint<radius, kColumns, gradients>(
            in_row(pairs, slot), in_row(rests, slot), adjoint_sums, a.tap, planes,
            [&](int g, T rest, T ss, T dd) {
              return rest + (ss * higher.s + (g ? -dd : dd) * higher.d);
            });
        Pixels here;
        const Levels<T> level = levels->here;
        if constexpr (full) here = common ? *in_row(pixels, slot) : values(raw);
        free_slot = slot;
        slot = slot == kAhead * row_bytes ? 0 : slot + row_bytes;
        wait_for_copies<kAhead - 2>();  // until the row after the next one is there, too
        rebase_halo(slot);
        if constexpr (full) finish(row, here, level, planes);
      }
    }
  }

  LAMP_DEVICE Copy<Levels<T>> copy_of(Levels<T>& to, int band, int column, bool asked) const {
    const TileGrid& t = a.losses_tiling;
    const int64_t of_plane = a.tiling.plane(tile) * t.tiles_per_plane();
    const Levels<T>* const from = a.levels + of_plane + t.strip_of(column) * t.bands + band;
    return {&to, reinterpret_cast<const char*>(from), asked, true};
  }

  // From row v on fetch() reads the rows of the grid that the border rule puts there.
  LAMP_DEVICE void start_run(int v) {
    const Axis::Run run = grid_rows.run(v);
    has = run.at >= 0 ? has_column : 0;
    h_row = h.row(max(run.at, 0));
    step = run.step * h.row_bytes;
    run_end = run.end;
  }
  // Asks for the next row of h, and for `row` of pixels: those that the tile still needs.
  template <bool full>
  LAMP_DEVICE void fetch(int row, int slot) {
    auto pair = [&](int i) {
      return Copy<Pair>{in_row(pairs + piece<kColumns>(i), slot), h_row + pair_at[i],
                        has_piece(i), bool(has & 1u << i)};
    };
    auto rest = [&](int i) {
      return Copy<Rest>{in_row(rests + piece<kColumns>(i), slot), h_row + rest_at[i],
                        has_piece(i), bool(has & 1u << i)};
    };
    if constexpr (kColumns == 2)
      copy_ahead(pair(0), rest(0), pair(1), rest(1), pair(2), rest(2));
    else
      copy_ahead(pair(0), rest(0), pair(1), rest(1));
    h_row += step;
    if constexpr (common) {
      if (full || row >= tile.row) {
        const bool there = active && (full || row < tile.end_row);
        copy_ahead(Copy<Values>{&in_row(pixels, slot)->x, x, there, true},
                   Copy<Values>{&in_row(pixels, slot)->y, y, there, true});
        x += p.input.row * int64_t(sizeof(T));
        y += p.target.row * int64_t(sizeof(T));
      }
    }
  }

  // For the rows of h from v on, as far as they lie in one band of the losses' tiles: to the next
  // group of copies.
  LAMP_DEVICE void ask_for_band(int v) {
    const TileGrid& t = a.losses_tiling;
    const Axis::Run run = grid_rows.run(v);
    const int row = max(run.at, 0), band = t.band_of(row), in_band = row - band * t.band_height;
    const int left = !run.step ? INT_MAX : run.step > 0 ? t.band_height - in_band : in_band + 1;
    next_end = left < run.end - v ? v + left : run.end;
    copy_ahead(copy_of(levels->own, band, tile.column, true),
               copy_of(levels->halo, band, max(halo_column, 0), halo_column >= 0));
  }
  // Goes on to the band that was asked for, and asks for the next one.
  LAMP_DEVICE void start_band() {
    const auto [here, own, halo] = *levels;
    coming = {T(2) * (here.d - own.d), T(2) * (here.s - own.s)};
    halo_higher = {T(2) * (own.d - halo.d), T(2) * (own.s - halo.s)};
    band_end = next_end;
    ask_for_band(band_end);
  }
  // Brings what lies in another strip to the level that this strip has there.
  LAMP_DEVICE void rebase_halo(int slot) {
    if (halo_column < 0) return;
    const Pair pair = *in_row(pairs + halo_place(), slot);
    Rest* const rest = in_row(rests + halo_place(), slot);
    const T by_s = pair.ss * halo_higher.s, by_d = pair.dd * halo_higher.d;
    rest->at[0] += by_s + by_d;
    if constexpr (gradients == 2) rest->at[1] += by_s - by_d;
  }

  // This thread's in the tile's first row; any, if it has none.
  LAMP_DEVICE const char* pixel(const Source& s) const {
    const int64_t at = plane_of(s, tile.image, tile.channel) + tile.row * s.row +
                       (active ? column : tile.column) * s.column;
    return static_cast<const char*>(s.data) + at * size_of(s.dtype);
  }
  // Where they may be of another type, and anywhere in a row.
  struct RawPixels {
    Raw<T> x[kColumns], y[kColumns];
  };
  LAMP_DEVICE RawPixels read_pixels(int row) const {
    RawPixels raw{};
    LAMP_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      if (column + c >= tile.end_column) continue;
      raw.x[c] = load_raw_at<T>(p.input, tile, row, column + c);
      raw.y[c] = load_raw_at<T>(p.target, tile, row, column + c);
    }
    return raw;
  }
  LAMP_DEVICE Pixels values(const RawPixels& raw) const {
    Pixels here;
    LAMP_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      here.x.at[c] = value_of<T>(raw.x[c], p.input.dtype);
      here.y.at[c] = value_of<T>(raw.y[c], p.target.dtype);
    }
    return here;
  }

  LAMP_DEVICE void finish(int row, const Pixels& here, const Levels<T>& level,
                          const T (*planes)[kPlanes]) {
    const T row_share = edge_rows.share<T>(row);
    Values x_values, y_values;
    LAMP_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      const T* plane = planes[c];
      const T d = (here.x.at[c] - here.y.at[c]) * a.scale - level.d;
      const T s = (here.x.at[c] + here.y.at[c]) * a.scale - level.s;
      const T by_s = T(2) * s * plane[0], by_dd = T(2) * d * plane[1];
      x_values.at[c] = (plane[2] + by_s + by_dd) * (share[c] * row_share);
      if constexpr (gradients == 2)
        y_values.at[c] = (plane[3] + by_s - by_dd) * (share[c] * row_share);
    }
    write(p.input_gradient, by_x, x_values);
    if constexpr (gradients == 2) write(p.target_gradient, by_y, y_values);
  }
  LAMP_DEVICE void write(const Sink& s, T*& row, const Values& values) const {
    if constexpr (common && kColumns > 1) {
      auto* const at = reinterpret_cast<Values*>(row);
      LAMP_IS_GLOBAL(at);
      if (active) *at = values;
    } else {
      LAMP_UNROLL
      for (int c = 0; c < kColumns; ++c) {
        T* const at = row + c * s.column;
        LAMP_IS_GLOBAL(at);
        if (column + c < tile.end_column) *at = values.at[c];
      }
    }
    row += s.row;
  }
};

template <class T, int radius, int gradients>
constexpr KernelResources gradients_resources() {
  using Kernel = SsimGradients<T, radius, gradients, true>;
  KernelResources r;
  r.radius = radius;
  r.columns = Kernel::kColumns;
  // Rounding rows up fits in the space reserved for sums of blocks, which this kernel does not use.
  static_assert(Kernel::kRows * sizeof(typename Kernel::Pixels) <= kScratch * sizeof(double));
  r.pixel_bytes = Kernel::kRows * (2 + gradients) * int(sizeof(T));
  r.thread_bytes =
      Kernel::kRows * int(sizeof(typename Kernel::Pixels)) + int(sizeof(typename Kernel::TileLevels));
  r.warps_at_once = 16;  // as the launch bounds have it
  const bool two = r.columns == 2, one = !two && gradients == 1;
  r.cycles[0] = two ? 380 + 45 * radius : one ? 360 + 22 * radius : 370 + 40 * radius;
  r.cycles[1] = two ? 460 + 80 * radius : one ? 270 + 66 * radius : 400 + 88 * radius;
  r.cycles[2] = two ? 770 + 145 * radius : one ? 800 + 80 * radius : 640 + 170 * radius;
  r.warming = 0.85;
  r.beside[0] = 5300;
  r.beside[1] = 720;
  r.bytes = (2 + gradients) * int(sizeof(T));
  return r;
}

// Blocks on a multiprocessor; as strips are those of the losses, blocks whose threads have two columns
// have half of the most warps. Of 128 registers nvcc 13.0 spills some for compute capability 12.0.
template <int columns, int radius>
constexpr int gradient_blocks() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
  return columns == 2 ? 3 : radius < 7 ? 2 : 1;
#else
  return columns == 2 ? 4 : 2;
#endif
}

template <class T, int radius, int gradients,
          int columns = SsimGradients<T, radius, gradients, true>::kColumns>
__global__ void __launch_bounds__(kMostWarps* kWarp / columns, gradient_blocks<columns, radius>())
    ssim_gradients_kernel(const __grid_constant__ SsimArguments<T> a) {
  LAMP_SHARED(shared);
  if (a.common)
    SsimGradients<T, radius, gradients, true>(a, shared).run();
  else
    SsimGradients<T, radius, gradients, false>(a, shared).run();
}

}  // namespace lamp_kernels::cuda
