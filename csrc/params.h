// What a kernel is told: plain values, passed by value. No torch, no pointers but to data.
#pragma once

#include <cstdint>

// A function for both sides, where a CUDA compiler compiles.
#ifdef __CUDACC__
#define LAMP_ANYWHERE __host__ __device__
#else
#define LAMP_ANYWHERE
#endif

namespace lamp_kernels {

constexpr int kMaxRadius = 7;  // windows 3 to 15
constexpr int kMaxTerms = 3;   // ssim, mse, l1, in this order

enum class Dtype : int { float32, float64, float16, bfloat16 };
LAMP_ANYWHERE constexpr int64_t size_of(Dtype dtype) {
  return dtype == Dtype::float64 ? 8 : dtype == Dtype::float32 ? 4 : 2;
}
enum class Border : int { reflect, valid, zeros };
// What factors * sums are added up over: nothing, (N, T); the terms, (N,); all, ().
enum class Sums : int { terms, images, batch };

// A tensor (N, C, H, W) of any strides, counted in elements; a stride of 0 repeats.
struct Source {
  const void* data = nullptr;
  Dtype dtype = Dtype::float32;
  int64_t batch = 0, channel = 0, row = 0, column = 0;
};

// The same to write to, always of the type that is computed in.
struct Sink {
  void* data = nullptr;
  int64_t batch = 0, channel = 0, row = 0, column = 0;
};

struct Params {
  int64_t batch, channels, height, width;

  bool ssim, mse, l1;  // which terms there are
  bool amplify;        // A(L) = -log1p(-L), or A(L) = L
  double eps;          // A's tangent begins at L = 1 - eps
  double scale;        // 1 / data_range

  // SSIM
  int radius;                     // the window is 2 radius + 1 wide
  Border border;
  double taps[kMaxRadius + 1];    // of the window, by the distance from its centre; their sum is 1
  double c1, c2;                  // k1^2 and k2^2: images are in units of data_range
  double dissimilarity;           // a in L = a (1 - SSIM)

  // (N, C, H, W). The weight has the type computed in, and lies on the pixels of the image; where
  // it was given on the grid of a "valid" SSIM its data points before that grid's corner.
  Source input, target, weight;
  // Of T terms: (N, T) of the type computed in, or null; then `shared_factors` are those of every
  // image, by position among the terms present.
  const void* factors;
  double shared_factors[kMaxTerms];
  Sink input_gradient, target_gradient;  // of the sum over n, t of factors * sums
  Sink map;             // factors[0, t] times A(L), summed over the terms

  LAMP_ANYWHERE int terms() const { return int(ssim) + int(mse) + int(l1); }
  // Of SSIM's grid.
  LAMP_ANYWHERE int64_t first_row() const { return border == Border::valid ? radius : 0; }
  LAMP_ANYWHERE int64_t end_row() const { return height - first_row(); }
  LAMP_ANYWHERE int64_t end_column() const { return width - first_row(); }
};

}  // namespace lamp_kernels
