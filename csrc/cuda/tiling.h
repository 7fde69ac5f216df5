// Cuts images into tiles, one per block, depending on the shape, the window, the kernel's resources
// and the device.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../params.h"
#include "../tile.h"

namespace lamp_kernels::cuda {

// The properties of a device that tilings and launches depend on.
struct Device {
  int multiprocessors = 132;
  int64_t shared_memory = 227 * 1024;  // bytes available to one block
  int64_t most_blocks = 1 << 30;  // per launch; plus a plane's tiles, below 2^31 (see TileGrid)
  // Defaults are those of an H100. These only influence the choice of tiles and design, which
  // affects results by no more than rounding.
  int64_t cache = 50 << 20;    // size of the L2 cache in bytes
  double clock = 1.98e9;       // Hz
  double bandwidth = 3.35e12;  // bytes per second
  double issue_cycles = 1;     // cycles per float32 instruction of a scheduler

  bool operator==(const Device&) const = default;
};

constexpr int kWarp = 32;                  // threads
constexpr int kSchedulers = 4;             // per multiprocessor
constexpr int64_t kReservedShared = 1024;  // bytes that a multiprocessor reserves per block
constexpr int kMostWarps = 8;              // per block: with 255 registers per thread, it just fits
constexpr int kScratch = 4 * kMostWarps;   // float64 numbers in shared memory, for block sums
static_assert(kMostWarps * kWarp * 255 <= 65536);

// ---- Resources of a kernel ---------------------------------------------------------------------

// They depend on the compute type, the window and the number of gradients.
struct KernelResources {
  int radius = 0;
  int columns = 1;        // per thread
  int halo = 0;           // columns and rows beyond each side, which neighbors compute too
  int pixel_bytes = 0;    // shared memory, per column that the windows see,
  int thread_bytes = 0;   // ... per thread
  int block_bytes = 0;    // ... and per block
  int warps_at_once = 0;  // per multiprocessor, as limited by registers
  int cycles[3] = {};     // per row, if a scheduler has 1, 2 and 4 warps
  double warmup = 1;      // share of that for the first 2 radius rows, which yield no result
  int overhead[2] = {};  // cycles per tile outside its rows: per block, and per warp of a scheduler
  int bytes = 0;         // of DRAM traffic, per pixel

  constexpr int64_t positions(int threads) const { return int64_t(threads) * columns; }
  constexpr int64_t shared_memory(int threads) const {
    return (positions(threads) + 2 * radius) * pixel_bytes + int64_t(threads) * thread_bytes +
           block_bytes + kScratch * int64_t(sizeof(double));
  }
  // How many rows a band computes in addition to its own.
  constexpr int seam() const { return 2 * radius + 2 * halo; }

  // How many blocks run on one multiprocessor at once (occupancy). `shared`: what one block may
  // use, which is the multiprocessor's whole shared memory minus one reserve.
  constexpr int64_t blocks_at_once(int threads, int64_t shared) const {
    const int64_t by_registers = warps_at_once / (threads / kWarp);
    const int64_t by_shared =
        (shared + kReservedShared) / (shared_memory(threads) + kReservedShared);
    return std::max<int64_t>(std::min(by_registers, by_shared), 1);
  }
};

// ---- Tiles -------------------------------------------------------------------------------------

struct Tile {
  int64_t image, channel;
  int row, end_row, column, end_column;
};

// The tiles of one launch, starting at tile `rest` of plane `plane`.
struct TileRange {
  int64_t first;  // index among all tiles of the call
  uint32_t plane, rest;
};

struct Tiling {
  int channels = 0, height = 0, width = 0;
  int strips = 0, strip_width = 0, bands = 0, band_height = 0;
  int threads = 0;  // per block

  LAMP_HOST_DEVICE int tiles_per_plane() const { return strips * bands; }

  TileRange range(int64_t first) const {
    return {first, uint32_t(first / tiles_per_plane()), uint32_t(first % tiles_per_plane())};
  }

  // The index of a tile's plane among all planes.
  LAMP_HOST_DEVICE int64_t plane(const Tile& tile) const {
    return tile.image * channels + tile.channel;
  }

