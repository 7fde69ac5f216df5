// Registers the operators of volumes, (N, C, D, H, W), and their CPU kernels: the same operators as
// those of images, in a library of their own. SSIM must be a term.

#include <array>
#include <tuple>
#include <utility>

#include "cpu/volume_launch.h"
#include "operators.h"

namespace lamp_kernels {
namespace {

struct Cpu {
  static bool has(const Tensor& t) { return t.is_cpu(); }
};

void run(const Volume& v, void* scaled_sums, Sums sums) {
  auto parallel_for = [](int64_t begin, int64_t end, int64_t grain, const auto& f) {
    torch::stable::parallel_for(begin, end, grain, f);
  };
  if (v.compute_size == sizeof(double))
    compute_volumes<double>(v, static_cast<double*>(scaled_sums), sums, parallel_for);
  else
    compute_volumes<float>(v, static_cast<float*>(scaled_sums), sums, parallel_for);
}

// Plane 0, (N, C, H, W).
Tensor plane_of(const Tensor& volume, const char* name) {
  STD_TORCH_CHECK(volume.dim() == 5 && volume.size(2) > 0, name,
                  " must be 5-D (N, C, D, H, W) with at least one plane, got ", volume.dim(), "-D");
  return torch::stable::select(volume, 2, 0);
}

Volume volume_of(const Tensor& input, const Tensor& target, const Spec& spec, ScalarType dtype) {
  Volume v{params_of(plane_of(input, "input"), plane_of(target, "target"), spec),
           input.size(2),
           dtype == ScalarType::Double ? 8 : 4,
           {input.stride(2), target.stride(2)}};
  const Params& p = v.plane;
  STD_TORCH_CHECK(v.depth == target.size(2),
                  "input and target must have the same shape, got depths ", v.depth, " and ",
                  target.size(2));
  STD_TORCH_CHECK(p.ssim(), "ssim must be a term, got ", spec.metrics);
  const int64_t least = p.border == Border::valid     ? 2 * p.radius + 1
                        : p.border == Border::reflect ? p.radius + 1
                                                      : 1;
  STD_TORCH_CHECK(v.depth >= least, "depth must be at least ", least,
                  " for this window and padding, got ", v.depth);
  return v;
}

// A weight broadcasts to the volume, or to the smaller grid of a window with "valid" padding.
void set_weight(Volume& v, const Tensor& weight, ScalarType dtype) {
  Params& p = v.plane;
  p.weight = weight_of(plane_of(weight, "weight"), p, dtype);
  const int64_t planes = weight.size(2), origin = p.first_row();
  STD_TORCH_CHECK(planes == 1 || planes == v.depth || planes == v.depth - 2 * origin,
                  "weight must broadcast to the volumes, got depth ", planes);
  if (planes == 1) return;
  v.step.weight = weight.stride(2);
  if (planes == v.depth) return;
  STD_TORCH_CHECK(p.terms.count() == 1,
                  "weight must have the size of the volumes if SSIM is not the only term");
  p.weight.data = static_cast<const char*>(p.weight.data) - origin * v.step.weight * v.compute_size;
}

// Divides by the planes what share_factors() has divided by the values of one plane.
void share_factors_of_planes(Volume& v, const std::vector<double>& coefficients,
                             const std::string& mean_over) {
  Params& p = v.plane;
  share_factors(p, coefficients, mean_over);
  if (mean_over == "nothing") return;
  for (int k = 0; k < p.terms.count(); ++k)
    p.shared_factors[k] /= double(v.depth - (k == 0 ? 2 * p.first_row() : 0));
}

Tensor empty_volume(const Tensor& like, const std::array<int64_t, 5>& sizes, ScalarType dtype) {
  return torch::stable::new_empty(like, {sizes.data(), sizes.size()}, dtype);
}

std::tuple<Tensor, Tensor, Tensor> volume_losses(
    const Tensor& input, const Tensor& target, const std::optional<Tensor>& weight,
    const std::optional<Tensor>& mask, const std::optional<Tensor>& data_ranges,
    const std::optional<Tensor>& factors, std::vector<double> coefficients, std::string mean_over,
    std::string sums, bool input_gradient, bool target_gradient LAMP_SPEC(LAMP_PARAMETER)) {
  STD_TORCH_CHECK(!mask, "the kernels of volumes do not support a mask");
  const ScalarType dtype = computed_in(input, target);
  Volume v = volume_of(input, target, Spec{LAMP_SPEC(LAMP_ARGUMENT)}, dtype);
  Params& p = v.plane;
  check_devices<Cpu>(input, target);
  if (weight) {
    check_devices<Cpu>(input, *weight);
    set_weight(v, *weight, dtype);
  }
  set_optional<Cpu>(p, input, std::nullopt, data_ranges, dtype);
  std::optional<Tensor> dense;
  if (factors) {
    check_devices<Cpu>(input, *factors);
    STD_TORCH_CHECK(factors->scalar_type() == dtype && factors->dim() == 2 &&
                        factors->size(0) == p.batch && factors->size(1) == p.terms.count(),
                    "factors must have shape (N, T) and the compute type as their dtype");
    STD_TORCH_CHECK(
        coefficients.empty() && mean_over == "nothing",
        "coefficients must be empty and mean_over must be nothing if factors are given");
    dense = torch::stable::contiguous(*factors);
    p.factors = dense->const_data_ptr();
  } else {
    share_factors_of_planes(v, coefficients, mean_over);
  }
  const Sums over = Sums(index_of(sums, kSumsNames, "sums"));

  const std::array<int64_t, 5> sizes{p.batch, p.channels, v.depth, p.height, p.width};
  auto gradient_of = [&](const Tensor& image, bool wanted, TensorView& view, int64_t& step) {
    if (!wanted) return torch::stable::new_empty(image, {0}, dtype);
    const Tensor gradient = empty_volume(image, sizes, dtype);
    view = view_of(plane_of(gradient, "gradient"));
    step = gradient.stride(2);
    return gradient;
  };
  Tensor grad_input = gradient_of(input, input_gradient, p.input_gradient, v.step.input_gradient);
  Tensor grad_target =
      gradient_of(target, target_gradient, p.target_gradient, v.step.target_gradient);

  // The losses have the first `dims` of these dimensions.
  const std::array<int64_t, 2> shape{p.batch, p.terms.count()};
  const size_t dims = over == Sums::terms ? 2 : over == Sums::images ? 1 : 0;
  Tensor losses = torch::stable::new_empty(input, {shape.data(), dims}, dtype);
  run(v, losses.mutable_data_ptr(), over);
  return {losses, grad_input, grad_target};
}

Tensor volume_map(const Tensor& input, const Tensor& target, const std::optional<Tensor>& mask,
                  const std::optional<Tensor>& data_ranges,
                  const Tensor& coefficients LAMP_SPEC(LAMP_PARAMETER)) {
  STD_TORCH_CHECK(!mask, "the kernels of volumes do not support a mask");
  const ScalarType dtype = computed_in(input, target);
  Volume v = volume_of(input, target, Spec{LAMP_SPEC(LAMP_ARGUMENT)}, dtype);
  Params& p = v.plane;
  check_devices<Cpu>(input, target, coefficients);
  set_optional<Cpu>(p, input, std::nullopt, data_ranges, dtype);
  STD_TORCH_CHECK(coefficients.scalar_type() == dtype && coefficients.dim() == 1 &&
                      coefficients.size(0) == p.terms.count(),
                  "coefficients must have shape (T,) and the compute type as their dtype");
  const int64_t origin = p.first_row(), lost = 2 * origin;
  STD_TORCH_CHECK(
      origin == 0 || p.terms.count() == 1,
      "padding=valid must have only one term for a map: the terms' maps differ in size");
  const Tensor dense = torch::stable::contiguous(coefficients);
  p.factors = dense.const_data_ptr();

  Tensor map = empty_volume(
      input, {p.batch, p.channels, v.depth - lost, p.height - lost, p.width - lost}, dtype);
  p.map = view_of(plane_of(map, "map"));
  v.step.map = map.stride(2);
  p.map.data = static_cast<char*>(p.map.data) -
               origin * (v.step.map + p.map.row + p.map.column) * v.compute_size;
  run(v, nullptr, Sums::images);
  return map;
}

// Returns a copy of `factor`. Python registers the operator's derivative, which raises.
Tensor block_double_backward(const Tensor& factor, const Tensor&, const Tensor&, const Tensor&) {
  return torch::stable::clone(factor);
}

}  // namespace
}  // namespace lamp_kernels

STABLE_TORCH_LIBRARY(lamp_kernels_volumes, m) {
  using namespace lamp_kernels;
  m.def(kImageLossesSchema);
  m.def(kLossMapSchema);
  m.def(
      "block_double_backward(Tensor factor, Tensor input, Tensor target, Tensor upstream) -> "
      "Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lamp_kernels_volumes, CPU, m) {
  m.impl("image_losses", TORCH_BOX(&lamp_kernels::volume_losses));
  m.impl("loss_map", TORCH_BOX(&lamp_kernels::volume_map));
}

STABLE_TORCH_LIBRARY_IMPL(lamp_kernels_volumes, CompositeExplicitAutograd, m) {
  m.impl("block_double_backward", TORCH_BOX(&lamp_kernels::block_double_backward));
}
