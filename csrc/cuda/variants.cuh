// A table of the SSIM kernel's variants in one type. Included by ssim_float.cu and ssim_double.cu.
#pragma once

#include "ssim.cuh"
#include "variants.h"

namespace lamp_kernels::cuda {

template <class T, int radius, int gradients>
void launch_ssim(const Params& p, const Tiling& tiling, int64_t first, int64_t count,
                 double* partial, const Device& device, cudaStream_t stream) {
  SsimArguments<T> a{};
  a.p = p;
  a.tiling = tiling;
  a.first_tile = first;
  a.input_row = p.input.row * size_of(p.input.dtype);
  a.target_row = p.target.row * size_of(p.target.dtype);
  for (int k = 0; k <= radius; ++k) a.tap[k] = T(p.taps[k]);
  a.scale = T(p.scale);
  a.constants = {T(p.c1), T(p.c2), T(p.dissimilarity), T(0), T(0)};
  a.amplification = amplification<T>(p.amplify, p.eps);
  a.partial = partial;
  const auto kernel = &ssim_kernel<T, radius, gradients>;
  const int shared = int(SsimTile<T, radius, gradients>::demands().shared_memory(tiling.threads));
  constexpr int kWithoutAsking = 48 * 1024;
  // Always for as much as there is: another thread's call must not find that this one asked for
  // less than it needs.
  if (shared > kWithoutAsking)
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                               cudaFuncAttributeMaxDynamicSharedMemorySize,
                               int(device.shared_memory)),
          "shared memory");
  LAMP_LAUNCH(kernel, unsigned(count), unsigned(tiling.threads), shared, stream, a);
  check(cudaGetLastError(), "launch of the SSIM kernel");
}

template <class T, int radius, int gradients>
constexpr Variant variant() {
  // One warp of any variant fits the device with the least, of compute capability 7.5.
  static_assert(SsimTile<T, radius, gradients>::demands().shared_memory(kWarp) <= 64 * 1024);
  return {SsimTile<T, radius, gradients>::demands(), &launch_ssim<T, radius, gradients>};
}

template <class T>
const Variant& variant_of(int radius, int gradients) {
#define LAMP_RADIUS(r) {variant<T, r, 0>(), variant<T, r, 1>(), variant<T, r, 2>()}
  static const Variant table[kMaxRadius][3] = {LAMP_RADIUS(1), LAMP_RADIUS(2), LAMP_RADIUS(3),
                                               LAMP_RADIUS(4), LAMP_RADIUS(5), LAMP_RADIUS(6),
                                               LAMP_RADIUS(7)};
#undef LAMP_RADIUS
  return table[radius - 1][gradients];
}

}  // namespace lamp_kernels::cuda
