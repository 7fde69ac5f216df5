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

  // Places that follow one another in memory. A mirror shows at most three images in a row: more than
  // windows see, whose radius is less than the image.
  struct Run {
    int at;    // of the first one, -1 if there is nothing
    int step;  // from one to the next: 1, -1, or 0 where there is nothing
    int end;   // the first place that is not in it
  };
  LAMP_DEVICE Run run(int v) const {
    if (reflects) {
      // Windows see partial mirror images, most of them none: no division.
      const int edge = end - 1;
      int step = 1, run_end = edge;
      LAMP_ROLLED
      for (; v >= run_end; run_end += edge) step = -step;
      LAMP_ROLLED
      for (; v < run_end - edge; run_end -= edge) step = -step;
      return {at(v), step, run_end};
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
  LAMP_DEVICE T factor(int i) const {
    return has(i) ? T(2) : T(1);
  }
  template <class T>
  LAMP_DEVICE T share(int i) const {
    return has(i) ? T(0.5) : T(1);
  }
};

// A pixel, about the shifts and in units of data_range.
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
//
// One or two rows are on their way to registers, each in a buffer that the code names, as no register's
// number can be computed.
template <class T, int radius, int columns, bool common>
class RowReader {
  static constexpr int kPieces = columns + 1;

  const Params& p;
  const Tile tile;
  const Axis rows;       // of the image
  int column[kPieces];   // in the image
  bool has[kPieces];     // whether there is such a column, and the piece is this thread's
  bool inside[kPieces];  // and there is such a pixel in the next row; else it is black
  int next, run_end;     // the next row, and up to where rows follow one another
  int row, step;         // in the image: the next one, and from there to the one after it
  const char *x[kPieces], *y[kPieces];  // in the next row; only if `common`
  int x_step, y_step;                   // bytes to the row after it; only if `common`
  struct Pieces {
    Raw<T> x[kPieces], y[kPieces];
  };
  Pieces buffers[2];

  LAMP_DEVICE bool has_piece(int i) const { return i < columns || threadIdx.x < 2 * radius; }

  LAMP_DEVICE void start_run() {
    const Axis::Run run = rows.run(next);
    run_end = run.end;
    row = run.at;
    step = run.step;
    LAMP_UNROLL
    for (int i = 0; i < kPieces; ++i) inside[i] = has[i] && row >= 0;
    if constexpr (common) {
      start(p.input, x, x_step);
      start(p.target, y, y_step);
    }
  }
  LAMP_DEVICE void start(const ConstTensorView& s, const char** at, int& bytes) const {
    const int row_bytes = int(s.row) * int(sizeof(T));
    const char* const of_row = static_cast<const char*>(s.data) +
                               plane_of(s, tile.image, tile.channel) * int64_t(sizeof(T)) +
                               int64_t(max(row, 0)) * row_bytes;
    LAMP_UNROLL
    for (int i = 0; i < kPieces; ++i) at[i] = of_row + uint32_t(column[i]) * uint32_t(sizeof(T));
    bytes = step * row_bytes;
  }

 public:
  // first_row, first_column: of the pixels that windows see.
  LAMP_DEVICE RowReader(const Params& params, const Tile& of, int first_row, int first_column)
      : p(params), tile(of), rows(image_axis(p, p.height)), next(first_row) {
    const Axis axis = image_axis(p, p.width);
    LAMP_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      const int at = axis.at(first_column + piece<columns>(i));
      has[i] = has_piece(i) && at >= 0;
      column[i] = max(at, 0);
    }
    start_run();
  }

  // Where the run of rows ends, goes on to the next one.
  LAMP_DEVICE void continue_run() {
    if (next == run_end) start_run();
  }
  // How many rows may be asked for before that.
  LAMP_DEVICE int left_in_run() const { return run_end - next; }

  // Asks for the next row. Without a branch, which would part the loads from what they can wait
  // beside.
  template <int buffer>
  LAMP_DEVICE void fetch() {
    Pieces& to = buffers[buffer];
    LAMP_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      if constexpr (common) {
        to.x[i] = inside[i] ? bits_at<Raw<T>>(x[i]) : Raw<T>(0);
        to.y[i] = inside[i] ? bits_at<Raw<T>>(y[i]) : Raw<T>(0);
        x[i] += x_step;
        y[i] += y_step;
      } else {
        to.x[i] = inside[i] ? load_raw_at<T>(p.input, tile, row, column[i]) : Raw<T>(0);
        to.y[i] = inside[i] ? load_raw_at<T>(p.target, tile, row, column[i]) : Raw<T>(0);
      }
    }
    row += step;
    ++next;
  }

  // Writes the row that this buffer was last asked for.
  template <int buffer>
  LAMP_DEVICE void deposit(Pixel<T>* to, T scale, T shift_d, T shift_s) const {
    const Pieces& from = buffers[buffer];
    LAMP_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      if (!has_piece(i)) continue;
      const T x_here = value_of<common, T>(from.x[i], p.input);
      const T y_here = value_of<common, T>(from.y[i], p.target);
      to[piece<columns>(i)] = {(x_here - y_here) * scale - shift_d,
                               (x_here + y_here) * scale - shift_s};
    }
  }

  LAMP_DEVICE void swap_buffers() {
    const Pieces first = buffers[0];
    buffers[0] = buffers[1];
    buffers[1] = first;
  }
  // From here on one row is on its way; that in buffer 1, the last one, will be asked for again.
  LAMP_DEVICE void keep_first_buffer() {
    --next;
    row -= step;
    if constexpr (common) {
      LAMP_UNROLL
      for (int i = 0; i < kPieces; ++i) x[i] -= x_step, y[i] -= y_step;
    }
  }
};

}  // namespace lamp_kernels::cuda
