// One tile of the SSIM loss, with the pointwise terms beside it: a block walks from its top to its
// bottom, a thread for one or two columns. Neither torch nor the launch is known here.
//
//   pixels (row)    --deposit-->     shared: d, s of the row, about the levels
//   d, s            --convolve-->    G_x of d, s, d^2, s^2 at a thread's columns
//   these           --push-->        G_y of them: a finished row, radius rows later
//   moments         --statistics-->  loss, and h planes to shared
//   h planes        --adjoint-->     G_x^T, then push: G_y^T, radius rows later
//   adjoint, d, s   --finish-->      gradient
//
// Windows along y need no neighbours: a thread keeps for each plane of its columns the 2 radius
// sums of windows that are under way, and a new row goes to all of them (the transposed form of a
// filter). So x alone goes through shared memory, and there is one barrier a row:
//
//   before it   row v of pixels is written            (slot v mod kRingRows)
//   after it    row v is read; h row v - r is written (buffer v mod 2), h row v - r - 1 read,
//               and pixel row v - 2r - 1 is read for its gradient.
// A thread that runs ahead writes row v + 1, which is in no slot that others may still read, and
// stops at the next barrier.
#pragma once

#include <type_traits>

#include "device.cuh"
#include "tiling.h"

// A condition that does not hold for most rows of most images. bench/gpu_static.py counts the
// instructions of the others in a build where it never does.
#ifdef LAMP_COUNT_COMMON
#define LAMP_RARE(condition) ((condition) && false)
#else
#define LAMP_RARE(condition) __builtin_expect(!!(condition), 0)
#endif

namespace lamp_kernels::cuda {

template <class T>
struct SsimArguments {
  Params p;
  Tiling tiling;
  int64_t first_tile;  // of this launch
  int64_t input_row, target_row;  // bytes from one row of an image to the next
  T tap[kMaxRadius + 1];
  T scale;
  SsimConstants<T> constants;  // the levels are those of the tile
  Amplification<T> amplification;
  double* partial;  // (tiles, terms)
};

template <class T, int radius, int gradients>
class SsimTile {
  static constexpr int kPlanes = gradients ? 2 + gradients : 0;  // of h: ss, dd, s + d, s - d
  static constexpr int kRegisters = sizeof(T) / 4;               // of a number
  // Registers for the sums under way in one column; of 255 they may take 160.
  static constexpr int kSums = 2 * radius * (4 + kPlanes) * kRegisters;
  static constexpr Dtype kDtype = sizeof(T) == 8 ? Dtype::float64 : Dtype::float32;
  // In float64 registers do not do: the adjoint's go to shared memory, and those of wide windows
  // altogether.
  static constexpr bool kAdjointInShared = gradients && sizeof(T) == 8;
  static constexpr bool kMomentsInShared = radius >= 5 && sizeof(T) == 8;

 public:
  static constexpr int kColumns = sizeof(T) == 4 && 2 * kSums <= 160 ? 2 : 1;
  static constexpr int kHalo = gradients ? radius : 0;
  static constexpr int kRingRows = gradients ? 2 * radius + 3 : 2;
  static constexpr Demands demands() {
    return {radius,    kColumns, kHalo, kRingRows,
            kPlanes, sizeof(T),
            2 * radius * kColumns * (4 * kMomentsInShared + kPlanes * kAdjointInShared),
            2 * radius * kColumns * (4 * !kMomentsInShared + kPlanes * !kAdjointInShared) *
                kRegisters};
  }

 private:
  struct Pixel {
    T d, s;
  };
  // What a thread reads and writes at once: neighbouring columns, in one instruction.
  struct alignas(kColumns * sizeof(Pixel)) Pixels {
    Pixel at[kColumns];
  };
  struct alignas(kColumns * sizeof(T)) Values {
    T at[kColumns];
  };
  static constexpr int kReach = 2 * radius + kColumns;  // columns that a thread's windows see
  static_assert(2 * radius % kColumns == 0, "a thread's first column is aligned for vectors");

