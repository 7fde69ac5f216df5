// Cuts images into the tiles that threads process. The tiling depends only on the shape, so that
// sums are added in the same order for any number of threads and on every instruction set.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../params.h"
#include "../tile.h"

namespace lamp_kernels {

struct Tiling {
  // For SSIM and GMS. Wide strips spend less on their halo (for window 11, a strip of 256 columns
  // computes 266 window positions), as long as their ring buffers, about 500 bytes per column, fit
  // the L2 cache.
  static constexpr int64_t kWidest = 256;
  static constexpr int64_t kWidthStep = 16;    // floats in the widest vector
  static constexpr int64_t kHighest = 1024;    // rows: lets the shift adapt to the image a little
  static constexpr int64_t kLowest = 64;       // rows: a seam costs the work of about 13
  static constexpr int64_t kEnoughTiles = 16;  // so that several cores can share one plane
  // For pointwise losses, which have no halo: large enough to amortize the cost per tile.
  static constexpr int64_t kPixels = 16384;

  int64_t planes, channels, height, width;
  int64_t strips, strip_width, bands, band_height;

  explicit Tiling(const Params& p)
      : planes(p.batch * p.channels), channels(p.channels), height(p.height), width(p.width) {
    const int64_t widest = p.windowed() ? kWidest : kPixels;
    strip_width = round_up(ceil_div(width, ceil_div(width, widest)), kWidthStep);
    strips = ceil_div(width, strip_width);
    if (p.windowed()) {
      const int64_t wanted = ceil_div(kEnoughTiles, std::max<int64_t>(planes * strips, 1));
      bands = std::max(std::min(wanted, height / kLowest), ceil_div(height, kHighest));
    } else {
      bands = ceil_div(height, std::max<int64_t>(kPixels / strip_width, 1));
    }
    band_height = ceil_div(height, bands);
    bands = ceil_div(height, band_height);
  }

  // The number of pixels of a full tile, a measure of its work.
  int64_t pixels() const { return strip_width * band_height; }
  int64_t tiles_per_plane() const { return strips * bands; }
  int64_t tiles() const { return planes * tiles_per_plane(); }

  // An order in which the same tile of all channels comes one after the other: the index of the tile
  // in place k.
  int64_t channels_together(int64_t k) const {
    const int64_t of_image = channels * tiles_per_plane(), image = k / of_image, at = k % of_image;
    return image * of_image + at % channels * tiles_per_plane() + at / channels;
  }

  // The bands of a strip have consecutive indices: the rows that two bands share are still in
  // cache.
  Tile tile(int64_t index) const {
    const int64_t band = index % bands, strip = index / bands % strips;
    const int64_t plane = index / tiles_per_plane();
    const int64_t row = band * band_height, column = strip * strip_width;
    return {plane / channels,
            plane % channels,
            row,
            std::min(row + band_height, height),
            column,
            std::min(column + strip_width, width)};
  }
};

}  // namespace lamp_kernels
