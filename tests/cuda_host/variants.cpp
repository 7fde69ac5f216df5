// The SSIM kernel for some radii alone (-DRADII=2,5), in the place of ssim_float.cu and
// ssim_double.cu: most of the time goes into compiling it.
#include "cuda/variants.cuh"

#include <cstdio>
#include <cstdlib>

namespace lamp_kernels::cuda {
namespace {

template <class T, int... radii>
const Variant& one_of(int radius, int gradients) {
  static const Variant table[][3] = {
      {variant<T, radii, 0>(), variant<T, radii, 1>(), variant<T, radii, 2>()}...};
  int row = 0, found = -1;
  for (const int one : {radii...}) {
    if (one == radius) found = row;
    ++row;
  }
  if (found >= 0) return table[found][gradients];
  std::fprintf(stderr, "radius %d is not compiled\n", radius);
  std::abort();
}

}  // namespace

const Variant& float_variant(int radius, int gradients) {
  return one_of<float, RADII>(radius, gradients);
}
const Variant& double_variant(int radius, int gradients) {
  return one_of<double, RADII>(radius, gradients);
}

}  // namespace lamp_kernels::cuda