  // The sums of the windows along y that are under way, of one plane of one column.
  struct InRegisters {
    T sum[2 * radius];
    LAMP_DEVICE T& operator[](int k) { return sum[k]; }
  };
  struct InShared {
    T* sum;
    LAMP_DEVICE T& operator[](int k) { return sum[k * blockDim.x]; }
  };
  using AdjointSums = std::conditional_t<kAdjointInShared, InShared, InRegisters>;
  using MomentSums = std::conditional_t<kMomentsInShared, InShared, InRegisters>;

  const SsimArguments<T>& a;
  const Params& p;
  const Tile tile;
  const int thread = threadIdx.x;
  const int positions = blockDim.x * kColumns;
  const int begin_row, end_row, begin_column, end_column;  // of the tile
  const int left;        // image column of window position 0
  const int height, width;
  const int grid_begin;  // first row and column of the loss
  const int grid_end_row, grid_end_column;

  Pixel* ring;
  T* h;
  double* scratch;
  SsimConstants<T> constants;
  T factor[kMaxTerms];

 public:
  LAMP_DEVICE SsimTile(const SsimArguments<T>& arguments, unsigned char* shared)
      : a(arguments), p(a.p), tile(a.tiling.tile(a.first_tile + blockIdx.x)),
        begin_row(int(tile.row)), end_row(int(tile.end_row)), begin_column(int(tile.column)),
        end_column(int(tile.end_column)), left(begin_column - kHalo), height(int(p.height)),
        width(int(p.width)),
        grid_begin(int(p.first_row())), grid_end_row(int(p.end_row())),
        grid_end_column(int(p.end_column())), constants(a.constants) {
    scratch = reinterpret_cast<double*>(shared);
    ring = reinterpret_cast<Pixel*>(scratch + kMostWarps);
    h = reinterpret_cast<T*>(ring + kRingRows * row_length());
    T* sums = h + 2 * kPlanes * positions + thread;
    LAMP_UNROLL
    for (int k = 0; k < kPlanes * kColumns; ++k) clear(adjoint_sums[k], sums);
    LAMP_UNROLL
    for (int k = 0; k < 4 * kColumns; ++k) clear(moment_sums[k], sums);
    const int terms = p.terms();
    const T* const factors =
        static_cast<const T*>(p.factors) + (p.map.data ? 0 : tile.image * terms);
    LAMP_UNROLL
    for (int k = 0; k < kMaxTerms; ++k) factor[k] = k < terms ? factors[k] : T(0);
  }

  LAMP_DEVICE void run() {
    find_levels();
    place_columns();
    first = max(grid_begin, begin_row - kHalo);
    end = min(grid_end_row, end_row + kHalo);
    // Row v of pixels brings row v - r of loss and row v - 2r - 1 of the gradient.
    int stop = end + radius;
    if (gradients) stop = end_row + 2 * radius + 1;
    else if (p.mse || p.l1) stop = max(stop, end_row + radius);
    int v = first - radius;
    go_to(v);
    fetch(v);
    while (v < stop) {
      for (const int some = min(v + Sum<T>::kFew, stop); v < some; ++v) step(v);
      LAMP_UNROLL
      for (int k = 0; k < kMaxTerms; ++k) sums[k].flush();
    }
    write_sums();
  }

 private:
  int first, end;  // rows of the loss to compute
  int slot = 0;    // of the ring, for row v

  LAMP_DEVICE void step(int v) {
    const bool fresh = v < end + radius;
    if (!LAMP_RARE(!fresh)) deposit(ring + slot * row_length());
    __syncthreads();
    if (v + 1 < end + radius) fetch(v + 1);
    const int row = v - radius;
    if (!LAMP_RARE(!fresh)) {
      T moments[kColumns][4];
      convolve(ring + slot * row_length(), moments);
      if (row >= first) statistics(row, moments, h_row(v));
    }
    if constexpr (gradients > 0) {
      if (row > first && active) {
        const int done = row - 1 - radius;
        const int old = slot + 2 < kRingRows ? slot + 2 : slot + 2 - kRingRows;
        const Pixel* const pixels = ring + old * row_length() + 2 * radius;
        auto centred = [&] { return reinterpret_cast<const Pixels*>(pixels)[thread]; };
        // Asked for before it is needed, but where registers are scarce.
        const Pixels early = gradients == 1 ? centred() : Pixels{};
        T planes[kColumns][kPlanes];
        adjoint(row - 1, h_row(v - 1), planes);
        if (done >= begin_row) finish(done, gradients == 1 ? early : centred(), planes);
      }
    } else {
      if (LAMP_RARE(p.mse || p.l1) && row >= begin_row && row < end_row) value_of_pixels(row);
    }
    if (++slot == kRingRows) slot = 0;
  }

