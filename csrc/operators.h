// The operators' schemas, and the conversion of their arguments from tensors to kernel parameters,
// shared by all devices. Uses only LibTorch's stable ABI of release 2.10, so that one library works
// with every later release.
//
// The checks here only protect memory when an operator is called directly. Python validates the
// arguments first and raises the errors that users see.
//
// A Device provides
//   static bool has(const Tensor&);
//   static void run(Params&, const Tensor& like, bool use_double, void* scaled_sums, Sums sums);
// run() executes the kernels for the given Params. Unless `scaled_sums` is null, it also writes
// factors * sums there, added up as `sums` says. It computes in float64 if `use_double`, else in
// float32.
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
#include <utility>
#include <vector>

#include "params.h"

namespace lamp_kernels {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The fields that describe a loss in an operator's argument list, each as (C++ type, schema type,
// name). Same fields and order as FlatSpec in lamp_kernels/ops.py.
#define LAMP_SPEC(FIELD)                                   \
  FIELD(std::string, "str", metrics)                       \
  FIELD(std::vector<double>, "float[]", metric_parameters) \
  FIELD(double, "float", data_range)                       \
  FIELD(std::vector<double>, "float[]", taps)              \
  FIELD(double, "float", k1)                               \
  FIELD(double, "float", k2)                               \
  FIELD(std::string, "str", padding)                       \
  FIELD(double, "float", ssim_scale)                       \
  FIELD(std::string, "str", amplification)                 \
  FIELD(std::vector<double>, "float[]", amplification_parameters)
#define LAMP_MEMBER(type, schema, name) type name;
#define LAMP_SCHEMA(type, schema, name) ", " schema " " #name
#define LAMP_PARAMETER(type, schema, name) , type name
#define LAMP_ARGUMENT(type, schema, name) std::move(name),
#define LAMP_SPEC_SCHEMA LAMP_SPEC(LAMP_SCHEMA)

struct Spec {
  LAMP_SPEC(LAMP_MEMBER)
};

// Returns (losses, input gradient, target gradient).
//
// losses: the sum over the grid of factor * weight * A(L), per image and term (N, T), summed over
// the terms (N,), or summed over everything (), for sums = "terms", "images" or "batch". The
// gradients are those of the sum of all losses; a gradient that was not requested is empty.
//
// factors: (N, T), or None if all images share the same factors. The shared factor of a term is its
// coefficient, divided by the number of values in the term's grid, per image or over the whole
// batch, if mean_over = "image" or "batch", and not divided if mean_over = "nothing". Shared
// factors need no tensor to fill, and no graph bakes in a constant that depends on the size. A sum
// over the batch requires that all images have the same factors.
//
// mask: broadcasts to the images; the weight includes it. data_ranges: (N,), or None for that of the
// spec.
constexpr char kImageLossesSchema[] =
    "image_losses(Tensor input, Tensor target, Tensor? weight, Tensor? mask, Tensor? data_ranges, "
    "Tensor? factors, float[] coefficients, str mean_over, str sums, bool input_gradient, "
    "bool target_gradient" LAMP_SPEC_SCHEMA ") -> (Tensor, Tensor, Tensor)";
// Returns the sum over the terms of coefficients * A(L), at each position of the loss's grid.
constexpr char kLossMapSchema[] =
    "loss_map(Tensor input, Tensor target, Tensor? mask, Tensor? data_ranges, "
    "Tensor coefficients" LAMP_SPEC_SCHEMA ") -> Tensor";

// The schemas that a library was compiled with. Kernels receive their arguments by position, so
// kernels from another build could misread them.
inline std::string schemas() { return std::string(kImageLossesSchema) + kLossMapSchema; }

inline Dtype dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return Dtype::float32;
    case ScalarType::Double: return Dtype::float64;
    case ScalarType::Half: return Dtype::float16;
    case ScalarType::BFloat16: return Dtype::bfloat16;
    default: STD_TORCH_CHECK(false, "dtype must be float16, bfloat16, float32 or float64");
  }
}

