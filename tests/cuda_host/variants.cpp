// The SSIM kernels for some radii only (-DRADII=2,5). Replaces ssim_float.cu, ssim_double.cu and
// ssim_two.cu, because compiling the kernels takes most of the time.
#include "cuda/variants.cuh"

#include <cstdio>
#include <cstdlib>

namespace lamp_kernels::cuda {
namespace {

// Looks up a radius in a table with one row for each radius of RADII.
template <size_t rows>
const Variant& find(const Variant (&table)[rows][3], int radius, int gradients) {
  constexpr int kRadii[] = {RADII};
  for (size_t row = 0; row < rows; ++row)
    if (kRadii[row] == radius) return table[row][gradients];
  std::fprintf(stderr, "radius %d is not compiled\n", radius);
  std::abort();
}

template <int... radii>
struct Tables {
  static constexpr Variant kDouble[][3] = {{variant<OneLaunch<double, radii, 0, false>>(),
                                            variant<OneLaunch<double, radii, 1, false>>(),
                                            variant<OneLaunch<double, radii, 2, false>>()}...};
  static constexpr Variant kFloat[][3] = {{{},
                                           variant<OneLaunch<float, radii, 1, false>>(),
                                           variant<OneLaunch<float, radii, 2, false>>()}...};
  static constexpr Variant kCommon[][3] = {
      {{}, variant<OneLaunch<float, radii, 1, true>>(), {}}...};
  static constexpr Variant kLosses[][3] = {
      {variant<Losses<radii, 0>>(), variant<Losses<radii, 1>>(), variant<Losses<radii, 2>>()}...};
  static constexpr Variant kGradients[][3] = {
      {{}, variant<Gradients<radii, 1>>(), variant<Gradients<radii, 2>>()}...};
};
using Compiled = Tables<RADII>;

}  // namespace

const Variant& double_one(int radius, int gradients) {
  return find(Compiled::kDouble, radius, gradients);
}
const Variant& float_one(int radius, int gradients) {
  return find(Compiled::kFloat, radius, gradients);
}
const Variant& float_one_common(int radius, int gradients) {
  return find(Compiled::kCommon, radius, gradients);
}
const Variant& float_losses(int radius, int gradients) {
  return find(Compiled::kLosses, radius, gradients);
}
const Variant& float_gradients(int radius, int gradients) {
  return find(Compiled::kGradients, radius, gradients);
}

}  // namespace lamp_kernels::cuda