  LAMP_DEVICE static void clear(InRegisters& sums, T*&) {
    LAMP_UNROLL
    for (int i = 0; i < 2 * radius; ++i) sums[i] = 0;
  }
  // Takes the place that `shared` points to.
  LAMP_DEVICE static void clear(InShared& sums, T*& shared) {
    sums.sum = shared;
    shared += 2 * radius * blockDim.x;
    for (int i = 0; i < 2 * radius; ++i) sums[i] = 0;
  }

  MomentSums moment_sums[4 * kColumns];
  AdjointSums adjoint_sums[kPlanes * kColumns + 1];
  Sum<T> sums[kMaxTerms];

  // Of this thread's window positions: what their slope is multiplied by, 0 outside of the loss's
  // grid; whether the tile counts their loss; where in the row of h they stand, -1 if nowhere; and
  // where their mirror images stand.
  T own_factor[kColumns];
  bool counted[kColumns];
  int stand[kColumns], mirror_left[kColumns], mirror_right[kColumns];
  bool plain;  // all stand where they are, and have no mirror image
  // Of its pixels: whether there are any, and the share of the adjoint that is theirs.
  bool active;
  T share[kColumns];

  LAMP_DEVICE int row_length() const { return positions + 2 * radius; }
  LAMP_DEVICE T* h_row(int v) const { return h + (v & 1) * kPlanes * positions; }
  LAMP_DEVICE int window_column(int c) const { return left + kColumns * thread + c; }
  LAMP_DEVICE int pixel_column(int c) const { return begin_column + kColumns * thread + c; }
  LAMP_DEVICE bool reflects() const { return p.border == Border::reflect; }

  // The image row or column that the border rule puts at `i`; -1 is black. What lies farther
  // beyond the edge than any window sees is some pixel of the image.
  LAMP_DEVICE int seen_at(int i, int size) const {
    if (i >= 0 && i < size) return i;
    if (p.border == Border::zeros) return -1;
    if (reflects()) i = i < 0 ? -i : 2 * (size - 1) - i;
    return min(max(i, 0), size - 1);
  }

  // About the mean of d and s on this tile, of a few rows; what is not finite does not count, so
  // that a NaN stays in its windows. Rounding of a variance grows with the square of the distance
  // to the level.
  LAMP_DEVICE void find_levels() {
    constexpr int kRows = 8;
    const int rows = end_row - begin_row;
    const int64_t x = plane_of(p.input, tile.image, tile.channel);
    const int64_t y = plane_of(p.target, tile.image, tile.channel);
    T sum_d = 0, sum_s = 0, count = 0;
    for (int column = begin_column + thread; column < end_column; column += blockDim.x) {
      T at_x[kRows], at_y[kRows];  // all asked for before the first is waited for
      LAMP_UNROLL
      for (int i = 0; i < kRows; ++i) {
        // Not at equal distances: a texture may repeat.
        const int row = begin_row + int(int64_t(i) * rows / kRows) + 3 * i % max(rows / kRows, 1);
        at_x[i] = load<T>(p.input, x + row * p.input.row + column * p.input.column);
        at_y[i] = load<T>(p.target, y + row * p.target.row + column * p.target.column);
      }
      LAMP_UNROLL
      for (int i = 0; i < kRows; ++i) {
        const T d = at_x[i] - at_y[i], s = at_x[i] + at_y[i];
        if (d - d == T(0) && s - s == T(0)) sum_d += d, sum_s += s, count += 1;
      }
    }
    T* some = reinterpret_cast<T*>(scratch);
    count = sum_of_block(count, some);
    const T mean = a.scale / max(count, T(1));
    constants.level_d = sum_of_block(sum_d, some) * mean;
    constants.level_s = sum_of_block(sum_s, some) * mean;
  }

