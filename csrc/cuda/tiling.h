// How images are cut into the tiles that blocks take, and which kernels compute them: by the shape,
// the window and the device.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../params.h"
#include "../tile.h"

namespace lamp_kernels::cuda {

// What a launch depends on.
struct Device {
  int multiprocessors = 132;
  int64_t shared_memory = 227 * 1024;  // bytes that one block may have
  int64_t most_blocks = 1 << 30;  // of one launch: with a plane's tiles less than 2^31 (TileGrid)
  // An H100's, where nothing else is said; they choose tiles and designs and change no result but
  // by rounding.
  int64_t cache = 50 << 20;    // bytes of the L2 cache
  double clock = 1.98e9;       // Hz
  double bandwidth = 3.35e12;  // bytes a second
  double issue_cycles = 1;     // of a scheduler, for an instruction in float32

  bool operator==(const Device&) const = default;
};

constexpr int kWarp = 32;                  // threads
constexpr int kSchedulers = 4;             // of a multiprocessor
constexpr int64_t kReservedShared = 1024;  // bytes of a multiprocessor that each block costs
constexpr int kMostWarps = 8;  // of a block: with 255 registers a thread it fits a multiprocessor
constexpr int kScratch = 4 * kMostWarps;  // numbers of float64 in shared memory, for sums of blocks
static_assert(kMostWarps * kWarp * 255 <= 65536);

// ---- What a kernel takes -------------------------------------------------------------------------

// By the type computed in, the window and the number of gradients.
struct KernelResources {
  int radius = 0;
  int columns = 1;        // that a thread has
  int halo = 0;           // columns and rows on each side computed for the neighbours' sake
  int pixel_bytes = 0;    // of shared memory, for each column that windows see
  int thread_bytes = 0;   // and for each thread ...
  int block_bytes = 0;    // ... and for the block
  int warps_at_once = 0;  // on a multiprocessor, as registers let them
  int cycles[3] = {};     // of a row, where a scheduler has 1, 2 and 4 warps
  double warming = 1;     // of that, for the first 2 radius rows, which have no result yet
  int beside[2] =
      {};         // of a tile, beside its rows: for the block, and for each warp of a scheduler
  int bytes = 0;  // of DRAM, for each pixel

  constexpr int64_t positions(int threads) const { return int64_t(threads) * columns; }
  constexpr int64_t shared_memory(int threads) const {
    return (positions(threads) + 2 * radius) * pixel_bytes + int64_t(threads) * thread_bytes +
           block_bytes + kScratch * int64_t(sizeof(double));
  }
  // Rows that a band computes beside its own.
  constexpr int seam() const { return 2 * radius + 2 * halo; }

  // How many blocks run on one multiprocessor. What one block may have of its shared memory is all
  // there is, but for the reserve.
  constexpr int64_t blocks_at_once(int threads, int64_t shared) const {
    const int64_t by_registers = warps_at_once / (threads / kWarp);
    const int64_t by_shared =
        (shared + kReservedShared) / (shared_memory(threads) + kReservedShared);
    return std::max<int64_t>(std::min(by_registers, by_shared), 1);
  }
};

// ---- Tiles ---------------------------------------------------------------------------------------

struct Tile {
  int64_t image, channel;
  int row, end_row, column, end_column;
};

// The tiles of one launch: from tile `rest` of plane `plane` on.
struct TileRange {
  int64_t first;  // of all tiles of the call
  uint32_t plane, rest;
};

struct Tiling {
  int channels = 0, height = 0, width = 0;
  int strips = 0, strip_width = 0, bands = 0, band_height = 0;
  int threads = 0;  // of a block

  LAMP_HOST_DEVICE int tiles_per_plane() const { return strips * bands; }

  TileRange range(int64_t first) const {
    return {first, uint32_t(first / tiles_per_plane()), uint32_t(first % tiles_per_plane())};
  }

  // Which of all planes a tile is in.
  LAMP_HOST_DEVICE int64_t plane(const Tile& tile) const {
    return tile.image * channels + tile.channel;
  }

  // Columns of a row of h: as many as keep what lies behind pairs of numbers aligned.
  LAMP_HOST_DEVICE int h_width() const { return (width + 1) & ~1; }
  // Numbers of a plane of h.
  LAMP_HOST_DEVICE int64_t h_plane(int gradients) const {
    return int64_t(h_width()) * height * (2 + gradients);
  }
};

// Divides numbers below 2^31 by one that is known before the launch: by a multiplication, an addition
// and a shift (Granlund and Montgomery, "Division by Invariant Integers using Multiplication", 1994),
// where a division takes some twenty instructions.
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

// A tiling as kernels ask it.
struct TileGrid : Tiling {
  Divisor by_channels, by_plane, by_bands, by_strip_width;

