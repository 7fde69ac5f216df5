// The rows of the two images on their way to a block: a thread reads its pixels of the next row
// ahead of time and leaves them, as d and s, in shared memory.
#pragma once

#include "device.cuh"
#include "tiling.h"

namespace lamp_kernels::cuda {

// What a border rule shows beyond the ends of an axis of the image, or of the loss's grid.
struct Axis {
  int begin, end;  // what there is
  bool reflects;   // the edge pixel not repeated, as often as it takes; else there is nothing

  // What lies at `v`, or -1. Farther out than any window sees it is some pixel of the image.
  LAMP_DEVICE int at(int v) const {
    if (!reflects) return v >= begin && v < end ? v : -1;
    const int edge = end - 1;
    v = abs(v);
    v = abs(edge - abs(edge - v));
    return min(v, edge);
  }

  // Places that follow one another in memory.
  struct Run {
    int at;    // of the first one, -1 if there is nothing
    int step;  // from one to the next: 1, -1, or 0 where there is nothing
    int end;   // the first place that is not in it
  };
  LAMP_DEVICE Run run(int v) const {
    if (reflects) {
      const int edge = end - 1;
      const int turn = v >= 0 ? v / edge : -((edge - 1 - v) / edge);  // rounded down
      return {at(v), turn % 2 ? -1 : 1, (turn + 1) * edge};
    }
    if (v < begin) return {-1, 0, begin};
    if (v < end) return {v, 1, end};
    return {-1, 0, INT_MAX};
  }
};

LAMP_DEVICE Axis image_axis(const Params& p, int64_t size) {
  return {0, int(size), p.border == Border::reflect};
}
// Of the loss. Where the border reflects, the transpose of a mirror is the mirror itself, if the
// loss at the very edge counts twice and the pixel at the edge takes half (Edges): h beyond the edge
// is h mirrored.
LAMP_DEVICE Axis grid_axis(const Params& p, int64_t size) {
  const int margin = int(p.first_row());
  return {margin, int(size) - margin, p.border == Border::reflect};
}
// The two places that this is about; none unless the border reflects.
struct Edges {
  int first = -1, last = -1;

  LAMP_DEVICE Edges(const Params& p, int64_t size) {
    if (p.border == Border::reflect) first = 0, last = int(size) - 1;
  }
  LAMP_DEVICE bool has(int i) const { return i == first || i == last; }
  template <class T>
  LAMP_DEVICE T factor(int i) const { return has(i) ? T(2) : T(1); }
  template <class T>
  LAMP_DEVICE T share(int i) const { return has(i) ? T(0.5) : T(1); }
};

// `rows` rows of so many bytes from `base`, in one instruction.
LAMP_DEVICE const char* rows_from(const char* base, int rows, int bytes) {
#ifdef __CUDA_ARCH__
  const char* at;
  asm("mad.wide.s32 %0, %1, %2, %3;" : "=l"(at) : "r"(rows), "r"(bytes), "l"(base));
  return at;
#else
  return base + int64_t(rows) * bytes;
#endif
}
// A pixel, about the levels and in units of data_range.
template <class T>
struct alignas(2 * sizeof(T)) Pixel {
  T d, s;
};

// Where in a row of shared memory piece `i` of this thread lies: so that a warp reads side by side,
// and for the first threads of the block one of the 2 radius that are more than there are positions.
template <int columns>
LAMP_DEVICE int piece(int i) {
  const int thread = threadIdx.x, lane = thread % kWarp;
  return i < columns ? (thread - lane) * columns + lane + i * kWarp
                     : int(blockDim.x) * columns + thread;
}

// `columns` of a thread; a row is what the windows of all positions of the block see. `common`: both
// images are of T, their columns lie side by side, and a row's bytes are counted in 32 bits.
template <class T, int radius, int columns, bool common>
class RowReader {
  static constexpr int kPieces = columns + 1;

  const Params& p;
  const Tile tile;
  int column[kPieces];  // in the image, -1 for black
  const char *x[kPieces], *y[kPieces];  // in row 0; only if `common`
  int x_row, y_row;                     // bytes; only if `common`
  int row, step;  // the next one, -1 for black, and from there to the one after it
  T next_x[kPieces], next_y[kPieces];

  LAMP_DEVICE bool has_piece(int i) const { return i < columns || threadIdx.x < 2 * radius; }

  LAMP_DEVICE const char* start(const Source& s, int column) const {
    return reinterpret_cast<const char*>(static_cast<const T*>(s.data) +
                                         plane_of(s, tile.image, tile.channel) + column);
  }
  LAMP_DEVICE static T value_at(const char* at) {
    LAMP_IS_GLOBAL(at);
    return *reinterpret_cast<const T*>(at);
  }

 public:
  // first: the image column of the row's first pixel.
  LAMP_DEVICE RowReader(const Params& params, const Tile& of, int first)
      : p(params), tile(of), x_row(int(p.input.row * sizeof(T))),
        y_row(int(p.target.row * sizeof(T))) {
    const Axis axis = image_axis(p, p.width);
    LAMP_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      column[i] = axis.at(first + piece<columns>(i));
      if constexpr (common) {
        x[i] = start(p.input, max(column[i], 0));
        y[i] = start(p.target, max(column[i], 0));
      }
      next_x[i] = next_y[i] = 0;
    }
  }

  // From here on fetch() reads the rows of `run`.
  LAMP_DEVICE void seat(const Axis::Run& run) {
    row = run.at;
    step = run.step;
  }

  // Asks for the next row.
  LAMP_DEVICE void fetch() {
    LAMP_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      if (!has_piece(i)) continue;
      const bool inside = (row | column[i]) >= 0;
      if constexpr (common) {
        next_x[i] = inside ? value_at(rows_from(x[i], row, x_row)) : T(0);
        next_y[i] = inside ? value_at(rows_from(y[i], row, y_row)) : T(0);
      } else {
        next_x[i] = inside ? load_at<T>(p.input, tile, row, column[i]) : T(0);
        next_y[i] = inside ? load_at<T>(p.target, tile, row, column[i]) : T(0);
      }
    }
    row += step;
  }

  // Writes the row that was asked for last.
  LAMP_DEVICE void deposit(Pixel<T>* to, T scale, T level_d, T level_s) const {
    LAMP_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      if (!has_piece(i)) continue;
      to[piece<columns>(i)] = {(next_x[i] - next_y[i]) * scale - level_d,
                              (next_x[i] + next_y[i]) * scale - level_s};
    }
  }
};

}  // namespace lamp_kernels::cuda
