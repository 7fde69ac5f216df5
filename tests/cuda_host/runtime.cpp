// Stand-ins for the CUDA runtime functions that our launches call, with CUDA's limits for launches.
#include <cuda_runtime.h>

#include <map>

#include "engine.h"

namespace cuda_host {
namespace {

constexpr size_t kSharedWithoutAsking = 48 * 1024;
constexpr size_t kMostThreads = 1024;

cudaError_t last_error = cudaSuccess;
std::map<const void*, size_t> asked;  // shared memory requested for each kernel

cudaError_t status(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

cudaError_t verdict(const void* kernel, dim3 grid, dim3 block, size_t shared) {
  const size_t threads = size_t(block.x) * block.y * block.z;
  if (threads == 0 || threads > kMostThreads || block.z > 64) return cudaErrorInvalidConfiguration;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaErrorInvalidConfiguration;
  if (grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535)
    return cudaErrorInvalidConfiguration;
  const auto own = asked.find(kernel);
  const size_t most = own == asked.end() ? kSharedWithoutAsking : own->second;
  return shared > most ? cudaErrorInvalidValue : cudaSuccess;
}

}  // namespace

bool may_launch(const void* kernel, dim3 grid, dim3 block, size_t shared) {
  // Errors persist until they are read, so this one would be attributed to the next launch.
  if (last_error != cudaSuccess) throw Error("the error of an earlier launch was never checked");
  return status(verdict(kernel, grid, block, shared)) == cudaSuccess;
}

}  // namespace cuda_host

using cuda_host::settings;
using cuda_host::status;

cudaError_t cudaGetLastError() {
  const cudaError_t error = cuda_host::last_error;
  cuda_host::last_error = cudaSuccess;
  return error;
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    default: return "an error that the emulation never returns";
  }
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return status(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = settings.multiprocessors; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = int(settings.shared_memory); break;
    case cudaDevAttrL2CacheSize: *value = int(settings.cache); break;
    // The values of an H100.
    case cudaDevAttrClockRate: *value = 1'980'000; break;
    case cudaDevAttrMemoryClockRate: *value = 2'619'000; break;
    case cudaDevAttrGlobalMemoryBusWidth: *value = 5120; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    default: return status(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
      size_t(value) > settings.shared_memory ||
      (settings.asks_for_all && size_t(value) < settings.shared_memory))
    return status(cudaErrorInvalidValue);
  cuda_host::asked[kernel] = size_t(value);
  return cudaSuccess;
}
