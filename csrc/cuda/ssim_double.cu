#include "variants.cuh"

namespace lamp_kernels::cuda {

const Variant& double_variant(int radius, int gradients) {
  return variant_of<double>(radius, gradients);
}

}  // namespace lamp_kernels::cuda
