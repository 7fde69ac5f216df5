// The operators of csrc/operators.h for the metric "cosine", which only the CPU kernels compute: from
// tensors to the parameters of the kernel. As there, the checks only protect memory.
#pragma once

#include "../operators.h"
#include "cosine_launch.h"

namespace lamp_kernels {

constexpr char kCosine[] = "cosine";

// The losses have one channel: what weights and masks broadcast to.
inline Params positions_of(const CosineParams& c) {
  Params positions = c.p;
  positions.channels = 1;
  positions.terms.set(Metric::mse);  // one term that has no window
  return positions;
}

template <class Cpu>
void set_mask(CosineParams& c, const Tensor& input, const std::optional<Tensor>& mask,
              ScalarType dtype) {
  if (!mask) return;
  check_devices<Cpu>(input, *mask);
  c.p.mask = mask_of(*mask, positions_of(c), dtype);
}

inline CosineParams cosine_params_of(const Tensor& input, const Tensor& target, const Spec& spec) {
  STD_TORCH_CHECK(input.dim() == 4 && target.dim() == 4,
                  "input and target must be 4-D (N, C, H, W), got ", input.dim(), "-D and ",
                  target.dim(), "-D");
  for (int dim = 0; dim < 4; ++dim)
    STD_TORCH_CHECK(input.size(dim) == target.size(dim),
                    "input and target must have the same shape, got sizes ", input.size(dim),
                    " and ", target.size(dim), " in dimension ", dim);
  STD_TORCH_CHECK(spec.metric_parameters.size() == 1,
                  "metric_parameters must have one element for cosine, got ",
                  spec.metric_parameters.size());
  CosineParams c{};
  c.p.batch = input.size(0);
  c.p.channels = input.size(1);
  c.p.height = input.size(2);
  c.p.width = input.size(3);
  parse_amplification(spec, c.p);
  c.p.input = const_view_of(input);
  c.p.target = const_view_of(target);
  c.epsilon = spec.metric_parameters[0];
  return c;
}

inline void run_cosine(CosineParams& c, ScalarType dtype, void* scaled_sums, Sums sums,
                       bool images_differ) {
  c.arrange(images_differ);
  auto parallel_for = [](int64_t begin, int64_t end, int64_t grain, const auto& f) {
    torch::stable::parallel_for(begin, end, grain, f);
  };
  if (dtype == ScalarType::Double)
    compute_cosine(c, static_cast<double*>(scaled_sums), sums, parallel_for);
  else
    compute_cosine(c, static_cast<float*>(scaled_sums), sums, parallel_for);
}

template <class Cpu>
std::tuple<Tensor, Tensor, Tensor> cosine_losses(
    const Tensor& input, const Tensor& target, const std::optional<Tensor>& weight,
    const std::optional<Tensor>& mask, const std::optional<Tensor>& factors,
    const std::vector<double>& coefficients, const std::string& mean_over, const std::string& sums,
    bool input_gradient, bool target_gradient, const Spec& spec) {
  CosineParams c = cosine_params_of(input, target, spec);
  Params& p = c.p;
  const ScalarType dtype = computed_in(input, target);
  check_devices<Cpu>(input, target);
  Params positions = positions_of(c);
  if (weight) {
    check_devices<Cpu>(input, *weight);
    p.weight = weight_of(*weight, positions, dtype);
  }
  set_mask<Cpu>(c, input, mask, dtype);
  std::optional<Tensor> dense;  // keeps the memory alive until the kernel has run
  if (factors) {
    check_devices<Cpu>(input, *factors);
    STD_TORCH_CHECK(factors->scalar_type() == dtype && factors->dim() == 2 &&
                        factors->size(0) == p.batch && factors->size(1) == 1,
                    "factors must have shape (N, 1) and the compute type as their dtype");
    STD_TORCH_CHECK(
        coefficients.empty() && mean_over == "nothing",
        "coefficients must be empty and mean_over must be nothing if factors are given");
    dense = torch::stable::contiguous(*factors);
    p.factors = dense->const_data_ptr();
  } else {
    share_factors(positions, coefficients, mean_over);
    p.shared_factors[0] = positions.shared_factors[0];
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
  const std::array<int64_t, 2> shape{p.batch, 1};  // the losses have the first `dims` of these
  const size_t dims = over == Sums::terms ? 2 : over == Sums::images ? 1 : 0;
  Tensor losses = torch::stable::new_empty(input, {shape.data(), dims}, dtype);
  run_cosine(c, dtype, losses.mutable_data_ptr(), over, factors || over != Sums::batch);
  return {losses, grad_input, grad_target};
}

template <class Cpu>
Tensor cosine_map(const Tensor& input, const Tensor& target, const std::optional<Tensor>& mask,
                  const Tensor& coefficients, const Spec& spec) {
  CosineParams c = cosine_params_of(input, target, spec);
  const ScalarType dtype = computed_in(input, target);
  check_devices<Cpu>(input, target, coefficients);
  STD_TORCH_CHECK(coefficients.scalar_type() == dtype && coefficients.dim() == 1 &&
                      coefficients.size(0) == 1,
                  "coefficients must have shape (1,) and the compute type as their dtype");
  set_mask<Cpu>(c, input, mask, dtype);
  c.p.factors = coefficients.const_data_ptr();
  Tensor map = empty_in_format_of(input, {c.p.batch, 1, c.p.height, c.p.width}, dtype);
  c.p.map = view_of(map);
  run_cosine(c, dtype, nullptr, Sums::images, false);
  return map;
}

}  // namespace lamp_kernels