  LAMP_DEVICE void place_columns() {
    plain = true;
    LAMP_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      const int column = window_column(c), edge = width - 1;
      const int place = kColumns * thread + c;
      const bool inside = column >= grid_begin && column < grid_end_column;
      counted[c] = inside && column >= begin_column && column < end_column;
      stand[c] = place;
      mirror_left[c] = mirror_right[c] = -1;
      own_factor[c] = inside ? factor[0] : T(0);
      const int pixel = pixel_column(c);
      share[c] = a.scale;
      if (reflects()) {
        // The transpose of a mirror: with the loss at the very edge taken twice, the mirror is that
        // of the pixels, and the pixel at the edge itself takes half.
        if (column == 0 || column == edge) own_factor[c] *= T(2);
        if (pixel == 0 || pixel == edge) share[c] *= T(0.5);
        if (!inside && column >= -radius && column <= edge + radius) stand[c] = -1;
        if (column >= 1 && column <= radius && -column - left >= 0) mirror_left[c] = -column - left;
        if (column < edge && column >= edge - radius && 2 * edge - column - left < positions)
          mirror_right[c] = 2 * edge - column - left;
      }
      plain = plain && stand[c] >= 0 && mirror_left[c] < 0 && mirror_right[c] < 0;
    }
    active = pixel_column(0) < end_column;
    if constexpr (gradients > 0) {
      place(p.input_gradient, input_gradient);
      if constexpr (gradients == 2) place(p.target_gradient, target_gradient);
    }
  }

  // ---- Pixels -----------------------------------------------------------------------------------

  // The row to come, on its way from memory: a block's threads read a piece of it each, and the
  // first of them the few pixels that are more than its positions.
  static constexpr int kPieces = 2;
  Values next_x[kPieces], next_y[kPieces];

  LAMP_DEVICE bool has_piece(int i) const { return i == 0 || thread < 2 * radius / kColumns; }
  LAMP_DEVICE int first_pixel(int i) const { return kColumns * (i * int(blockDim.x) + thread); }

  // Where this thread's first piece of the next row lies in the two images; from row to row inside
  // the image it moves on by a row.
  const char *from_x, *from_y;
  bool direct;  // all pieces are in the image, of the type computed in, side by side and aligned

