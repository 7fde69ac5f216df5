// What the cosine kernel computes, and the tiles into which threads cut it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../params.h"
#include "../tile.h"

namespace lamp_kernels {

// A tile is a strip of the positions of one row, with all their channels. The tiling depends only on
// the shape and the strides, so that sums are added in the same order for any number of threads.
struct CosineParams {
  // The three passes over a strip of 64 positions find 1,024 channels of float32 in the L2 cache.
  static constexpr int64_t kPositions = 64;

  // Has no terms, no border, no mask and no range. Weight and map have one channel.
  Params p;
  double epsilon;       // the least norm
  bool along_channels;  // vectors hold channels of one position; otherwise positions of one channel

  int64_t strips() const { return ceil_div(p.width, kPositions); }
  int64_t tiles_per_image() const { return p.height * strips(); }
  int64_t tiles() const { return p.batch * tiles_per_image(); }

  Tile tile(int64_t index) const {
    const int64_t column = index % strips() * kPositions, row = index / strips() % p.height;
    return {
        index / tiles_per_image(), 0, row, row + 1, column, std::min(column + kPositions, p.width)};
  }
};

}  // namespace lamp_kernels
