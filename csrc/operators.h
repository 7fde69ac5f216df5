// The operators: their schemas, and their way from tensors to what a kernel is told, the same for
// every device. LibTorch's stable ABI of release 2.10 and nothing else: one library for every later
// release.
//
// The checks here guard memory against a direct call; Python raises the errors that users see.
//
// A Device has
//   static bool has(const Tensor&);
//   static void run(Params&, const Tensor& like, bool wide, void* shares, Sums sums);
// which computes what `p` says and writes factors * sums to `shares` unless that is null, added up
// as `sums` says. `wide`: in float64, else in float32.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "params.h"
#include "taps.h"

namespace lamp_kernels {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// losses: the sum over the grid of factor * weight * A(L), of each image and term (N, T), summed over
// the terms (N,), or over all (): sums = "terms", "images" or "batch". And the gradients of the sum of
// that, empty where not asked for.
// factors: (N, T), or none where all images share them; then these are the T coefficients, each over
// how many values its term's grid has in an image or in the batch: mean_over = "image", "batch" or
// "nothing". No memory has to be filled with them, and of no size does a graph hold a constant. A sum
// over the batch takes no other.
constexpr char kImageLossesSchema[] =
    "image_losses(Tensor input, Tensor target, Tensor? weight, Tensor? factors, "
    "float[] coefficients, str mean_over, bool ssim, bool mse, bool l1, float data_range, "
    "int window_size, float sigma, float k1, float k2, str padding, float dissimilarity, "
    "bool amplify, float eps, str sums, bool input_gradient, bool target_gradient) "
    "-> (Tensor, Tensor, Tensor)";
// On the loss's grid: the sum over terms of coefficients * A(L).
constexpr char kLossMapSchema[] =
    "loss_map(Tensor input, Tensor target, Tensor coefficients, bool ssim, bool mse, bool l1, "
    "float data_range, int window_size, float sigma, float k1, float k2, str padding, "
    "float dissimilarity, bool amplify, float eps) -> Tensor";

// What a library was compiled for. Kernels take their arguments by place: those of another build
// would read them as something else.
inline std::string schemas() { return std::string(kImageLossesSchema) + kLossMapSchema; }

inline Dtype dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return Dtype::float32;
    case ScalarType::Double: return Dtype::float64;
    case ScalarType::Half: return Dtype::float16;
    case ScalarType::BFloat16: return Dtype::bfloat16;
    default: STD_TORCH_CHECK(false, "expected float16, bfloat16, float32 or float64");
  }
}

// float64 where one of the images is, else float32.
inline ScalarType computed_in(const Tensor& input, const Tensor& target) {
  const bool wide =
      input.scalar_type() == ScalarType::Double || target.scalar_type() == ScalarType::Double;
  return wide ? ScalarType::Double : ScalarType::Float;
}

inline Source source_of(const Tensor& t) {
  return {t.const_data_ptr(), dtype_of(t), t.stride(0), t.stride(1), t.stride(2), t.stride(3)};
}

inline Sink sink_of(const Tensor& t) {
  return {t.mutable_data_ptr(), t.stride(0), t.stride(1), t.stride(2), t.stride(3)};
}

// As Tensor::is_contiguous(memory_format=channels_last): strides of single elements do not count.
inline bool is_channels_last(const Tensor& t) {
  if (t.is_contiguous() || t.numel() == 0) return false;
  int64_t expected = 1;
  for (int dim : {1, 3, 2, 0}) {
    if (t.size(dim) != 1 && t.stride(dim) != expected) return false;
    expected *= t.size(dim);
  }
  return true;
}

