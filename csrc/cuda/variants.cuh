// Builds the tables of compiled SSIM kernels. Included by the files that instantiate the kernels.
#pragma once

#include "ssim.cuh"
#include "ssim_gradients.cuh"
#include "ssim_losses.cuh"
#include "variants.h"

namespace lamp_kernels::cuda {

template <class T>
SsimArguments<T> arguments_of(const SsimLaunch& l) {
  const Params& p = l.p;
  SsimArguments<T> a{};
  a.p = p;
  a.tiling = l.tiling;
  a.tiles = l.tiles;
  for (int k = 0; k <= p.radius; ++k) a.tap[k] = T(p.taps[k]);
  a.rows_to_follow = rows_to_follow(p);
  a.scale = T(p.scale);
  a.constants = {T(p.c1), T(p.c2), T(p.ssim_scale), T(0), T(0)};
  a.formula = loss_formula<T>(p);
  a.common = l.common;
  a.partial = l.partial;
  a.first_h_plane = l.first_h_plane;
  a.h = static_cast<T*>(l.h);
  a.shifts = static_cast<Shifts<T>*>(l.shifts);
  return a;
}

template <class T, int radius, int gradients, bool common>
struct OneLaunch {
  using Type = T;
  static constexpr auto kKernel = &ssim_kernel<T, radius, gradients, common>;
  static constexpr KernelResources kResources = SsimTile<T, radius, gradients, common>::resources();
};
template <int radius, int gradients>
struct Losses {
  using Type = float;
  static constexpr auto kKernel = &ssim_losses_kernel<float, radius, gradients>;
  static constexpr KernelResources kResources = losses_resources<float, radius, gradients>();
};
template <int radius, int gradients>
struct Gradients {
  using Type = float;
  static constexpr auto kKernel = &ssim_gradients_kernel<float, radius, gradients>;
  static constexpr KernelResources kResources = gradients_resources<float, radius, gradients>();
};

template <class Kernel>
void launch(const SsimLaunch& l) {
  const auto kernel = Kernel::kKernel;
  const int shared = int(Kernel::kResources.shared_memory(l.tiling.threads));
  constexpr int kWithoutAsking = 48 * 1024;
  // Always requests the device's maximum. Requesting just this launch's size could lower the limit
  // between another host thread's request and its launch.
  if (shared > kWithoutAsking)
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                               cudaFuncAttributeMaxDynamicSharedMemorySize,
                               int(l.device.shared_memory)),
          "shared memory");
  const auto arguments = arguments_of<typename Kernel::Type>(l);
  LAMP_LAUNCH(kernel, unsigned(l.blocks), unsigned(l.tiling.threads), shared, l.stream, arguments);
  check(cudaGetLastError(), "launch of an SSIM kernel");
}

template <class Kernel>
constexpr Variant variant() {
  // A block of one warp must fit the smallest shared memory, that of compute capability 7.5.
  static_assert(Kernel::kResources.shared_memory(kWarp) <= 64 * 1024);
  return {Kernel::kResources, &launch<Kernel>};
}

// Defines a function that looks up a variant in a table, which has a row MAKE(radius) per radius.
#define LAMP_TABLE(name, MAKE)                                                       \
  const Variant& name(int radius, int gradients) {                                   \
    static const Variant table[kMaxRadius][3] = {MAKE(1), MAKE(2), MAKE(3), MAKE(4), \
                                                 MAKE(5), MAKE(6), MAKE(7)};         \
    return table[radius - 1][gradients];                                             \
  }

}  // namespace lamp_kernels::cuda
