// A tile of one image plane: a band of rows of a strip of columns. One thread or thread block
// computes it.
#pragma once

#include <cstdint>

#include "params.h"

namespace lamp_kernels {

struct Tile {
  int64_t image, channel;
  int64_t row, end_row, column, end_column;
};

LAMP_HOST_DEVICE constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
LAMP_HOST_DEVICE constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

}  // namespace lamp_kernels