// Uninitialised, in the memory format of `like`, which the fake kernel repeats.
inline Tensor empty_in_format_of(const Tensor& like, const std::array<int64_t, 4>& sizes,
                          ScalarType dtype) {
  return torch::stable::empty(
      {sizes.data(), sizes.size()}, dtype, std::nullopt, like.device(), std::nullopt,
      is_channels_last(like) ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

// What loss and gradient depend on, but for the tensors' places. In the order of the schemas.
struct Options {
  bool ssim, mse, l1;
  double data_range;
  int64_t window_size;
  double sigma, k1, k2;
  std::string padding;
  double dissimilarity;
  bool amplify;
  double eps;
};

inline Params params_of(const Tensor& input, const Tensor& target, const Options& o) {
  STD_TORCH_CHECK(input.dim() == 4 && target.dim() == 4, "expected tensors (N, C, H, W)");
  Params p{};
  p.batch = input.size(0);
  p.channels = input.size(1);
  p.height = input.size(2);
  p.width = input.size(3);
  for (int dim = 0; dim < 4; ++dim)
    STD_TORCH_CHECK(input.size(dim) == target.size(dim), "input and target differ in shape");
  p.ssim = o.ssim;
  p.mse = o.mse;
  p.l1 = o.l1;
  STD_TORCH_CHECK(p.terms() > 0, "expected at least one term");
  p.amplify = o.amplify;
  p.eps = o.eps;
  p.scale = 1.0 / o.data_range;
  p.border = Border::reflect;
  if (o.ssim) {
    STD_TORCH_CHECK(o.window_size % 2 == 1 && o.window_size >= 3 &&
                        o.window_size <= 2 * kMaxRadius + 1,
                    "expected an odd window of 3 to ", 2 * kMaxRadius + 1);
    p.radius = int(o.window_size / 2);
    STD_TORCH_CHECK(o.padding == "reflect" || o.padding == "valid" || o.padding == "zeros",
                    "unknown padding ", o.padding);
    p.border = o.padding == "valid" ? Border::valid
               : o.padding == "zeros" ? Border::zeros : Border::reflect;
    const int64_t least = p.border == Border::valid     ? o.window_size
                          : p.border == Border::reflect ? p.radius + 1 : 1;
    STD_TORCH_CHECK(p.height >= least && p.width >= least, "the image is too small for the window");
    gaussian_taps(p.radius, o.sigma, p.taps);
    p.c1 = o.k1 * o.k1;
    p.c2 = o.k2 * o.k2;
    p.dissimilarity = o.dissimilarity;
  }
  p.input = source_of(input);
  p.target = source_of(target);
  return p;
}

// A weight broadcasts to the image, or to the grid of a "valid" SSIM.
inline Source weight_of(const Tensor& weight, const Params& p, ScalarType dtype) {
  STD_TORCH_CHECK(weight.dim() == 4 && weight.scalar_type() == dtype,
                  "expected a weight of four dimensions in the type computed in");
  Source s = source_of(weight);
  const int64_t image[] = {p.batch, p.channels, p.height, p.width};
  const int64_t origin = p.ssim ? p.first_row() : 0;
  int64_t* stride[] = {&s.batch, &s.channel, &s.row, &s.column};
  int64_t offset = 0;
  for (int dim = 0; dim < 4; ++dim) {
    const int64_t size = weight.size(dim), lost = dim >= 2 ? 2 * origin : 0;
    STD_TORCH_CHECK(size == 1 || size == image[dim] || size == image[dim] - lost,
                    "the weight does not broadcast to the images");
    if (size == 1)
      *stride[dim] = 0;
    else if (size != image[dim])
      offset += origin * *stride[dim];
  }
  if (offset != 0) {
    STD_TORCH_CHECK(p.terms() == 1, "a weight on SSIM's grid serves no other term");
    const int64_t bytes = dtype == ScalarType::Double ? 8 : 4;
    s.data = static_cast<const char*>(s.data) - offset * bytes;
  }
  return s;
}

inline Sums sums_of(const std::string& name) {
  STD_TORCH_CHECK(name == "terms" || name == "images" || name == "batch", "unknown sums ", name);
  return name == "terms" ? Sums::terms : name == "images" ? Sums::images : Sums::batch;
}

// Of every image. In double, as Python divides.
inline void share_factors(Params& p, const std::vector<double>& coefficients,
                          const std::string& mean_over) {
  STD_TORCH_CHECK(int64_t(coefficients.size()) == p.terms(),
                  "expected a coefficient for each term where there are no factors");
  STD_TORCH_CHECK(mean_over == "nothing" || mean_over == "image" || mean_over == "batch",
                  "unknown mean over ", mean_over);
  const double images = mean_over == "batch" ? double(std::max<int64_t>(p.batch, 1)) : 1.0;
  for (int k = 0; k < p.terms(); ++k) {
    const int64_t lost = p.ssim && k == 0 ? 2 * p.first_row() : 0;
    const int64_t values = p.channels * (p.height - lost) * (p.width - lost);
    const double count = double(std::max<int64_t>(values, 1)) * images;
    p.shared_factors[k] = mean_over == "nothing" ? coefficients[k] : coefficients[k] / count;
  }
}

// Pointwise losses of dense images do not care where rows end.
inline void join_rows(Params& p, const Tensor& input, const Tensor& target) {
  if (p.ssim || p.weight.data) return;
  const bool rows = input.is_contiguous() && target.is_contiguous();
  if (!rows && !(is_channels_last(input) && is_channels_last(target))) return;
  const int64_t size = p.channels * p.height * p.width;
  p.channels = p.height = 1;
  p.width = size;
  for (Source* s : {&p.input, &p.target}) s->batch = size, s->column = 1;
  for (Sink* s : {&p.input_gradient, &p.target_gradient, &p.map}) s->batch = size, s->column = 1;
}

template <class Device, class... Tensors>
void check_devices(const Tensor& input, const Tensors&... others) {
  STD_TORCH_CHECK(Device::has(input) && (Device::has(others) && ...) &&
                      ((others.get_device_index() == input.get_device_index()) && ...),
                  "expected all tensors on one device");
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> image_losses(
    const Tensor& input, const Tensor& target, const std::optional<Tensor>& weight,
    const std::optional<Tensor>& factors, std::vector<double> coefficients, std::string mean_over,
    bool ssim, bool mse, bool l1, double data_range, int64_t window_size, double sigma, double k1,
    double k2, std::string padding, double dissimilarity, bool amplify, double eps,
    std::string sums, bool input_gradient, bool target_gradient) {
  Params p = params_of(input, target,
                       {ssim, mse, l1, data_range, window_size, sigma, k1, k2, padding,
                        dissimilarity, amplify, eps});
  const ScalarType dtype = computed_in(input, target);
  check_devices<Device>(input, target);
  if (weight) {
    check_devices<Device>(input, *weight);
    p.weight = weight_of(*weight, p, dtype);
  }
  std::optional<Tensor> dense;  // alive until the kernels are launched
  if (factors) {
    check_devices<Device>(input, *factors);
    STD_TORCH_CHECK(factors->scalar_type() == dtype && factors->dim() == 2 &&
                        factors->size(0) == p.batch && factors->size(1) == p.terms(),
                    "expected factors (N, T) in the type computed in");
    dense = factors->is_contiguous() ? *factors : torch::stable::contiguous(*factors);
    p.factors = dense->const_data_ptr();
    STD_TORCH_CHECK(coefficients.empty() && mean_over == "nothing",
                    "expected factors or coefficients, not both");
  } else {
    share_factors(p, coefficients, mean_over);
  }
  const Sums over = sums_of(sums);
  STD_TORCH_CHECK(over != Sums::batch || !factors, "a sum over the batch takes no factors");

  const std::array<int64_t, 4> sizes{p.batch, p.channels, p.height, p.width};
  auto gradient_of = [&](const Tensor& image, bool wanted) {
    return wanted ? empty_in_format_of(image, sizes, dtype)
                  : torch::stable::new_empty(image, {0}, dtype);
  };
  Tensor by_input = gradient_of(input, input_gradient);
  Tensor by_target = gradient_of(target, target_gradient);
  if (input_gradient) p.input_gradient = sink_of(by_input);
  if (target_gradient) p.target_gradient = sink_of(by_target);

  const std::array<int64_t, 2> shape{p.batch, p.terms()};  // of it, so many dimensions
  const size_t dims = over == Sums::terms ? 2 : over == Sums::images ? 1 : 0;
  Tensor losses = torch::stable::new_empty(input, {shape.data(), dims}, dtype);
  join_rows(p, input, target);
  Device::run(p, input, dtype == ScalarType::Double, losses.mutable_data_ptr(), over);
  return {losses, by_input, by_target};
}

template <class Device>
Tensor loss_map(const Tensor& input, const Tensor& target, const Tensor& coefficients, bool ssim,
                bool mse, bool l1, double data_range, int64_t window_size, double sigma, double k1,
                double k2, std::string padding, double dissimilarity, bool amplify, double eps) {
  Params p = params_of(input, target,
                       {ssim, mse, l1, data_range, window_size, sigma, k1, k2, padding,
                        dissimilarity, amplify, eps});
  const ScalarType dtype = computed_in(input, target);
  check_devices<Device>(input, target, coefficients);
  STD_TORCH_CHECK(coefficients.scalar_type() == dtype &&
                      coefficients.dim() == 1 && coefficients.size(0) == p.terms(),
                  "expected coefficients (T,) in the type computed in");
  const int64_t origin = ssim ? p.first_row() : 0;
  STD_TORCH_CHECK(origin == 0 || p.terms() == 1, "the terms' maps differ in size");
  const Tensor dense =
      coefficients.is_contiguous() ? coefficients : torch::stable::contiguous(coefficients);
  p.factors = dense.const_data_ptr();

  Tensor map = empty_in_format_of(
      input, {p.batch, p.channels, p.height - 2 * origin, p.width - 2 * origin}, dtype);
  p.map = sink_of(map);
  const int64_t bytes = dtype == ScalarType::Double ? 8 : 4;
  p.map.data = static_cast<char*>(p.map.data) - origin * (p.map.row + p.map.column) * bytes;
  join_rows(p, input, target);
  Device::run(p, input, dtype == ScalarType::Double, nullptr, Sums::images);
  return map;
}

}  // namespace lamp_kernels
