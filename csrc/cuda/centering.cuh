// The shifts of a tile: the constants about which the moments of d = x - y and s = x + y are taken.
//
// Rounding errors in a window's variance of d are proportional to (d - shift)^2, and those in the
// gradient to (d - shift): they hurt where the images are nearly equal, and matter little where
// they differ. The shift of d is therefore a mean of d in which each pixel is weighted by 1/d^2. A
// defect in otherwise equal images does not move this mean, whether it covers a hundredth of the
// tile or most of it. If all pixels differ by the same brightness offset, the mean is that offset.
// The shift of s is its plain mean. Values that are not finite, or so large that their squares are
// barely finite, are left out, so that they affect only the windows that see them. Pixels whose
// weight is 0 are left out, too.
#pragma once

#include "device.cuh"
#include "tiling.h"

namespace lamp_kernels::cuda {

template <class T>
struct alignas(2 * sizeof(T)) Shifts {
  T d, s;
};

template <class T>
class ShiftSums {
  T sums[4] = {};  // of 1/d^2, d/d^2, s and 1

 public:
  LAMP_DEVICE void add(T d, T s) {
    constexpr T kEqual = T(1e-6);  // smaller differences all get the same weight
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
    // If all differences are so large that 1/d^2 is 0, the shift of d is 0.
    return {sums[0] > T(0) ? quotient(sums[1], sums[0]) : T(0),
            quotient(sums[2], max(sums[3], T(1)))};
  }
};

// Samples a few pixels of each column, and uses those whose weight is not 0, or all of them if
// every weight is 0. Returns the shifts to all threads of the block. `scratch` has room for four
// numbers per warp. `common`: see RowReader.
template <bool common, class T>
LAMP_DEVICE Shifts<T> shifts_of(const Params& p, const Tile& tile, T scale, T* scratch) {
  constexpr int kRows = 8;
  constexpr int kSector = 8;  // columns per memory sector, the unit of a DRAM transfer
  const bool weighted = !common && p.weight.data;
  int row = tile.row, end_row = tile.end_row, first = tile.column, end = tile.end_column;
  if (weighted) {  // the weight may cover only the loss's grid
    const int margin = int(p.first_row());
    row = min(max(row, margin), int(p.end_row()) - 1);
    end_row = max(min(end_row, int(p.end_row())), row + 1);
    first = min(max(first, margin), int(p.end_column()) - 1);
    end = max(min(end, int(p.end_column())), first + 1);
  }
  const int rows = end_row - row;
  const int64_t x_plane = plane_of(p.input, tile.image, tile.channel);
  const int64_t y_plane = plane_of(p.target, tile.image, tile.channel);
  // Sums the samples; with `by_weight`, skips those whose weight is 0.
  auto sample = [&](bool by_weight) {
    ShiftSums<T> sums;
    for (int column = first + threadIdx.x; column < end; column += blockDim.x) {
      // Takes one of eight rows in each eighth of the tile, and different ones in each sector, so
      // that the samples of a repeating texture do not all come from the same row of its pattern.
      auto row_of = [&](int i) {
        const uint32_t place = kRows * i + (3 * i + 5 * (uint32_t(column) / kSector)) % kRows;
        return row + int(place * uint32_t(rows) / (kRows * kRows));
      };
      Raw<T> at_x[kRows], at_y[kRows];  // issue all loads before waiting for the first
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
  ShiftSums<T> sums = sample(weighted);
  if constexpr (!common)
    if (weighted && sums.empty()) sums = sample(false);
  return sums.shifts();
}

}  // namespace lamp_kernels::cuda
