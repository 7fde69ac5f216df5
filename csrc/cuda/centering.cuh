// The shifts of a tile: what the moments of d = x - y and s = x + y are taken about.
//
// Rounding costs a window's variance of d about (d - shift)^2 of what is rounded, and the gradient
// (d - shift): much where the images are nearly equal, little where they differ. So the shift of d is a
// mean in which a pixel counts by 1/d^2. A defect beside which the images are equal does not move it,
// whether it covers a hundredth of the tile or most of it; and where all pixels differ by the same, in
// brightness, it is that difference. The shift of s is the mean. What is not finite, or so
// large that squares of it are hardly, does not count, so that it stays in its windows; nor do pixels whose
// weight is 0.
#pragma once

#include "device.cuh"
#include "tiling.h"

namespace lamp_kernels::cuda {

template <class T>
struct alignas(2 * sizeof(T)) Shifts {
  T d, s;
};

template <class T>
class LevelSums {
  T sums[4] = {};  // of 1/d^2, of d/d^2, of s, and how many

 public:
  LAMP_DEVICE void add(T d, T s) {
    constexpr T kEqual = T(1e-6);  // smaller differences are all alike
    constexpr T kHuge = T(1e18);
    if (!(max(d, -d) < kHuge && max(s, -s) < kHuge)) return;
    const T by_pixel = quotient(T(1), d * d + kEqual * kEqual);
    sums[0] += by_pixel;
    sums[1] += by_pixel * d;
    sums[2] += s;
    sums[3] += 1;
  }
  LAMP_DEVICE void add_up(T* scratch) { sums_of_block(sums, scratch); }
  LAMP_DEVICE bool empty() const { return sums[3] == T(0); }
  LAMP_DEVICE Shifts<T> shifts() const {
    // Differences so large that 1/d^2 is 0 have no shift.
    return {sums[0] > T(0) ? quotient(sums[1], sums[0]) : T(0),
            quotient(sums[2], max(sums[3], T(1)))};
  }
};

// From a partial pixels of each column, those whose weight is not 0; from all of them, if there is none. To
// all threads of the block, whose scratch has room for four numbers of each warp. `common`: as of
// RowReader.
template <bool common, class T>
LAMP_DEVICE Shifts<T> shifts_of(const Params& p, const Tile& tile, T scale, T* scratch) {
  constexpr int kRows = 8;
  constexpr int kSector = 8;  // columns that memory brings at once
  const bool weighted = !common && p.weight.data;
  int row = tile.row, end_row = tile.end_row, first = tile.column, end = tile.end_column;
  if (weighted) {  // the weight may lie on the loss's grid alone
    const int margin = int(p.first_row());
    row = min(max(row, margin), int(p.end_row()) - 1);
    end_row = max(min(end_row, int(p.end_row())), row + 1);
    first = min(max(first, margin), int(p.end_column()) - 1);
    end = max(min(end, int(p.end_column())), first + 1);
  }
  const int rows = end_row - row;
  const int64_t x_plane = plane_of(p.input, tile.image, tile.channel);
  const int64_t y_plane = plane_of(p.target, tile.image, tile.channel);
  // Adds them up, unless their weight is 0 if that is asked.
  auto sample = [&](bool by_weight) {
    LevelSums<T> sums;
    for (int column = first + threadIdx.x; column < end; column += blockDim.x) {
      // In each eighth of the tile one of eight places, in each sector others: so no texture that
      // repeats is seen in one of its rows alone.
      auto row_of = [&](int i) {
        const uint32_t place = kRows * i + (3 * i + 5 * (uint32_t(column) / kSector)) % kRows;
        return row + int(place * uint32_t(rows) / (kRows * kRows));
      };
      Raw<T> at_x[kRows], at_y[kRows];  // all asked for before the first is waited for
      LAMP_UNROLL
      for (int i = 0; i < kRows; ++i) {
        at_x[i] = load_raw<common, T>(p.input, x_plane, row_of(i), column);
        at_y[i] = load_raw<common, T>(p.target, y_plane, row_of(i), column);
      }
      LAMP_UNROLL
      for (int i = 0; i < kRows; ++i) {
        if (by_weight && load_at<T>(p.weight, tile, row_of(i), column) == T(0)) continue;
        const T x = value_of<common, T>(at_x[i], p.input);
        const T y = value_of<common, T>(at_y[i], p.target);
        sums.add((x - y) * scale, (x + y) * scale);
      }
    }
    sums.add_up(scratch);
    return sums;
  };
  LevelSums<T> sums = sample(weighted);
  if constexpr (!common)
    if (weighted && sums.empty()) sums = sample(false);
  return sums.shifts();
}

}  // namespace lamp_kernels::cuda
