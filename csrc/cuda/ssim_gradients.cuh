// The second of two launches: computes the gradient from the planes of h that the first launch
// (ssim_losses.cuh) wrote.
//
//   h, its shifts, x, y (1 row)  --fetch-->         shared memory, kAhead rows ahead
//   h                            --push_adjoint-->  G_x^T at a thread's columns, and G_y^T of that:
//                                                   a row completes radius rows later
//   adjoint, x, y                --finish-->        gradient
//
// There is one barrier per row. If the loss has pointwise terms besides SSIM, a later launch adds
// their gradient (pixels.cuh).
#pragma once

#include "terms.cuh"

namespace lamp_kernels::cuda {

// `common`: the images have dtype T and a column stride of 1, and share one data_range. If a thread
// has two columns, it can also load images and store gradients as vectors of two.
template <class T, int radius, int gradients, bool common>
class SsimGradients {
 public:
  static constexpr int kPlanes = 2 + gradients;
  // Two columns share loads from shared memory, if the registers suffice.
  static constexpr int kColumns = gradients == 1 && radius <= 5 ? 2 : 1;
  static constexpr int kAhead = 3;          // rows in flight or waiting in shared memory
  static constexpr int kRows = kAhead + 1;  // in shared memory

  using Values = Adjacent<T, kColumns>;
  struct alignas(2 * sizeof(Values)) Pixels {
    Values x, y;
  };

 private:
  // As in RowReader: a warp reads adjacent elements of h.
  static constexpr int kPieces = kColumns + 1;
  using Pair = HPair<T>;
  using Rest = HRest<T, gradients>;

  const SsimArguments<T>& a;
  const Params& p;
  const Tile tile;
  const Axis grid_rows;
  const Edges edge_rows;
  const int column;  // of the first of this thread's pixels
  const bool active;
  const T scale;      // 1 / data_range
  T share[kColumns];  // of the adjoint, in units of the images
  SumsInRegisters<T, radius> adjoint_sums[kPlanes * kColumns];

  // Pointers into the first of kRows rows in shared memory, from where this thread reads and
  // writes; the rows are row_bytes apart.
  const int length;  // of a row of h
  const int row_bytes;
  Pixels* pixels;
  Pair* pairs;
  Rest* rests;
  // Twice the shifts that h is relative to: those of the halo's columns, followed by this strip's.
  Shifts<T>* shifts;

  // The next row of h to read, the step from there to the row after it, and the row where the run
  // ends.
  const HPlane<T, gradients> h;
  const char *h_row, *shift_row;
  int step, run_end;
  uint32_t pair_at[kPieces], rest_at[kPieces], shift_at;
  uint32_t has_column, has;  // bit i: whether piece i is in the grid, and in this row
  // Whether this thread rebases one of the 2 radius halo columns, and the column's index in a row;
  // if not, an index that no thread writes to.
  bool has_halo;
  int halo_place;

  Shifts<T> twice_shift;  // the shifts of this tile's gradient, doubled

  // The next pixels to load, and the next gradients to store.
  const char *x, *y;
  T *grad_x, *grad_y;

 public:
  LAMP_DEVICE SsimGradients(const SsimArguments<T>& arguments, unsigned char* shared)
      : a(arguments), p(a.p), tile(a.tiling.tile(a.tiles, blockIdx.x)),
        grid_rows(grid_axis(p, p.height)), edge_rows(p, p.height),
        column(tile.column + kColumns * int(threadIdx.x)), active(column < tile.end_column),
        scale(scale_of<common>(a, tile)), length(blockDim.x * kColumns + 2 * radius),
        row_bytes(
            int(round_up(blockDim.x * sizeof(Pixels) + length * (sizeof(Pair) + sizeof(Rest)) +
                             (2 * radius + 1) * sizeof(Shifts<T>),
                         sizeof(Pixels)))),
        pixels(reinterpret_cast<Pixels*>(shared)),
        pairs(reinterpret_cast<Pair*>(pixels + blockDim.x)),
        rests(reinterpret_cast<Rest*>(pairs + length)),
        shifts(reinterpret_cast<Shifts<T>*>(rests + length)),
        h(a.h_of(a.tiling.plane(tile), gradients), a.tiling.h_width()), has_column(0) {
    pixels += threadIdx.x;
    const Axis columns = grid_axis(p, p.width);
    LAMP_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      const int at = columns.at(tile.column - radius + piece<kColumns>(i));
      pair_at[i] = h.pair_at(max(at, 0));
      rest_at[i] = h.rest_at(max(at, 0));
      has_column |= uint32_t(at >= 0) << i;
    }
    const int i = threadIdx.x, before = i < radius ? i : i + tile.end_column - tile.column;
    const int halo = i < 2 * radius ? columns.at(tile.column - radius + before) : -1;
    has_halo = halo >= 0;
    halo_place = has_halo ? before : radius;
    const int strip = a.tiling.strip_of(has_halo ? halo : tile.column);
    shift_at = uint32_t(strip * a.tiling.height) * uint32_t(sizeof(Shifts<T>));
    x = pixel(p.input);
    y = pixel(p.target);
    grad_x = element<T>(p.input_gradient, tile, tile.row, column);
    if constexpr (gradients == 2) grad_y = element<T>(p.target_gradient, tile, tile.row, column);
  }