// The compute type: float64 if either image is float64, else float32.
inline ScalarType computed_in(const Tensor& input, const Tensor& target) {
  const bool use_double =
      input.scalar_type() == ScalarType::Double || target.scalar_type() == ScalarType::Double;
  return use_double ? ScalarType::Double : ScalarType::Float;
}

inline ConstTensorView const_view_of(const Tensor& t) {
  return {t.const_data_ptr(), dtype_of(t), t.stride(0), t.stride(1), t.stride(2), t.stride(3)};
}

inline TensorView view_of(const Tensor& t) {
  return {t.mutable_data_ptr(), t.stride(0), t.stride(1), t.stride(2), t.stride(3)};
}

// Like Tensor.is_contiguous(memory_format=torch.channels_last): strides of dimensions of size 1 are
// ignored.
inline bool is_channels_last(const Tensor& t) {
  if (t.is_contiguous() || t.numel() == 0) return false;
  int64_t expected = 1;
  for (int dim : {1, 3, 2, 0}) {
    if (t.size(dim) != 1 && t.stride(dim) != expected) return false;
    expected *= t.size(dim);
  }
  return true;
}

// An uninitialized tensor in the memory format of `like`. The fake kernel applies the same rule.
inline Tensor empty_in_format_of(const Tensor& like, const std::array<int64_t, 4>& sizes,
                                 ScalarType dtype) {
  return torch::stable::empty(
      {sizes.data(), sizes.size()}, dtype, std::nullopt, like.device(), std::nullopt,
      is_channels_last(like) ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

template <size_t size>
int index_of(const std::string& name, const char* const (&names)[size], const char* what) {
  for (size_t i = 0; i < size; ++i)
    if (name == names[i]) return int(i);
  STD_TORCH_CHECK(false, "unknown ", what, ": ", name);
}

// Parses a spec such as "ssim+mse": metrics in the order of the enum, with one parameter each.
inline void parse_terms(const Spec& spec, Params& p) {
  int last = -1;
  size_t term = 0;
  for (size_t begin = 0; begin <= spec.metrics.size(); ++term) {
    const size_t end = std::min(spec.metrics.find('+', begin), spec.metrics.size());
    const int m = index_of(spec.metrics.substr(begin, end - begin), kMetricNames, "metric");
    STD_TORCH_CHECK(m > last, "metrics must be unique and in the order of the Metric enum, got ",
                    spec.metrics);
    STD_TORCH_CHECK(term < spec.metric_parameters.size(),
                    "metric_parameters must have one element per metric, got ",
                    spec.metric_parameters.size(), " for ", spec.metrics);
    p.terms.set(Metric(m));
    p.metric_parameters[m] = spec.metric_parameters[term];
    last = m;
    begin = end + 1;
  }
  STD_TORCH_CHECK(term == spec.metric_parameters.size(),
                  "metric_parameters must have one element per metric, got ",
                  spec.metric_parameters.size(), " for ", spec.metrics);
}

inline void parse_amplification(const Spec& spec, Params& p) {
  p.amplify = Amplify(index_of(spec.amplification, kAmplifyNames, "amplification"));
  const size_t expected = kAmplifyParameters[int(p.amplify)];
  STD_TORCH_CHECK(spec.amplification_parameters.size() == expected,
                  "amplification_parameters must have ", expected, " elements for ",
                  spec.amplification, ", got ", spec.amplification_parameters.size());
  std::copy(spec.amplification_parameters.begin(), spec.amplification_parameters.end(),
            p.amplify_parameters);
}

// Sets the border, and checks that the image is large enough for it and for the window.
inline void parse_border(const Spec& spec, Params& p) {
  p.border = Border(index_of(spec.padding, kBorderNames, "padding"));
  const int64_t least = p.border == Border::valid     ? 2 * p.radius + 1
                        : p.border == Border::reflect ? p.radius + 1
                                                      : 1;
  STD_TORCH_CHECK(p.height >= least && p.width >= least, "height and width must be at least ",
                  least, " for this window and padding, got ", p.height, " and ", p.width);
}

inline Params params_of(const Tensor& input, const Tensor& target, const Spec& spec) {
  STD_TORCH_CHECK(input.dim() == 4 && target.dim() == 4,
                  "input and target must be 4-D (N, C, H, W), got ", input.dim(), "-D and ",
                  target.dim(), "-D");
  Params p{};
  p.batch = input.size(0);
  p.channels = input.size(1);
  p.height = input.size(2);
  p.width = input.size(3);
  for (int dim = 0; dim < 4; ++dim)
    STD_TORCH_CHECK(input.size(dim) == target.size(dim),
                    "input and target must have the same shape, got sizes ", input.size(dim),
                    " and ", target.size(dim), " in dimension ", dim);
  parse_terms(spec, p);
  parse_amplification(spec, p);
  p.scale = 1.0 / spec.data_range;
  STD_TORCH_CHECK(!p.gms() || p.terms.count() == 1, "gms must be the only term, got ",
                  spec.metrics);
  if (p.gms()) {
    p.radius = kGmsRadius;
    parse_border(spec, p);
  }
  if (p.ssim()) {
    p.radius = int(spec.taps.size()) - 1;
    STD_TORCH_CHECK(p.radius >= 1 && p.radius <= kMaxRadius, "taps must have from 2 to ",
                    kMaxRadius + 1, " elements, got ", spec.taps.size());
    parse_border(spec, p);
    std::copy(spec.taps.begin(), spec.taps.end(), p.taps);
    p.c1 = spec.k1 * spec.k1;
    p.c2 = spec.k2 * spec.k2;
    p.ssim_scale = spec.ssim_scale;
  }
  p.input = const_view_of(input);
  p.target = const_view_of(target);
  return p;
}

template <class Device, class... Tensors>
void check_devices(const Tensor& input, const Tensors&... others) {
  STD_TORCH_CHECK(Device::has(input) && (Device::has(others) && ...) &&
                      ((others.get_device_index() == input.get_device_index()) && ...),
                  "all tensors must be on the same device");
}

// A mask broadcasts to the image.
inline ConstTensorView mask_of(const Tensor& mask, const Params& p, ScalarType dtype) {
  STD_TORCH_CHECK(mask.dim() == 4 && mask.scalar_type() == dtype,
                  "mask must be 4-D and have the compute type as its dtype");
  ConstTensorView s = const_view_of(mask);
  const int64_t image[] = {p.batch, p.channels, p.height, p.width};
  int64_t* stride[] = {&s.batch, &s.channel, &s.row, &s.column};
  for (int dim = 0; dim < 4; ++dim) {
    const int64_t size = mask.size(dim);
    STD_TORCH_CHECK(size == 1 || size == image[dim], "mask must broadcast to the images, got size ",
                    size, " in dimension ", dim);
    if (size == 1) *stride[dim] = 0;
  }
  return s;
}

// Sets what is optional beside the images: the mask, and the ranges of the images.
template <class Device>
void set_optional(Params& p, const Tensor& input, const std::optional<Tensor>& mask,
                  const std::optional<Tensor>& data_ranges, ScalarType dtype) {
  if (mask) {
    check_devices<Device>(input, *mask);
    p.mask = mask_of(*mask, p, dtype);
  }
  if (data_ranges) {
    check_devices<Device>(input, *data_ranges);
    STD_TORCH_CHECK(data_ranges->dim() == 1 && data_ranges->size(0) == p.batch &&
                        data_ranges->scalar_type() == dtype,
                    "data_ranges must have shape (N,) and the compute type as its dtype");
    p.data_ranges = data_ranges->const_data_ptr();
    p.data_range_stride = data_ranges->stride(0);
  }
}

// A weight broadcasts to the image, or to the smaller grid of a window with "valid" padding.
inline ConstTensorView weight_of(const Tensor& weight, const Params& p, ScalarType dtype) {
  STD_TORCH_CHECK(weight.dim() == 4 && weight.scalar_type() == dtype,
                  "weight must be 4-D and have the compute type as its dtype");
  ConstTensorView s = const_view_of(weight);
  const int64_t image[] = {p.batch, p.channels, p.height, p.width};
  const int64_t origin = p.windowed() ? p.first_row() : 0;
  int64_t* stride[] = {&s.batch, &s.channel, &s.row, &s.column};
  int64_t offset = 0;
  for (int dim = 0; dim < 4; ++dim) {
    const int64_t size = weight.size(dim), lost = dim >= 2 ? 2 * origin : 0;
    STD_TORCH_CHECK(size == 1 || size == image[dim] || size == image[dim] - lost,
                    "weight must broadcast to the images, got size ", size, " in dimension ", dim);
    if (size == 1)
      *stride[dim] = 0;
    else if (size != image[dim])
      offset += origin * *stride[dim];
  }
  if (offset != 0) {
    STD_TORCH_CHECK(p.terms.count() == 1,
                    "weight must have the size of the images if SSIM is not the only term");
    const int64_t bytes = dtype == ScalarType::Double ? 8 : 4;
    s.data = static_cast<const char*>(s.data) - offset * bytes;
  }
  return s;
}

// Sets the factors that all images share. Divides in double, as Python does.
inline void share_factors(Params& p, const std::vector<double>& coefficients,
                          const std::string& mean_over) {
  const int terms = p.terms.count();
  STD_TORCH_CHECK(int(coefficients.size()) == terms,
                  "coefficients must have one element per term unless factors are given, got ",
                  coefficients.size());
  STD_TORCH_CHECK(mean_over == "nothing" || mean_over == "image" || mean_over == "batch",
                  "mean_over must be nothing, image or batch, got ", mean_over);
  const double images = mean_over == "batch" ? double(std::max<int64_t>(p.batch, 1)) : 1.0;
  for (int k = 0; k < terms; ++k) {
    const int64_t lost = p.windowed() && k == 0 ? 2 * p.first_row() : 0;
    const int64_t values = p.channels * (p.height - lost) * (p.width - lost);
    const double count = double(std::max<int64_t>(values, 1)) * images;
    p.shared_factors[k] = mean_over == "nothing" ? coefficients[k] : coefficients[k] / count;
  }
}

// Pointwise losses of dense images do not depend on where rows end: treat each image as one row.
inline void join_rows(Params& p, const Tensor& input, const Tensor& target) {
  if (p.windowed() || p.weight.data || p.mask.data) return;
  const bool rows = input.is_contiguous() && target.is_contiguous();
  if (!rows && !(is_channels_last(input) && is_channels_last(target))) return;
  const int64_t size = p.channels * p.height * p.width;
  p.channels = p.height = 1;
  p.width = size;
  for (ConstTensorView* s : {&p.input, &p.target}) s->batch = size, s->column = 1;
  for (TensorView* s : {&p.input_gradient, &p.target_gradient, &p.map})
    s->batch = size, s->column = 1;
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> image_losses(
    const Tensor& input, const Tensor& target, const std::optional<Tensor>& weight,
    const std::optional<Tensor>& mask, const std::optional<Tensor>& data_ranges,
    const std::optional<Tensor>& factors, std::vector<double> coefficients, std::string mean_over,
    std::string sums, bool input_gradient, bool target_gradient LAMP_SPEC(LAMP_PARAMETER)) {
  Params p = params_of(input, target, Spec{LAMP_SPEC(LAMP_ARGUMENT)});
  const ScalarType dtype = computed_in(input, target);
  check_devices<Device>(input, target);
  if (weight) {
    check_devices<Device>(input, *weight);
    p.weight = weight_of(*weight, p, dtype);
  }
  set_optional<Device>(p, input, mask, data_ranges, dtype);
  std::optional<Tensor> dense;  // keeps the memory alive until the kernels are launched
  if (factors) {
    check_devices<Device>(input, *factors);
    STD_TORCH_CHECK(factors->scalar_type() == dtype && factors->dim() == 2 &&
                        factors->size(0) == p.batch && factors->size(1) == p.terms.count(),
                    "factors must have shape (N, T) and the compute type as their dtype");
    dense = factors->is_contiguous() ? *factors : torch::stable::contiguous(*factors);
    p.factors = dense->const_data_ptr();
    STD_TORCH_CHECK(
        coefficients.empty() && mean_over == "nothing",
        "coefficients must be empty and mean_over must be nothing if factors are given");
  } else {
    share_factors(p, coefficients, mean_over);
  }
  const Sums over = Sums(index_of(sums, kSumsNames, "sums"));

  const std::array<int64_t, 4> sizes{p.batch, p.channels, p.height, p.width};
  auto gradient_of = [&](const Tensor& image, bool wanted) {
    return wanted ? empty_in_format_of(image, sizes, dtype)
                  : torch::stable::new_empty(image, {0}, dtype);
  };
  Tensor grad_input = gradient_of(input, input_gradient);
  Tensor grad_target = gradient_of(target, target_gradient);
  if (input_gradient) p.input_gradient = view_of(grad_input);
  if (target_gradient) p.target_gradient = view_of(grad_target);

  // The losses have the first `dims` of these dimensions.
  const std::array<int64_t, 2> shape{p.batch, p.terms.count()};
  const size_t dims = over == Sums::terms ? 2 : over == Sums::images ? 1 : 0;
  Tensor losses = torch::stable::new_empty(input, {shape.data(), dims}, dtype);
  join_rows(p, input, target);
  Device::run(p, input, dtype == ScalarType::Double, losses.mutable_data_ptr(), over);
  return {losses, grad_input, grad_target};
}

template <class Device>
Tensor loss_map(const Tensor& input, const Tensor& target, const std::optional<Tensor>& mask,
                const std::optional<Tensor>& data_ranges,
                const Tensor& coefficients LAMP_SPEC(LAMP_PARAMETER)) {
  Params p = params_of(input, target, Spec{LAMP_SPEC(LAMP_ARGUMENT)});
  const ScalarType dtype = computed_in(input, target);
  check_devices<Device>(input, target, coefficients);
  set_optional<Device>(p, input, mask, data_ranges, dtype);
  STD_TORCH_CHECK(coefficients.scalar_type() == dtype && coefficients.dim() == 1 &&
                      coefficients.size(0) == p.terms.count(),
                  "coefficients must have shape (T,) and the compute type as their dtype");
  const int64_t origin = p.windowed() ? p.first_row() : 0;
  STD_TORCH_CHECK(
      origin == 0 || p.terms.count() == 1,
      "padding=valid must have only one term for a map: the terms' maps differ in size");
  const Tensor dense =
      coefficients.is_contiguous() ? coefficients : torch::stable::contiguous(coefficients);
  p.factors = dense.const_data_ptr();

  Tensor map = empty_in_format_of(
      input, {p.batch, p.channels, p.height - 2 * origin, p.width - 2 * origin}, dtype);
  p.map = view_of(map);
  const int64_t bytes = dtype == ScalarType::Double ? 8 : 4;
  p.map.data = static_cast<char*>(p.map.data) - origin * (p.map.row + p.map.column) * bytes;
  join_rows(p, input, target);
  Device::run(p, input, dtype == ScalarType::Double, nullptr, Sums::images);
  return map;
}

}  // namespace lamp_kernels