  // Columns of a row of h: even, so that the rests, which follow the pairs, are aligned.
  LAMP_HOST_DEVICE int h_width() const { return (width + 1) & ~1; }
  // How many numbers a plane of h holds.
  LAMP_HOST_DEVICE int64_t h_plane(int gradients) const {
    return int64_t(h_width()) * height * (2 + gradients);
  }
};

// Divides numbers below 2^31 by a divisor known before the launch, with a multiplication, an
// addition and a shift (Granlund and Montgomery, "Division by Invariant Integers using
// Multiplication", 1994). A division would take about twenty instructions.
struct Divisor {
  uint32_t factor = 1;  // 1 more than 2^32 (2^shift / divisor - 1), rounded down
  uint32_t shift = 0;   // the smallest for which 2^shift >= divisor

  Divisor() = default;
  explicit Divisor(uint32_t divisor) {
    while ((uint64_t(1) << shift) < divisor) ++shift;
    factor = uint32_t(((uint64_t(1) << 32) * ((uint64_t(1) << shift) - divisor)) / divisor + 1);
  }
  LAMP_HOST_DEVICE uint32_t quotient(uint32_t number) const {
    return (uint32_t(uint64_t(number) * factor >> 32) + number) >> shift;
  }
};

// A tiling with the divisors that kernels need to look up tiles.
struct TileGrid : Tiling {
  Divisor by_channels, by_plane, by_bands, by_strip_width;

  TileGrid() = default;
  TileGrid(const Tiling& t)
      : Tiling(t), by_channels(t.channels), by_plane(t.tiles_per_plane()), by_bands(t.bands),
        by_strip_width(t.strip_width) {}

  // The bands of a strip have consecutive indices.
  LAMP_HOST_DEVICE Tile tile(const TileRange& range, uint32_t block) const {
    const uint32_t index = range.rest + block, planes = by_plane.quotient(index);
    const uint32_t in_plane = index - planes * uint32_t(tiles_per_plane());
    const uint32_t strip = by_bands.quotient(in_plane), band = in_plane - strip * uint32_t(bands);
    const uint32_t plane = range.plane + planes, image = by_channels.quotient(plane);
    const int row = int(band) * band_height, column = int(strip) * strip_width;
    const int end_row = row + band_height, end_column = column + strip_width;
    return {image,  plane - image * uint32_t(channels),
            row,    end_row < height ? end_row : height,
            column, end_column < width ? end_column : width};
  }
  LAMP_HOST_DEVICE int strip_of(int column) const { return int(by_strip_width.quotient(column)); }
};

// Cycles that a launch takes on the multiprocessor that gets the most blocks. The cycles of a tile
// come from linear fits to the compiled code of sm_90, as simulated by
// bench/static_analysis/schedule.py (docs/gpu_static.md, "Windows").
inline double launch_cycles(const KernelResources& r, const Tiling& t, int64_t planes,
                            const Device& device) {
  const int64_t at_once = r.blocks_at_once(t.threads, device.shared_memory);
  const int64_t blocks = ceil_div(planes * t.strips * t.bands, int64_t(device.multiprocessors));
  const double warmup = 2 * r.radius;
  const double rows = t.band_height + r.seam() - warmup + r.warmup * warmup;
  // Cycles of a tile if `some` tiles run on the multiprocessor at once.
  auto tile = [&](int64_t some) {
    const double warps = double(some * (t.threads / kWarp)) / kSchedulers;
    const double four = r.cycles[2] * device.issue_cycles;
    // Few warps stall for about half of the time, whatever an instruction costs.
    const double few = (1 + device.issue_cycles) / 2;
    const double one = r.cycles[0] * few, two = std::max(r.cycles[1] * few, four / 2);
    const double row = warps >= 2 ? two + (four - two) * (warps / 2 - 1)
                                  : one + (two - one) * std::max(warps - 1, 0.0);
    return rows * row + r.overhead[0] + r.overhead[1] * std::max(warps, 1.0);
  };
  const int64_t rest = blocks % at_once;
  return double(blocks / at_once) * tile(at_once) + (rest ? tile(rest) : 0);
}

// The tiling for blocks of `warps` warps and about `bands` bands. Its `threads` is 0 if the device
// cannot run such a block.
inline Tiling tiling_of(const Params& p, const KernelResources& r, int warps, int64_t bands,
                        const Device& device) {
  Tiling t;
  t.channels = int(p.channels);
  t.height = int(p.height);
  t.width = int(p.width);
  const int64_t widest = r.positions(warps * kWarp) - 2 * r.halo;
  if (widest < r.columns || r.shared_memory(warps * kWarp) > device.shared_memory) return t;
  t.threads = warps * kWarp;
  // Pairs of columns stay in one strip, so that they can be vectors of two.
  t.strip_width =
      int(std::min(round_up(ceil_div(p.width, ceil_div(p.width, widest)), r.columns), widest));
  t.strips = int(ceil_div(p.width, t.strip_width));
  t.band_height = int(ceil_div(p.height, bands));
  t.bands = int(ceil_div(p.height, t.band_height));
  return t;
}

// Calls f(tiling) for blocks of `warps` warps. Tries the numbers of bands that give a
// multiprocessor 1, 2, ... blocks, up to three times as many as it runs at once.
template <class F>
void for_each_tiling(const Params& p, const KernelResources& r, int warps, int64_t planes,
                     const Device& device, F f) {
  const Tiling whole = tiling_of(p, r, warps, 1, device);
  if (!whole.threads) return;
  const int64_t at_once = r.blocks_at_once(whole.threads, device.shared_memory);
  int64_t last = 0;
  for (int64_t blocks = 0; blocks <= 3 * at_once; ++blocks) {
    const int64_t bands = std::clamp<int64_t>(
        blocks * device.multiprocessors / std::max<int64_t>(planes * whole.strips, 1), 1, p.height);
    if (bands != last) f(tiling_of(p, r, warps, bands, device));
    last = bands;
  }
}

// Keeps the candidate that takes the fewest cycles; of equal ones, the first.
template <class Choice>
struct Quickest {
  Choice best{};
  double cycles = -1;

