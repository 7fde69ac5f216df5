#include "variants.cuh"

namespace lamp_kernels::cuda {

const Variant& float_variant(int radius, int gradients) {
  return variant_of<float>(radius, gradients);
}

}  // namespace lamp_kernels::cuda
