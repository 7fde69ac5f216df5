// How images are cut into the tiles that blocks take: by the shape, the window and the device.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../params.h"
#include "../tile.h"

namespace lamp_kernels::cuda {

// What a launch depends on.
struct Device {
  int multiprocessors;
  int64_t shared_memory;                // bytes that one block may have
  int64_t most_blocks = (1u << 31) - 1;  // of one launch: the limit of gridDim.x
};

constexpr int kWarp = 32;      // threads
constexpr int64_t kReservedShared = 1024;  // bytes of a multiprocessor that each block costs
constexpr int kMostWarps = 8;  // of a block: with 255 registers a thread it fits a multiprocessor
static_assert(kMostWarps * kWarp * 255 <= 65536);

// A kernel's demands, by the type computed in, the window and the number of gradients.
struct Demands {
  int radius;
  int columns;        // that a thread has
  int halo;           // columns and rows on each side that are computed for the neighbours' sake
  int ring_rows;      // rows of pixels in shared memory
  int planes;         // of h
  int size;           // bytes of a number
  int sums_in_shared; // a thread's sums of windows under way that lie there
  int registers;      // of a thread, for the sums that do not

  constexpr int64_t positions(int threads) const { return int64_t(threads) * columns; }
  // A row of pixels: what the windows of all positions see.
  constexpr int64_t pixels(int threads) const { return positions(threads) + 2 * radius; }
  constexpr int64_t pixel_bytes(int threads) const {
    return ring_rows * pixels(threads) * 2 * size;  // d and s
  }
  constexpr int64_t h_bytes(int threads) const {
    return 2 * planes * positions(threads) * size;  // one row written, one read
  }
  constexpr int64_t sums_bytes(int threads) const {
    return int64_t(sums_in_shared) * threads * size;
  }
  constexpr int64_t shared_memory(int threads) const {
    return pixel_bytes(threads) + h_bytes(threads) + sums_bytes(threads) +
           kMostWarps * int64_t(sizeof(double));
  }

  // How many blocks run on one multiprocessor: 8 or 12 warps, as registers let them
  // (bench/gpu_static.py), or, in float64, fewer for want of shared memory. What one block may have
  // of that is all there is, but for the reserve.
  constexpr int64_t blocks_at_once(int threads, int64_t shared) const {
    const int64_t by_registers = (registers <= 48 ? 12 : 8) / (threads / kWarp);
    const int64_t by_shared =
        (shared + kReservedShared) / (shared_memory(threads) + kReservedShared);
    return std::max<int64_t>(std::min(by_registers, by_shared), 1);
  }
};

struct Tiling {
  int64_t channels, height, width;
  int64_t strips, strip_width, bands, band_height;
  int threads;  // of a block

  LAMP_ANYWHERE int64_t tiles_per_plane() const { return strips * bands; }

  // Bands of one strip follow one another.
  LAMP_ANYWHERE Tile tile(int64_t index) const {
    const int64_t band = index % bands, strip = index / bands % strips;
    const int64_t plane = index / (bands * strips);
    const int64_t row = band * band_height, column = strip * strip_width;
    const int64_t end_row = row + band_height, end_column = column + strip_width;
    return {plane / channels, plane % channels,
            row, end_row < height ? end_row : height,
            column, end_column < width ? end_column : width};
  }
};

// Warps of one multiprocessor that keep its multiply-add units busy: with fewer it does not take
// less time.
constexpr int kBusyWarps = 8;

// Strips as wide as wastes the fewest threads, and bands so that small batches fill the device:
// what takes the least time if a warp takes one unit for a row, and kBusyWarps of them on one
// multiprocessor no longer than one.
inline Tiling ssim_tiling(const Params& p, const Demands& d, const Device& device) {
  Tiling best{p.channels, p.height, p.width, 0, 0, 0, 0, 0};
  const int64_t planes = std::max<int64_t>(p.batch * p.channels, 1);
  double least = -1;
  for (int warps = 1; warps <= kMostWarps; ++warps) {
    Tiling t = best;
    t.threads = warps * kWarp;
    if (d.shared_memory(t.threads) > device.shared_memory) break;
    const int64_t widest = d.positions(t.threads) - 2 * d.halo;
    if (widest < d.columns) continue;
    // Pairs of columns stay together, for vectors of two.
    t.strip_width =
        std::min(round_up(ceil_div(p.width, ceil_div(p.width, widest)), d.columns), widest);
    t.strips = ceil_div(p.width, t.strip_width);
    const int64_t at_once = d.blocks_at_once(t.threads, device.shared_memory);
    auto round = [&](int64_t blocks) {  // on one multiprocessor, of one row
      return blocks ? std::max<int64_t>(blocks * warps, kBusyWarps) : 0;
    };
    // A seam computes so many rows twice: bands of fewer rows than that are all seam.
    const int64_t seam = 2 * d.radius + 2 * d.halo;
    const int64_t most_bands = std::max<int64_t>(1, p.height / seam);
    for (int64_t bands = 1; bands <= std::min<int64_t>(most_bands, 64); ++bands) {
      t.band_height = ceil_div(p.height, bands);
      t.bands = ceil_div(p.height, t.band_height);
      const int64_t blocks = ceil_div(planes * t.strips * t.bands, device.multiprocessors);
      const double time = double(blocks / at_once * round(at_once) + round(blocks % at_once)) *
                          double(t.band_height + seam);
      if (least < 0 || time < least) {
        least = time;
        best = t;
      }
    }
  }
  return best;
}

// Pointwise losses: a tile is a run of pixels in one plane, whose rows may be many or one.
constexpr int kPixelThreads = 256;
constexpr int kPixelsOfAThread = 16;

struct PixelTiling {
  int64_t channels, width;
  int64_t pixels;     // of a plane
  int64_t per_plane;  // tiles

  explicit PixelTiling(const Params& p)
      : channels(p.channels), width(p.width), pixels(p.height * p.width),
        per_plane(ceil_div(pixels, int64_t(kPixelThreads) * kPixelsOfAThread)) {}
};

// Backward's multiplication: a block takes so many bytes of one image. Not fewer, for most blocks
// find that there is nothing to do.
constexpr int kScaleThreads = 256;
constexpr int kScaleBytes = 32 * 1024;

}  // namespace lamp_kernels::cuda