  TileGrid() = default;
  TileGrid(const Tiling& t)
      : Tiling(t), by_channels(t.channels), by_plane(t.tiles_per_plane()), by_bands(t.bands),
        by_strip_width(t.strip_width) {}

  // Bands of one strip follow one another.
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

// Cycles that a launch takes on the multiprocessor that gets the most blocks. The cycles of a tile are
// straight lines fitted to the compiled code of sm_90 as bench/static_analysis/schedule.py simulates it
// (docs/gpu_static.md, "Windows").
inline double launch_cycles(const KernelResources& r, const Tiling& t, int64_t planes,
                            const Device& device) {
  const int64_t at_once = r.blocks_at_once(t.threads, device.shared_memory);
  const int64_t blocks = ceil_div(planes * t.strips * t.bands, int64_t(device.multiprocessors));
  const double warming = 2 * r.radius;
  const double rows = t.band_height + r.seam() - warming + r.warming * warming;
  // A tile, if so many are there at once.
  auto tile = [&](int64_t some) {
    const double warps = double(some * (t.threads / kWarp)) / kSchedulers;
    const double four = r.cycles[2] * device.issue_cycles;
    // Few warps wait for about half of the time, whatever an instruction takes.
    const double partial = (1 + device.issue_cycles) / 2;
    const double one = r.cycles[0] * partial, two = std::max(r.cycles[1] * partial, four / 2);
    const double row = warps >= 2 ? two + (four - two) * (warps / 2 - 1)
                                  : one + (two - one) * std::max(warps - 1, 0.0);
    return rows * row + r.beside[0] + r.beside[1] * std::max(warps, 1.0);
  };
  const int64_t rest = blocks % at_once;
  return double(blocks / at_once) * tile(at_once) + (rest ? tile(rest) : 0);
}

// Tiles for blocks of so many warps and about so many bands. `threads` is 0 if no such block fits
// the device.
inline Tiling tiling_of(const Params& p, const KernelResources& r, int warps, int64_t bands,
                        const Device& device) {
  Tiling t;
  t.channels = int(p.channels);
  t.height = int(p.height);
  t.width = int(p.width);
  const int64_t widest = r.positions(warps * kWarp) - 2 * r.halo;
  if (widest < r.columns || r.shared_memory(warps * kWarp) > device.shared_memory) return t;
  t.threads = warps * kWarp;
  // Pairs of columns stay together, for vectors of two.
  t.strip_width =
      int(std::min(round_up(ceil_div(p.width, ceil_div(p.width, widest)), r.columns), widest));
  t.strips = int(ceil_div(p.width, t.strip_width));
  t.band_height = int(ceil_div(p.height, bands));
  t.bands = int(ceil_div(p.height, t.band_height));
  return t;
}

// Calls f(tiling) for blocks of so many warps, and so many bands that a multiprocessor gets 1, 2, ...
// of them, up to three rounds.
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

// The one of some that takes the fewest cycles, the first of equals.
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

// Those that take the least time.
inline Tiling best_tiling(const Params& p, const KernelResources& r, int64_t planes,
                          const Device& device) {
  Quickest<Tiling> quickest;
  for (int warps = 1; warps <= kMostWarps; ++warps)
    for_each_tiling(p, r, warps, planes, device, [&](const Tiling& t) {
      quickest.consider(t, launch_cycles(r, t, planes, device));
    });
  return quickest.best;
}

// The tiles of the two launches: those of the gradients lie within those of the losses, one or more
// below one another, so that a tile of gradients has one shift.
struct Tilings {
  Tiling losses, gradients;

  // The tiles of the losses, and each in `parts` for a kernel with other columns.
  Tilings(Tiling t, const KernelResources& r, int parts) {
    t.strip_width = int(round_up(t.strip_width, r.columns));  // a multiple of a warp holds that too
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
  // Strips of an even number of warps, unless one is enough.
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

// ---- Pointwise losses, and backward's multiplication ---------------------------------------------

// A tile of a pointwise loss is a run of pixels in one plane, whose rows may be many or one.
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
