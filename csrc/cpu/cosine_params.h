// What the cosine kernel computes, and the tiles into which threads cut it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../params.h"
#include "../tile.h"

namespace lamp_kernels {

// A tile is a strip of the positions of one row, with all their channels. The tiling does not depend
// on the number of threads, so sums are always added in the same order.
struct CosineParams {
  // The three passes over a strip of 64 positions find 1,024 channels of float32 in the L2 cache.
  static constexpr int64_t kPositions = 64;

  // Has no terms, no border and no range. Weight, mask and map have one channel.
  Params p;
  double epsilon;       // the least norm
  bool along_channels;  // vectors hold channels of one position; otherwise positions of one channel

  // Treats positions as one row if they follow each other evenly in every tensor: those of an image,
  // and those of the batch unless its images differ in what is done with them. Chooses
  // `along_channels`.
  void arrange(bool images_differ) {
    if (p.height * p.width == 1) {  // the strides of single positions may be anything
      for (ConstTensorView* s : {&p.input, &p.target, &p.weight, &p.mask}) s->column = s->batch;
      for (TensorView* s : {&p.input_gradient, &p.target_gradient, &p.map}) s->column = s->batch;
    } else if (p.height > 1 && of_all([&](auto& s) { return s.row == p.width * s.column; })) {
      p.width *= p.height;
      p.height = 1;
    }
    if (!images_differ && p.height == 1 &&
        of_all([&](auto& s) { return s.batch == p.width * s.column; })) {
      p.width *= p.batch;
      p.batch = 1;
    }
    along_channels = of_images([](auto& s) { return s.channel == 1; });
  }

  int64_t strips() const { return ceil_div(p.width, kPositions); }
  int64_t tiles_per_image() const { return p.height * strips(); }
  int64_t tiles() const { return p.batch * tiles_per_image(); }

  Tile tile(int64_t index) const {
    const int64_t column = index % strips() * kPositions, row = index / strips() % p.height;
    return {
        index / tiles_per_image(), 0, row, row + 1, column, std::min(column + kPositions, p.width)};
  }

 private:
  // Whether test(view) is true of the images and their gradients; of all tensors.
  template <class Test>
  bool of_images(Test test) const {
    auto holds = [&](auto& s) { return !s.data || test(s); };
    return holds(p.input) && holds(p.target) && holds(p.input_gradient) && holds(p.target_gradient);
  }
  template <class Test>
  bool of_all(Test test) const {
    auto holds = [&](auto& s) { return !s.data || test(s); };
    return of_images(test) && holds(p.weight) && holds(p.mask) && holds(p.map);
  }
};

}  // namespace lamp_kernels