  void consider(const Choice& choice, double takes) {
    if (cycles >= 0 && takes >= cycles) return;
    cycles = takes;
    best = choice;
  }
};

// The tiling that takes the fewest cycles.
inline Tiling best_tiling(const Params& p, const KernelResources& r, int64_t planes,
                          const Device& device) {
  Quickest<Tiling> quickest;
  for (int warps = 1; warps <= kMostWarps; ++warps)
    for_each_tiling(p, r, warps, planes, device, [&](const Tiling& t) {
      quickest.consider(t, launch_cycles(r, t, planes, device));
    });
  return quickest.best;
}

// The tiles of the two launches. Each tile of the losses is split into one or more tiles of the
// gradients, one below the other, so that all pixels of a gradient tile have the same shift.
struct Tilings {
  Tiling losses, gradients;

  // Splits each tile of the losses into `parts` for a gradients kernel with another number of
  // columns per thread.
  Tilings(Tiling t, const KernelResources& r, int parts) {
    t.strip_width = int(round_up(t.strip_width, r.columns));  // still fits a block of whole warps
    t.strips = int(ceil_div(t.width, t.strip_width));
    losses = gradients = t;
    gradients.threads = int(round_up(ceil_div(t.strip_width, r.columns), kWarp));
    gradients.band_height = int(ceil_div(t.band_height, parts));
    gradients.bands = int(ceil_div(t.height, gradients.band_height));
    losses.band_height = parts * gradients.band_height;
    losses.bands = int(ceil_div(t.height, losses.band_height));
  }
  Tilings() = default;
};
inline Tilings best_tilings(const Params& p, const KernelResources& losses,
                            const KernelResources& gradients, int64_t planes,
                            const Device& device) {
  Quickest<Tilings> quickest;
  // Strips are an even number of warps wide, unless one warp is enough.
  for (int warps = p.width <= losses.positions(kWarp) ? 1 : 2; warps <= kMostWarps;
       warps += 1 + (warps > 1))
    for_each_tiling(p, losses, warps, planes, device, [&](const Tiling& t) {
      for (int parts = 1; parts <= 4; ++parts) {
        const Tilings tilings(t, gradients, parts);
        quickest.consider(tilings, launch_cycles(losses, tilings.losses, planes, device) +
                                       launch_cycles(gradients, tilings.gradients, planes, device));
      }
    });
  return quickest.best;
}

// ---- Pointwise losses, and scaling in the backward pass ----------------------------------------

// A tile of a pointwise loss is a run of consecutive pixels in one plane.
constexpr int kPixelThreads = 256;
constexpr int kPixelsOfAThread = 16;

struct PixelTiling {
  int64_t channels, width;
  int64_t pixels;     // per plane
  int64_t per_plane;  // tiles per plane

  explicit PixelTiling(const Params& p)
      : channels(p.channels), width(p.width), pixels(p.height * p.width),
        per_plane(ceil_div(pixels, int64_t(kPixelThreads) * kPixelsOfAThread)) {}
};

// Scaling: a block handles kScaleBytes bytes of one image. Not fewer, because usually the factor is
// 1 and the blocks have nothing to do.
constexpr int kScaleThreads = 256;
constexpr int kScaleBytes = 32 * 1024;

}  // namespace lamp_kernels::cuda