  LAMP_DEVICE void run(unsigned char* shared) {
    // Row v of h completes row v - radius of the gradient.
    int v = tile.row - radius, slot = 0, free_slot = 0;
    // Twice the shifts that this tile's gradient is relative to, in the first group of copies.
    auto* const here = reinterpret_cast<Shifts<T>*>(shared + kRows * row_bytes);
    copy_ahead(Copy<Shifts<T>>{here, reinterpret_cast<const char*>(a.shifts_of(tile) + tile.row),
                               threadIdx.x == 0, true});
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
    for (int c = 0; c < kColumns; ++c) share[c] = scale * edge_columns.share<T>(column + c);
    LAMP_UNROLL
    for (int k = 0; k < kPlanes * kColumns; ++k) {
      T* none = nullptr;
      adjoint_sums[k].clear(none);
    }
    wait_for_copies<kAhead - 2>();
    __syncthreads();
    twice_shift = *here;
    rebase_halo(slot);
    walk<false, true>(v, tile.row + radius, slot, free_slot);
    walk<true, true>(v, tile.end_row + radius - kAhead, slot, free_slot);
    walk<true, false>(v, tile.end_row + radius, slot, free_slot);
  }

 private:
  LAMP_DEVICE bool has_piece(int i) const { return i < kColumns || threadIdx.x < 2 * radius; }
  template <class Element>
  LAMP_DEVICE static Element* in_row(Element* first, int slot) {
    return reinterpret_cast<Element*>(reinterpret_cast<char*>(first) + slot);
  }

  // Advances to row `stop`. There is no gradient until the running sums are `full`, and the last
  // rows have nothing left to fetch (their groups of copies are empty). A loop for each case avoids
  // branches, which would keep the compiler from overlapping instructions. `slot`: offset of row v
  // in shared memory.
  template <bool full, bool fetching>
  LAMP_DEVICE void walk(int& v, int stop, int& slot, int& free_slot) {
    while (v < stop) {
      if (fetching && v + kAhead == run_end) start_run(v + kAhead);
      for (const int some = fetching ? min(run_end - kAhead, stop) : stop; v < some; ++v) {
        __syncthreads();
        const int row = v - radius;
        if constexpr (fetching) fetch<full>(row + kAhead, free_slot);
        end_copies();
        RawPixels raw;
        if constexpr (full && !common) raw = read_pixels(row);
        const Shifts<T> own = *in_row(shifts + 2 * radius, slot);
        const Shifts<T> higher{twice_shift.d - own.d, twice_shift.s - own.s};
        T planes[kColumns][kPlanes];
        push_adjoint<radius, kColumns, gradients>(
            in_row(pairs, slot), in_row(rests, slot), adjoint_sums, a.tap, planes,
            [&](int g, T rest, T ss, T dd) {
              return rest + (ss * higher.s + (g ? -dd : dd) * higher.d);
            });
        Pixels here;
        if constexpr (full) here = common ? *in_row(pixels, slot) : values(raw);
        free_slot = slot;
        slot = slot == kAhead * row_bytes ? 0 : slot + row_bytes;
        rebase_halo(slot);
        wait_for_copies<kAhead - 2>();  // until the row after the next one has arrived, too
        if constexpr (full) finish(row, here, planes);
      }
    }
  }

  // Makes fetch() continue at row v, with the rows of the grid that the border rule puts there.
  LAMP_DEVICE void start_run(int v) {
    const Axis::Run run = grid_rows.run(v);
    has = run.at >= 0 ? has_column : 0;
    h_row = h.row(max(run.at, 0));
    shift_row = reinterpret_cast<const char*>(a.shifts_of(a.tiling.plane(tile)) + max(run.at, 0));
    step = run.step;
    run_end = run.end;
  }
  // Starts copying the next row of h, and pixel row `row`.
  template <bool full>
  LAMP_DEVICE void fetch(int row, int slot) {
    auto pair = [&](int i) {
      return Copy<Pair>{in_row(pairs + piece<kColumns>(i), slot), h_row + pair_at[i], has_piece(i),
                        bool(has & 1u << i)};
    };
    auto rest = [&](int i) {
      return Copy<Rest>{in_row(rests + piece<kColumns>(i), slot), h_row + rest_at[i], has_piece(i),
                        bool(has & 1u << i)};
    };
    const Copy<Shifts<T>> own{in_row(shifts + threadIdx.x, slot), shift_row + shift_at,
                              threadIdx.x <= 2 * radius, true};
    if constexpr (kColumns == 2)
      copy_ahead(pair(0), rest(0), pair(1), rest(1), pair(2), rest(2), own);
    else
      copy_ahead(pair(0), rest(0), pair(1), rest(1), own);
    h_row += step * h.row_bytes;
    shift_row += step * int(sizeof(Shifts<T>));
    if constexpr (common) {
      if (full || row >= tile.row) {
        const bool in_tile = active && (full || row < tile.end_row);
        copy_ahead(Copy<Values>{&in_row(pixels, slot)->x, x, in_tile, true},
                   Copy<Values>{&in_row(pixels, slot)->y, y, in_tile, true});
        x += p.input.row * int64_t(sizeof(T));
        y += p.target.row * int64_t(sizeof(T));
      }
    }
  }

