// Registers the operators and their CPU kernels. lamp_kernels/ops.py adds autograd formulas and
// fake kernels.

#include "cpu/cosine_operators.h"
#include "cpu/launch.h"
#include "operators.h"

#define LAMP_PASS(type, schema, name) , std::move(name)

namespace lamp_kernels {
namespace {

struct Cpu {
  static bool has(const Tensor& t) { return t.is_cpu(); }

  static void run(Params& p, const Tensor&, bool use_double, void* scaled_sums, Sums sums) {
    if (use_double)
      run_typed(p, static_cast<double*>(scaled_sums), sums);
    else
      run_typed(p, static_cast<float*>(scaled_sums), sums);
  }

 private:
  template <class T>
  static void run_typed(Params& p, T* scaled_sums, Sums sums) {
    compute<T>(p, scaled_sums, sums, [](int64_t begin, int64_t end, int64_t grain, const auto& f) {
      torch::stable::parallel_for(begin, end, grain, f);
    });
  }
};

std::tuple<Tensor, Tensor, Tensor> cpu_image_losses(
    const Tensor& input, const Tensor& target, const std::optional<Tensor>& weight,
    const std::optional<Tensor>& mask, const std::optional<Tensor>& data_ranges,
    const std::optional<Tensor>& factors, std::vector<double> coefficients, std::string mean_over,
    std::string sums, bool input_gradient, bool target_gradient LAMP_SPEC(LAMP_PARAMETER)) {
  if (metrics != kCosine)
    return image_losses<Cpu>(input, target, weight, mask, data_ranges, factors,
                             std::move(coefficients), std::move(mean_over), std::move(sums),
                             input_gradient, target_gradient LAMP_SPEC(LAMP_PASS));
  STD_TORCH_CHECK(!data_ranges, "cosine takes no data_ranges");
  return cosine_losses<Cpu>(input, target, weight, mask, factors, coefficients, mean_over, sums,
                            input_gradient, target_gradient, Spec{LAMP_SPEC(LAMP_ARGUMENT)});
}

Tensor cpu_loss_map(const Tensor& input, const Tensor& target, const std::optional<Tensor>& mask,
                    const std::optional<Tensor>& data_ranges,
                    const Tensor& coefficients LAMP_SPEC(LAMP_PARAMETER)) {
  if (metrics != kCosine)
    return loss_map<Cpu>(input, target, mask, data_ranges, coefficients LAMP_SPEC(LAMP_PASS));
  STD_TORCH_CHECK(!data_ranges, "cosine takes no data_ranges");
  return cosine_map<Cpu>(input, target, mask, coefficients, Spec{LAMP_SPEC(LAMP_ARGUMENT)});
}

// Returns a copy of `factor`. Python registers the operator's derivative, which raises.
Tensor block_double_backward(const Tensor& factor, const Tensor&, const Tensor&, const Tensor&) {
  return torch::stable::clone(factor);
}

std::string cpu_isa() { return isa().name; }

}  // namespace
}  // namespace lamp_kernels

STABLE_TORCH_LIBRARY(lamp_kernels, m) {
  using namespace lamp_kernels;
  m.def(kImageLossesSchema);
  m.def(kLossMapSchema);
  m.def(
      "block_double_backward(Tensor factor, Tensor input, Tensor target, Tensor upstream) -> "
      "Tensor");
  m.def("cpu_isa() -> str");
  m.def("schemas() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(lamp_kernels, CPU, m) {
  m.impl("image_losses", TORCH_BOX(&lamp_kernels::cpu_image_losses));
  m.impl("loss_map", TORCH_BOX(&lamp_kernels::cpu_loss_map));
}

STABLE_TORCH_LIBRARY_IMPL(lamp_kernels, CompositeExplicitAutograd, m) {
  m.impl("block_double_backward", TORCH_BOX(&lamp_kernels::block_double_backward));
  m.impl("cpu_isa", TORCH_BOX(&lamp_kernels::cpu_isa));
  m.impl("schemas", TORCH_BOX(&lamp_kernels::schemas));
}
