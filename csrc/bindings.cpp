// Registers the operators and their CPU kernels. lamp_kernels/ops.py adds autograd formulas and
// fake kernels.

#include "cpu/launch.h"
#include "operators.h"

namespace lamp_kernels {
namespace {

struct Cpu {
  static bool has(const Tensor& t) { return t.is_cpu(); }

  static void run(Params& p, const Tensor&, bool use_double, void* scaled_sums, Sums sums) {
    STD_TORCH_CHECK(!p.mask.data || !p.gms(), "gms does not support a mask");
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
  m.impl("image_losses", TORCH_BOX(&lamp_kernels::image_losses<lamp_kernels::Cpu>));
  m.impl("loss_map", TORCH_BOX(&lamp_kernels::loss_map<lamp_kernels::Cpu>));
}

STABLE_TORCH_LIBRARY_IMPL(lamp_kernels, CompositeExplicitAutograd, m) {
  m.impl("block_double_backward", TORCH_BOX(&lamp_kernels::block_double_backward));
  m.impl("cpu_isa", TORCH_BOX(&lamp_kernels::cpu_isa));
  m.impl("schemas", TORCH_BOX(&lamp_kernels::schemas));
}