  // Rebases h in the halo columns, which belong to other strips, to this strip's shift in that row.
  LAMP_DEVICE void rebase_halo(int slot) {
    // Predicated, so that the compiler can overlap it with other work.
    const Pair pair = *in_row(pairs + halo_place, slot);
    Rest* const at = in_row(rests + halo_place, slot);
    Rest rest = *at;
    const Shifts<T> own = *in_row(shifts + 2 * radius, slot);
    const Shifts<T> other = *in_row(shifts + min(int(threadIdx.x), 2 * radius), slot);
    const T s_term = pair.ss * (own.s - other.s), d_term = pair.dd * (own.d - other.d);
    rest.at[0] += s_term + d_term;
    if constexpr (gradients == 2) rest.at[1] += s_term - d_term;
    if (has_halo) *at = rest;
  }

  // Address of this thread's pixel in the tile's first row; any valid one if it has none.
  LAMP_DEVICE const char* pixel(const ConstTensorView& s) const {
    const int64_t at = plane_of(s, tile.image, tile.channel) + tile.row * s.row +
                       (active ? column : tile.column) * s.column;
    return static_cast<const char*>(s.data) + at * size_of(s.dtype);
  }
  // Pixels of images of any dtype and column stride.
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

  LAMP_DEVICE void finish(int row, const Pixels& here, const T (*planes)[kPlanes]) {
    const T row_share = edge_rows.share<T>(row), twice_scale = T(2) * scale;
    Values x_values, y_values;
    LAMP_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      const T* plane = planes[c];
      const T twice_d = (here.x.at[c] - here.y.at[c]) * twice_scale - twice_shift.d;
      const T twice_s = (here.x.at[c] + here.y.at[c]) * twice_scale - twice_shift.s;
      const T s_term = twice_s * plane[0], d_term = twice_d * plane[1];
      x_values.at[c] = (plane[2] + s_term + d_term) * (share[c] * row_share);
      if constexpr (gradients == 2)
        y_values.at[c] = (plane[3] + s_term - d_term) * (share[c] * row_share);
    }
    write(p.input_gradient, grad_x, x_values);
    if constexpr (gradients == 2) write(p.target_gradient, grad_y, y_values);
  }
  LAMP_DEVICE void write(const TensorView& s, T*& row, const Values& values) const {
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
  r.pixel_bytes = Kernel::kRows * (2 + gradients) * int(sizeof(T));
  r.thread_bytes = Kernel::kRows * int(sizeof(typename Kernel::Pixels));
  // Per row, its shifts and the padding; and once, the tile's shift.
  r.block_bytes = Kernel::kRows * ((2 * radius + 1) * int(sizeof(Shifts<T>)) +
                                   int(sizeof(typename Kernel::Pixels))) +
                  int(sizeof(Shifts<T>));
  r.warps_at_once = 16;  // given by the launch bounds
  const bool two = r.columns == 2, one = !two && gradients == 1;
  r.cycles[0] = two ? 410 + 48 * radius : one ? 380 + 28 * radius : 380 + 32 * radius;
  r.cycles[1] = two ? 510 + 85 * radius : one ? 280 + 80 * radius : 420 + 84 * radius;
  r.cycles[2] = two ? 850 + 150 * radius : one ? 860 + 92 * radius : 720 + 172 * radius;
  r.warmup = 0.88;
  r.overhead[0] = 1750;
  r.overhead[1] = 700;
  r.bytes = (2 + gradients) * int(sizeof(T));
  return r;
}

// Blocks per multiprocessor, for the launch bounds. The strips are those of the losses kernel, so
// blocks whose threads have two columns have at most half of kMostWarps. Limited to 128 registers,
// nvcc 13.0 spills on compute capability 12.0.
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
    SsimGradients<T, radius, gradients, true>(a, shared).run(shared);
  else
    SsimGradients<T, radius, gradients, false>(a, shared).run(shared);
}

}  // namespace lamp_kernels::cuda
