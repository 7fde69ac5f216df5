// Streams rows of the two images into a block: each thread loads its pixels of the next row to
// registers ahead of time, and later stores them, as d and s, to shared memory.
#pragma once

#include "device.cuh"
#include "tiling.h"

namespace lamp_kernels::cuda {

// One axis of the image, or of the loss's grid, extended beyond its ends by the border rule.
struct Axis {
  int begin, end;  // the axis itself
  bool reflects;   // mirrors repeatedly, without repeating the edge pixel; else nothing lies beyond

  // The index that position `v` maps to, or -1 if none. Positions farther out than any window sees
  // map to an arbitrary pixel of the image.
  LAMP_DEVICE int at(int v) const {
    if (!reflects) return v >= begin && v < end ? v : -1;
    const int edge = end - 1;
    v = abs(v);
    v = abs(edge - abs(edge - v));
    return min(v, edge);
  }

  // A run of positions whose indices are equally spaced. at() handles at most three mirrored copies
  // in sequence, which is more than a window can see: its radius is smaller than the image.
  struct Run {
    int at;    // index of the first position, -1 if there is none
    int step;  // from one index to the next: 1, -1, or 0 if there are none
    int end;   // the first position after the run
  };
  LAMP_DEVICE Run run(int v) const {
    if (reflects) {
      // Windows see few mirrored copies, usually none, so loops are cheaper than a division.
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
// An axis of the loss's grid. With "reflect", h beyond the edge is h mirrored: the transpose of the
// mirroring is mirroring too, if the loss at the edge position counts twice and the pixel at the
// edge takes half of its adjoint (see Edges).
LAMP_DEVICE Axis grid_axis(const Params& p, int64_t size) {
  const int margin = int(p.first_row());
  return {margin, int(size) - margin, p.border == Border::reflect};
}
// The two edge positions of an axis, if the border reflects; none otherwise.
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

// A pixel as difference and sum, minus the tile's shifts, in units of data_range.
template <class T>
struct alignas(2 * sizeof(T)) Pixel {
  T d, s;
};

// The index, in a row of shared memory, of piece `i` of this thread. The threads of a warp access
// adjacent elements (coalesced). The last piece covers the 2 radius elements that a row has beyond
// the block's positions; only the first 2 radius threads have it.
template <int columns>
LAMP_DEVICE int piece(int i) {
  const int thread = threadIdx.x, lane = thread % kWarp;
  return i < columns ? (thread - lane) * columns + lane + i * kWarp
                     : int(blockDim.x) * columns + thread;
}

// A thread has `columns` window positions; a row holds all pixels that the block's windows see.
// `common`: both images have dtype T and a column stride of 1, and a row stride in bytes fits 32
// bits.
//
// One or two rows are in flight to registers, each in its own buffer. Buffers are template
// arguments, because registers cannot be indexed at run time.
template <class T, int radius, int columns, bool common>
class RowReader {
  static constexpr int kPieces = columns + 1;
  struct Pieces {
    Raw<T> x[kPieces], y[kPieces];
  };

  const Params& p;
  const Tile tile;
  const Axis rows;       // the image's
  int column[kPieces];   // image column
  bool has[kPieces];     // whether this column exists, and the piece belongs to this thread
  bool inside[kPieces];  // has[i], and the next row exists; else the pixel is black
  int next, run_end;     // the next row, and the end of its run
  int row, step;         // image row of the next one, and the step to the one after it
  const char *x[kPieces], *y[kPieces];  // address in the next row; only if `common`
  int x_step, y_step;                   // bytes to the following row; only if `common`
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
  // first_row, first_column: the first pixel that the windows see.
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

  // Starts the next run if the current one has ended.
  LAMP_DEVICE void continue_run() {
    if (next == run_end) start_run();
  }
  // How many rows may be fetched before the current run ends.
  LAMP_DEVICE int left_in_run() const { return run_end - next; }

  // Issues the loads of the next row. Predicated: a branch would keep the compiler from overlapping
  // them with other work.
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

  // Stores the row that was last fetched into this buffer.
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
  // From here on only one row is in flight. Drops the last row, in buffer 1; it will be fetched
  // again.
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
