// The levels of a tile: what the moments of d and s are taken about. The rounding of a variance, and
// of the gradient's terms that cancel, grows with the distance to them.
#pragma once

#include "device.cuh"
#include "tiling.h"

namespace lamp_kernels::cuda {

template <class T>
struct alignas(2 * sizeof(T)) Levels {
  T d, s;
};

// The means over a few of the tile's rows, to all threads of the block, whose scratch has room for
// three numbers of each warp. What is not finite does not count, so that a NaN stays in its windows.
// `common`: as of RowReader.
template <bool common, class T>
LAMP_DEVICE Levels<T> levels_of(const Params& p, const Tile& tile, T scale, T* scratch) {
  constexpr int kRows = 8;
  const int rows = tile.end_row - tile.row;
  const int64_t x_plane = plane_of(p.input, tile.image, tile.channel);
  const int64_t y_plane = plane_of(p.target, tile.image, tile.channel);
  T sums[3] = {};  // of d, of s, and how many
  for (int column = tile.column + threadIdx.x; column < tile.end_column; column += blockDim.x) {
    Raw<T> at_x[kRows], at_y[kRows];  // all asked for before the first is waited for
    LAMP_UNROLL
    for (int i = 0; i < kRows; ++i) {
      // In each eighth of the tile another of its eight places: a texture may repeat.
      const int row = tile.row + i * rows / kRows + 3 * i % kRows * (rows / kRows) / kRows;
      at_x[i] = load_raw<common, T>(p.input, x_plane, row, column);
      at_y[i] = load_raw<common, T>(p.target, y_plane, row, column);
    }
    LAMP_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const T x = value_of<common, T>(at_x[i], p.input), y = value_of<common, T>(at_y[i], p.target);
      const T d = x - y, s = x + y;
      if (d - d == T(0) && s - s == T(0)) sums[0] += d, sums[1] += s, sums[2] += 1;
    }
  }
  sums_of_block(sums, scratch);
  const T mean = quotient(scale, max(sums[2], T(1)));
  return {sums[0] * mean, sums[1] * mean};
}

}  // namespace lamp_kernels::cuda
