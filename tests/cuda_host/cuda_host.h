// Compiles CUDA C++ kernels as host code, so that tests can run them on the CPU. Provides what
// device code requires of its environment (csrc/cuda/device.cuh). Types (dim3, __half, ...) come
// from NVIDIA's headers, which compile as host code; this file and engine.h replace what needs a
// device.
//
// Must be included before any other CUDA header (g++ -include).
#pragma once

#define CUDA_HOST_EMULATION 1

#include <cuda_runtime.h>

#include <cstring>

#include "engine.h"

// ---- Declarations ------------------------------------------------------------------------------

#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __grid_constant__
#define __grid_constant__

#define LAMP_SHARED(name) unsigned char* const name = ::cuda_host::now.shared
#define LAMP_LAUNCH(kernel, grid, block, shared, stream, ...)              \
  ::cuda_host::launch_kernel(#kernel, (kernel), (grid), (block), (shared), \
                             (stream)__VA_OPT__(, ) __VA_ARGS__)

// ---- Indices -----------------------------------------------------------------------------------

#define threadIdx (::cuda_host::now.thread)
#define blockIdx (::cuda_host::now.block)
#define blockDim (::cuda_host::now.block_size)
#define gridDim (::cuda_host::now.grid_size)

namespace cuda_host {

// Each thread has its own copy of the parameters, as on the device.
template <class... Parameters, class... Arguments>
void launch_kernel(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                   size_t shared, cudaStream_t, const Arguments&... arguments) {
  launch(name, reinterpret_cast<const void*>(kernel), grid, block, shared,
         [&] { kernel(static_cast<Parameters>(arguments)...); });
}

template <class T>
T shuffle_value(Shuffle kind, unsigned mask, T value, int by, int width, Site site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "CUDA has only these sizes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = shuffle(kind, mask, bits, by, width, site);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace cuda_host

// ---- Collective operations ---------------------------------------------------------------------

// The location of the call in the kernel, as the last parameters.
#define CUDA_HOST_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(CUDA_HOST_SITE) { ::cuda_host::synchronize_block({file, line}); }

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, CUDA_HOST_SITE) {
  return ::cuda_host::shuffle_value(::cuda_host::Shuffle::from_lane, mask, value, lane, width,
                                    {file, line});
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, CUDA_HOST_SITE) {
  return ::cuda_host::shuffle_value(::cuda_host::Shuffle::up, mask, value, int(by), width,
                                    {file, line});
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, CUDA_HOST_SITE) {
  return ::cuda_host::shuffle_value(::cuda_host::Shuffle::down, mask, value, int(by), width,
                                    {file, line});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int by, int width = 32, CUDA_HOST_SITE) {
  return ::cuda_host::shuffle_value(::cuda_host::Shuffle::exclusive_or, mask, value, by, width,
                                    {file, line});
}
inline int __any_sync(unsigned mask, int predicate, CUDA_HOST_SITE) {
  return int(
      ::cuda_host::shuffle(::cuda_host::Shuffle::any, mask, predicate != 0, 0, 32, {file, line}));
}

// ---- Arithmetic --------------------------------------------------------------------------------

template <class T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}
