// The parameters of a kernel: plain values, passed by value. No torch, and no pointers but to data.
#pragma once

#include <cstdint>

// Declares a function for host and device if a CUDA compiler compiles it.
#ifdef __CUDACC__
#define LAMP_HOST_DEVICE __host__ __device__
#else
#define LAMP_HOST_DEVICE
#endif

namespace lamp_kernels {

constexpr int kMaxRadius = 7;  // windows 3 to 15

// The terms of a loss, in the order of KERNEL_METRICS in lamp_kernels/spec.py. SSIM and GMS have a
// window, the others are pointwise. Their formulas are in formulas.h.
enum class Metric : int { ssim, mse, l1, charbonnier, gms };
constexpr const char* kMetricNames[] = {"ssim", "mse", "l1", "charbonnier", "gms"};
constexpr int kAllMetrics = sizeof(kMetricNames) / sizeof(kMetricNames[0]);
constexpr int kMetrics = int(Metric::gms);  // that one call may combine; GMS is computed alone
constexpr int kGmsRadius = 1;               // the Prewitt operator sees 3 x 3 pixels

// A(L), with the names of AMPLIFICATIONS in lamp_kernels/spec.py. The first two have their own GPU
// kernels, which do not branch on the amplification.
enum class Amplify : int { none, log, power };
constexpr const char* kAmplifyNames[] = {"none", "log", "power"};
constexpr int kAmplifyParameters[] = {0, 1, 2};  // how many each one has
constexpr int kMaxAmplifyParameters = 2;
LAMP_HOST_DEVICE constexpr bool is_common(Amplify a) { return a <= Amplify::log; }

// A set of metrics. A term's position counts the metrics of the set before it.
struct Terms {
  uint32_t bits = 0;

  void set(Metric m, bool has = true) { bits = (bits & ~(1u << int(m))) | uint32_t(has) << int(m); }
  LAMP_HOST_DEVICE constexpr bool has(Metric m) const { return bits >> int(m) & 1; }
  LAMP_HOST_DEVICE constexpr bool pointwise() const { return (bits & ((1u << kMetrics) - 1)) >> 1; }
  LAMP_HOST_DEVICE constexpr int position(Metric m) const {
    int below = 0;
    for (int i = 0; i < int(m); ++i) below += int(has(Metric(i)));
    return below;
  }
  LAMP_HOST_DEVICE constexpr int count() const { return position(Metric(kAllMetrics)); }
};

enum class Dtype : int { float32, float64, float16, bfloat16 };
LAMP_HOST_DEVICE constexpr int64_t size_of(Dtype dtype) {
  return dtype == Dtype::float64 ? 8 : dtype == Dtype::float32 ? 4 : 2;
}
enum class Border : int { reflect, valid, zeros };
constexpr const char* kBorderNames[] = {"reflect", "valid", "zeros"};
// What factors * sums are summed over: nothing, (N, T); the terms, (N,); everything, ().
enum class Sums : int { terms, images, batch };
constexpr const char* kSumsNames[] = {"terms", "images", "batch"};

// A tensor (N, C, H, W) of any strides, counted in elements; a stride of 0 repeats.
struct ConstTensorView {
  const void* data = nullptr;
  Dtype dtype = Dtype::float32;
  int64_t batch = 0, channel = 0, row = 0, column = 0;
};

// The same for writing, always in the compute type.
struct TensorView {
  void* data = nullptr;
  int64_t batch = 0, channel = 0, row = 0, column = 0;
};

struct Params {
  int64_t batch, channels, height, width;

  Terms terms;
  double metric_parameters[kAllMetrics];  // by metric; 0 if its formula has none
  Amplify amplify;
  double amplify_parameters[kMaxAmplifyParameters];
  double scale;  // 1 / data_range

  // SSIM and GMS
  int radius;  // the window is 2 radius + 1 wide
  Border border;

  // SSIM
  double taps[kMaxRadius + 1];  // of the window, by the distance from its center; their sum is 1
  double c1, c2;                // k1^2 and k2^2: images are in units of data_range
  double ssim_scale;            // a in L = a (1 - SSIM)

  // (N, C, H, W). The weight has the compute type and is indexed by pixels of the image: if it was
  // given on the grid of a "valid" SSIM, its data pointer lies before that grid's corner.
  ConstTensorView input, target, weight;
  // Of the images' sizes, in the compute type, 0 where pixels are masked, or positions of GMS and
  // cosine; or null. The weight then includes it.
  ConstTensorView mask;
  // One data_range per image, in the compute type; or null, and all images share `scale`.
  const void* data_ranges;
  int64_t data_range_stride;
  // (N, T) in the compute type for T terms, or null: then all images share `shared_factors`, by
  // position.
  const void* factors;
  double shared_factors[kMetrics];
  TensorView input_gradient, target_gradient;  // of the sum over n, t of factors * sums
  TensorView map;                              // factors[0, t] times A(L), summed over the terms

  // 1 / data_range of one image. T: the compute type.
  template <class T>
  LAMP_HOST_DEVICE T scale_of(int64_t image) const {
    if (!data_ranges) return T(scale);
    return T(1) / static_cast<const T*>(data_ranges)[image * data_range_stride];
  }

  LAMP_HOST_DEVICE bool ssim() const { return terms.has(Metric::ssim); }
  LAMP_HOST_DEVICE bool gms() const { return terms.has(Metric::gms); }
  LAMP_HOST_DEVICE bool windowed() const { return ssim() || gms(); }
  // Of the grid of SSIM or GMS.
  LAMP_HOST_DEVICE int64_t first_row() const { return border == Border::valid ? radius : 0; }
  LAMP_HOST_DEVICE int64_t end_row() const { return height - first_row(); }
  LAMP_HOST_DEVICE int64_t end_column() const { return width - first_row(); }
};

}  // namespace lamp_kernels