  LAMP_DEVICE const char* piece_of(const Source& image, int row) const {
    const int64_t at = plane_of(image, tile.image, tile.channel) + row * image.row +
                       (left - radius + first_pixel(0)) * image.column;
    return static_cast<const char*>(image.data) + at * size_of(image.dtype);
  }
  // Whether pieces may be read in one instruction, in any row.
  LAMP_DEVICE static bool is_whole(const Source& image, const char* at) {
    const uintptr_t bytes = kColumns * size_of(image.dtype);  // a power of two
    return image.column == 1 && image.row % kColumns == 0 &&
           (reinterpret_cast<uintptr_t>(at) & (bytes - 1)) == 0;
  }
  LAMP_DEVICE bool is_inside() const {
    bool inside = true;
    LAMP_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      const int column = left - radius + first_pixel(i);
      if (has_piece(i) && (column < 0 || column + kColumns > width)) inside = false;
    }
    return inside;
  }
  LAMP_DEVICE static bool is_direct(const Source& image, const char* at) {
    return image.dtype == kDtype && is_whole(image, at);
  }

  // Makes ready to fetch row `v`.
  LAMP_DEVICE void go_to(int v) {
    from_x = piece_of(p.input, max(v, 0));
    from_y = piece_of(p.target, max(v, 0));
    direct = is_inside() && is_direct(p.input, from_x) && is_direct(p.target, from_y);
  }

  // Row `v`, the next one.
  LAMP_DEVICE void fetch(int v) {
    if (LAMP_RARE(!direct || v < 0 || v >= height)) {
      if (v >= 0 && v < height && is_inside()) {
        fetch_inside(p.input, from_x, next_x);
        fetch_inside(p.target, from_y, next_y);
      } else {
        fetch_anything(p.input, seen_at(v, height), next_x);
        fetch_anything(p.target, seen_at(v, height), next_y);
      }
    } else {
      LAMP_UNROLL
      for (int i = 0; i < kPieces; ++i) {
        if (!has_piece(i)) continue;
        const int64_t at = int64_t(i) * kColumns * blockDim.x;
        const auto* const x = reinterpret_cast<const Values*>(
            reinterpret_cast<const T*>(from_x) + at);
        const auto* const y = reinterpret_cast<const Values*>(
            reinterpret_cast<const T*>(from_y) + at);
        LAMP_IS_GLOBAL(x);
        LAMP_IS_GLOBAL(y);
        next_x[i] = *x;
        next_y[i] = *y;
      }
    }
    if (v >= 0) {
      from_x += a.input_row;
      from_y += a.target_row;
    }
  }

  // Pieces in the image, of any type and strides: half types, channels_last, odd widths.
  LAMP_DEVICE void fetch_inside(const Source& image, const char* from, Values* to) const {
    switch (image.dtype) {
      case Dtype::float32: return fetch_as<float>(image, from, to);
      case Dtype::float64: return fetch_as<double>(image, from, to);
      case Dtype::float16: return fetch_as<Float16>(image, from, to);
      case Dtype::bfloat16: return fetch_as<Bfloat16>(image, from, to);
    }
  }
  template <class Element>
  LAMP_DEVICE void fetch_as(const Source& image, const char* from, Values* to) const {
    struct alignas(kColumns * sizeof(Element)) Elements {
      Element at[kColumns];
    };
    const bool whole = is_whole(image, from);
    LAMP_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      if (!has_piece(i)) continue;
      const Element* const at =
          reinterpret_cast<const Element*>(from) + i * (kColumns * blockDim.x) * image.column;
      LAMP_IS_GLOBAL(at);
      Elements some;
      if (whole) {
        some = *reinterpret_cast<const Elements*>(at);
      } else {
        LAMP_UNROLL
        for (int c = 0; c < kColumns; ++c) some.at[c] = at[c * image.column];
      }
      LAMP_UNROLL
      for (int c = 0; c < kColumns; ++c) to[i].at[c] = value_of<T>(some.at[c]);
    }
  }

  // Beyond the image's edges too, by the border rule.
  LAMP_DEVICE void fetch_anything(const Source& image, int row, Values* to) const {
    const int64_t at = plane_of(image, tile.image, tile.channel) + row * image.row;
    LAMP_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      if (!has_piece(i)) continue;
      LAMP_UNROLL
      for (int c = 0; c < kColumns; ++c) {
        const int column = seen_at(left - radius + first_pixel(i) + c, width);
        const bool there = row >= 0 && column >= 0;
        to[i].at[c] = there ? load<T>(image, at + column * image.column) : T(0);
      }
    }
  }

  LAMP_DEVICE void deposit(Pixel* row) const {
    LAMP_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      if (!has_piece(i)) continue;
      Pixels pixels;
      LAMP_UNROLL
      for (int c = 0; c < kColumns; ++c) {
        const T x = next_x[i].at[c], y = next_y[i].at[c];
        pixels.at[c] = {(x - y) * a.scale - constants.level_d,
                        (x + y) * a.scale - constants.level_s};
      }
      *reinterpret_cast<Pixels*>(row + first_pixel(i)) = pixels;
    }
  }

  // ---- Windows ----------------------------------------------------------------------------------

  // A new row's value `v` for all windows along y that see it. Returns what the one that ends there
  // has seen: `sum[k]` is the window centred radius - k rows above the row to come.
  template <class Sums>
  LAMP_DEVICE T push(Sums& sum, T v) const {
    const T done = sum[0] + a.tap[radius] * v;
    auto move = [&](int k) {
      const int distance = radius - 1 - k;
      sum[k] = sum[k + 1] + a.tap[distance < 0 ? -distance : distance] * v;
    };
    if constexpr (std::is_same_v<Sums, InRegisters>) {
      LAMP_UNROLL
      for (int k = 0; k < 2 * radius - 1; ++k) move(k);
    } else {
      LAMP_ROLLED  // else as many registers are taken to load all of them ahead
      for (int k = 0; k < 2 * radius - 1; ++k) move(k);
    }
    sum[2 * radius - 1] = a.tap[radius] * v;
    return done;
  }

  // G_x of d, s, d^2, s^2 of the row at this thread's positions, and along y what is then finished.
  // Symmetric taps: tap k meets the sum of what lies k to both sides.
  LAMP_DEVICE void convolve(const Pixel* row, T (*moments)[4]) {
    const Pixels* from = reinterpret_cast<const Pixels*>(row) + thread;
    Pixel at[kReach];
    LAMP_UNROLL
    for (int i = 0; i < kReach / kColumns; ++i) {
      const Pixels some = from[i];
      LAMP_UNROLL
      for (int c = 0; c < kColumns; ++c) at[i * kColumns + c] = some.at[c];
    }
    LAMP_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      const Pixel centre = at[c + radius];
      T mean_d = a.tap[0] * centre.d, mean_s = a.tap[0] * centre.s;
      T square_d = mean_d * centre.d, square_s = mean_s * centre.s;
      LAMP_UNROLL
      for (int k = 1; k <= radius; ++k) {
        const Pixel one = at[c + radius - k], other = at[c + radius + k];
        mean_d += a.tap[k] * (one.d + other.d);
        mean_s += a.tap[k] * (one.s + other.s);
        square_d += a.tap[k] * (one.d * one.d + other.d * other.d);
        square_s += a.tap[k] * (one.s * one.s + other.s * other.s);
      }
      moments[c][0] = push(moment_sums[4 * c], mean_d);
      moments[c][1] = push(moment_sums[4 * c + 1], mean_s);
      moments[c][2] = push(moment_sums[4 * c + 2], square_d);
      moments[c][3] = push(moment_sums[4 * c + 3], square_s);
    }
  }

  LAMP_DEVICE void statistics(int row, const T (*moments)[4], T* h_row) {
    // Step by step for all columns: each is a chain of operations that wait for one another.
    Dissimilarity<T> all[kColumns];
    LAMP_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      const T* m = moments[c];
      all[c] = ssim(Moments<T>{m[0], m[1], m[2], m[3]}, constants);
    }
    Amplified<T> all_amplified[kColumns];
    if (LAMP_RARE(!a.amplification.log)) {
      LAMP_UNROLL
      for (int c = 0; c < kColumns; ++c) all_amplified[c] = {all[c].loss, T(1)};
    } else {
      Amplification<T> known = a.amplification;
      known.log = true;  // so that no column branches
      LAMP_UNROLL
      for (int c = 0; c < kColumns; ++c) all_amplified[c] = amplify<T>(all[c].loss, known);
    }
    T planes[kColumns][kPlanes + 1];
    LAMP_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      const T* m = moments[c];
      const Dissimilarity<T>& at = all[c];
      const Amplified<T>& amplified = all_amplified[c];
      T weight = 1;
      if (LAMP_RARE(p.weight.data != nullptr) && own_factor[c] != T(0))
        weight = weight_at(row, window_column(c));
      const bool counts = counted[c] && row >= begin_row && row < end_row;
      sums[0].few += counts ? weight * amplified.value : T(0);
      if (gradients == 0 && LAMP_RARE(p.map.data != nullptr) && counts)
        at_map(row, window_column(c)) = amplified.value * factor[0];
      if constexpr (gradients > 0) {
        const T slope = weight * own_factor[c] * amplified.slope;
        const Adjoint<T> adjoint = ssim_adjoint(m[0], m[1], at, slope, constants);
        planes[c][0] = adjoint.ss;
        planes[c][1] = adjoint.dd;
        planes[c][2] = adjoint.s + adjoint.d;
        if constexpr (gradients == 2) planes[c][3] = adjoint.s - adjoint.d;
      }
    }
    LAMP_UNROLL
    for (int k = 0; k < kPlanes; ++k) {
      T* const to = h_row + k * positions;
      if (!LAMP_RARE(!plain)) {
        Values values;
        LAMP_UNROLL
        for (int c = 0; c < kColumns; ++c) values.at[c] = planes[c][k];
        reinterpret_cast<Values*>(to)[thread] = values;
        continue;
      }
      LAMP_UNROLL
      for (int c = 0; c < kColumns; ++c) {
        if (stand[c] >= 0) to[stand[c]] = planes[c][k];
        if (mirror_left[c] >= 0) to[mirror_left[c]] = planes[c][k];
        if (mirror_right[c] >= 0) to[mirror_right[c]] = planes[c][k];
      }
    }
  }

  // G^T of h row `row`, as far as pixel row `row - radius` is finished by it. From row `end` on
  // there is no loss.
  LAMP_DEVICE void adjoint(int row, const T* h_row, T (*planes)[kPlanes]) {
    const bool folds = reflects() && row < end && (row < radius || row >= height - radius);
    LAMP_UNROLL
    for (int k = 0; k < kPlanes; ++k) {
      T along_x[kColumns] = {};
      if (!LAMP_RARE(row >= end)) {
        const Values* from = reinterpret_cast<const Values*>(h_row + k * positions) + thread;
        T at[kReach];
        LAMP_UNROLL
        for (int i = 0; i < kReach / kColumns; ++i) {
          const Values some = from[i];
          LAMP_UNROLL
          for (int c = 0; c < kColumns; ++c) at[i * kColumns + c] = some.at[c];
        }
        LAMP_UNROLL
        for (int c = 0; c < kColumns; ++c) {
          along_x[c] = a.tap[0] * at[c + radius];
          LAMP_UNROLL
          for (int i = 1; i <= radius; ++i)
            along_x[c] += a.tap[i] * (at[c + radius - i] + at[c + radius + i]);
        }
      }
      LAMP_UNROLL
      for (int c = 0; c < kColumns; ++c) {
        AdjointSums& sum = adjoint_sums[k * kColumns + c];
        planes[c][k] = push(sum, along_x[c]);
        if (LAMP_RARE(folds)) fold(row, along_x[c], planes[c][k], sum);
      }
    }
  }

  // What windows saw in the mirror above and below the image belongs to the mirrored rows: loss row
  // `row` sees pixel row t also at -t, and at 2 edge - t.
  LAMP_DEVICE void fold(int row, T v, T& done, AdjointSums& sum) const {
    const int edge = height - 1;
    LAMP_UNROLL
    for (int k = -1; k < 2 * radius; ++k) {
      const int t = row + 1 - radius + k;
      T tap = 0;
      if (t >= 1 && t + row <= radius) tap += a.tap[t + row];
      if (t < edge && 2 * edge - t - row <= radius) tap += a.tap[2 * edge - t - row];
      if (k < 0) done += tap * v;
      else sum[k] += tap * v;
    }
  }

  // ---- Results ----------------------------------------------------------------------------------

  LAMP_DEVICE T weight_at(int row, int column) const {
    return load<T>(p.weight, plane_of(p.weight, tile.image, tile.channel) + row * p.weight.row +
                                 column * p.weight.column);
  }
  LAMP_DEVICE static T* element(const Sink& s, const Tile& tile, int row, int column) {
    return static_cast<T*>(s.data) + plane_of(s, tile.image, tile.channel) + row * s.row +
           column * s.column;
  }
  LAMP_DEVICE T& at_map(int row, int column) const { return *element(p.map, tile, row, column); }

  // Adds the pointwise terms of one pixel to the sums. Returns factor times A(L) in `value`, and
  // its derivative by d. From the pixels themselves: d about its level has lost digits.
  LAMP_DEVICE void pointwise(int row, int column, T& value, T& by_d) {
    const T x = load<T>(p.input, plane_of(p.input, tile.image, tile.channel) +
                                     row * p.input.row + column * p.input.column);
    const T y = load<T>(p.target, plane_of(p.target, tile.image, tile.channel) +
                                      row * p.target.row + column * p.target.column);
    const T d = (x - y) * a.scale;
    const T weight = p.weight.data ? weight_at(row, column) : T(1);
    int k = 1;  // after SSIM
    auto term = [&](const Pointwise<T>& l) {
      const Amplified<T> amplified = amplify<T>(l.loss, a.amplification);
      const T own = k == 1 ? factor[1] : factor[2];
      (k == 1 ? sums[1] : sums[2]).few += weight * amplified.value;
      value += amplified.value * own;
      by_d += weight * own * amplified.slope * l.slope;
      ++k;
    };
    if (p.mse) term(squared_error(d));
    if (p.l1) term(absolute_error<T>(d));
  }

  LAMP_DEVICE void value_of_pixels(int row) {
    LAMP_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      const int column = window_column(c);
      if (column >= end_column) continue;
      T value = 0, by_d = 0;
      pointwise(row, column, value, by_d);
      if (p.map.data) at_map(row, column) += value;
    }
  }

  LAMP_DEVICE void finish(int row, const Pixels& centred, const T (*planes)[kPlanes]) {
    Values by_x, by_y;
    LAMP_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      const T* plane = planes[c];
      const T by_s = T(2) * centred.at[c].s * plane[0], by_dd = T(2) * centred.at[c].d * plane[1];
      T value = 0, by_d = 0;
      if (LAMP_RARE(p.mse || p.l1) && pixel_column(c) < end_column)
        pointwise(row, pixel_column(c), value, by_d);
      by_x.at[c] = (plane[2] + by_s + by_dd) * share[c] + by_d * a.scale;
      if constexpr (gradients == 2)
        by_y.at[c] = (plane[3] + by_s - by_dd) * share[c] - by_d * a.scale;
    }
    write(p.input_gradient, input_gradient, by_x);
    if constexpr (gradients == 2) write(p.target_gradient, target_gradient, by_y);
  }

  // A gradient where this thread writes it next, row after row; `whole`: all its columns, side by
  // side and aligned.
  struct Place {
    T* to;
    bool whole;
  };
  Place input_gradient, target_gradient;

  LAMP_DEVICE void place(const Sink& s, Place& place) const {
    place.to = element(s, tile, begin_row, pixel_column(0));
    place.whole = pixel_column(kColumns - 1) < end_column && s.column == 1 &&
                  s.row % kColumns == 0 &&
                  reinterpret_cast<uintptr_t>(place.to) % sizeof(Values) == 0;
  }

  LAMP_DEVICE void write(const Sink& s, Place& place, const Values& values) const {
    if (LAMP_RARE(!place.whole)) {
      LAMP_UNROLL
      for (int c = 0; c < kColumns; ++c) {
        T* const to = place.to + c * s.column;
        LAMP_IS_GLOBAL(to);
        if (pixel_column(c) < end_column) *to = values.at[c];
      }
    } else {
      auto* const to = reinterpret_cast<Values*>(place.to);
      LAMP_IS_GLOBAL(to);
      *to = values;
    }
    place.to += s.row;
  }

  LAMP_DEVICE void write_sums() {
    const int terms = p.terms();
    LAMP_UNROLL
    for (int k = 0; k < kMaxTerms; ++k) {
      if (k >= terms) break;
      const double sum = sum_of_block(sums[k].total, scratch);
      if (thread == 0) a.partial[(a.first_tile + blockIdx.x) * terms + k] = sum;
    }
  }
};

template <class T, int radius, int gradients>
__global__ void __launch_bounds__(kMostWarps* kWarp, 1)
    ssim_kernel(const __grid_constant__ SsimArguments<T> arguments) {
  LAMP_SHARED(shared);
  SsimTile<T, radius, gradients>(arguments, shared).run();
}

}  // namespace lamp_kernels::cuda
