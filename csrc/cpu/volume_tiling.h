// Volumes (N, C, D, H, W) as stacks of planes, and the tiles that threads process. As with planes,
// the tiling depends only on the shape.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../params.h"
#include "../tile.h"

namespace lamp_kernels {

// The parameters of plane 0, and how far apart planes are, counted in elements.
struct Volume {
  Params plane;
  int64_t depth;
  int64_t compute_size;  // bytes per element of the compute type
  struct {
    int64_t input, target, weight, input_gradient, target_gradient, map;
  } step;

  // The planes whose windows count.
  int64_t first_plane() const { return plane.first_row(); }
  int64_t end_plane() const { return depth - plane.first_row(); }
  ConstTensorView weight(int64_t z) const { return moved(plane.weight, z * step.weight); }
  TensorView map(int64_t z) const { return moved(plane.map, z * step.map); }
  Params at(int64_t z) const {
    Params p = plane;
    p.input = moved(p.input, z * step.input);
    p.target = moved(p.target, z * step.target);
    p.weight = weight(z);
    p.input_gradient = moved(p.input_gradient, z * step.input_gradient);
    p.target_gradient = moved(p.target_gradient, z * step.target_gradient);
    p.map = map(z);
    return p;
  }

 private:
  static ConstTensorView moved(ConstTensorView v, int64_t elements) {
    if (v.data) v.data = static_cast<const char*>(v.data) + elements * size_of(v.dtype);
    return v;
  }
  TensorView moved(TensorView v, int64_t elements) const {
    if (v.data) v.data = static_cast<char*>(v.data) + elements * compute_size;
    return v;
  }
};

// A box of voxels: the same tile of several planes.
struct Box {
  Tile tile;
  int64_t plane, end_plane;
};

struct VolumeTiling {
  // The ring buffers of a box take 530 bytes per pixel of its tile for window 11 and one gradient
  // (volume.h); 32 x 64 pixels and their halo take 1.5 MB, which fits the L2 cache of most servers.
  static constexpr int64_t kWidest = 64;
  static constexpr int64_t kWidthStep = 16;  // floats in the widest vector
  static constexpr int64_t kHighest = 32;
  static constexpr int64_t kDeepest = 256;     // planes: lets the shift adapt a little
  static constexpr int64_t kShallowest = 64;   // planes: a seam costs the work of about 14
  static constexpr int64_t kEnoughBoxes = 16;  // so that several cores can share one volume

  int64_t volumes, channels, depth, height, width;
  int64_t strips, strip_width, bands, band_height, slabs, slab_depth;

  explicit VolumeTiling(const Volume& v)
      : volumes(v.plane.batch * v.plane.channels), channels(v.plane.channels), depth(v.depth),
        height(v.plane.height), width(v.plane.width) {
    strip_width = round_up(ceil_div(width, ceil_div(width, kWidest)), kWidthStep);
    strips = ceil_div(width, strip_width);
    band_height = ceil_div(height, ceil_div(height, kHighest));
    bands = ceil_div(height, band_height);
    const int64_t wanted = ceil_div(kEnoughBoxes, std::max<int64_t>(volumes * strips * bands, 1));
    slabs = std::max(std::min(wanted, depth / kShallowest), ceil_div(depth, kDeepest));
    slab_depth = ceil_div(depth, slabs);
    slabs = ceil_div(depth, slab_depth);
  }

  int64_t voxels() const { return slab_depth * band_height * strip_width; }
  int64_t boxes_per_volume() const { return slabs * bands * strips; }
  int64_t boxes() const { return volumes * boxes_per_volume(); }

  Box box(int64_t index) const {
    const int64_t strip = index % strips, band = index / strips % bands;
    const int64_t slab = index / (strips * bands) % slabs, volume = index / boxes_per_volume();
    const int64_t plane = slab * slab_depth, row = band * band_height, column = strip * strip_width;
    return {{volume / channels, volume % channels, row, std::min(row + band_height, height), column,
             std::min(column + strip_width, width)},
            plane,
            std::min(plane + slab_depth, depth)};
  }
};

}  // namespace lamp_kernels
