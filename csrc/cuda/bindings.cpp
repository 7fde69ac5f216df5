// The operators' CUDA kernels. This library loads wherever PyTorch does, with or without CUDA: the
// CUDA runtime is linked into it, and what it needs of PyTorch's own CUDA library is looked up where
// that is loaded already.

#include <dlfcn.h>

#include <string>

#include "../operators.h"
#include "launch.h"

#include <torch/csrc/stable/accelerator.h>

// What setup.py told nvcc to compile for: sm_75,sm_80 and so on, compute_120 for PTX.
#ifndef LAMP_CUDA_TARGETS
#define LAMP_CUDA_TARGETS
#endif
#define LAMP_AS_STRING(...) #__VA_ARGS__
#define LAMP_STRING_OF(...) LAMP_AS_STRING(__VA_ARGS__)

namespace lamp_kernels {
namespace {

// PyTorch's current stream of a device. A reference to it would be an undefined symbol under a
// PyTorch without CUDA.
cudaStream_t current_stream(int32_t device) {
  using Get = AOTITorchError (*)(int32_t, void**);
  static void* const library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_NOW);
  STD_TORCH_CHECK(library, "this PyTorch has no CUDA");
  static const Get get =
      reinterpret_cast<Get>(dlsym(library, "aoti_torch_get_current_cuda_stream"));
  STD_TORCH_CHECK(get, "this PyTorch does not tell its current CUDA stream");
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(get(device, &stream));
  return static_cast<cudaStream_t>(stream);
}

struct Cuda {
  static bool has(const Tensor& t) { return t.is_cuda(); }

  static void run(Params& p, const Tensor& like, bool wide, void* shares, bool per_term) {
    const int32_t index = like.get_device_index();
    const torch::stable::accelerator::DeviceGuard guard(index);
    const cuda::Device device = cuda::current_device(index);
    const Tensor partial = torch::stable::new_empty(
        like, {cuda::partial_size(p, wide, device)}, ScalarType::Double);
    cuda::compute(p, wide, shares, per_term, static_cast<double*>(partial.mutable_data_ptr()),
                  device, current_stream(index));
  }
};

std::string cuda_targets() { return LAMP_STRING_OF(LAMP_CUDA_TARGETS); }

std::string cuda_release() {
  return std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
}

// Why this library's CUDA runtime finds no device, or nothing. PyTorch's runtime may be an older one
// that is content with an older driver.
std::string cuda_error() {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  cudaGetLastError();  // no later launch shall report this one
  return status == cudaSuccess ? "" : cudaGetErrorString(status);
}

}  // namespace
}  // namespace lamp_kernels

STABLE_TORCH_LIBRARY_FRAGMENT(lamp_kernels, m) {
  m.def("cuda_targets() -> str");
  m.def("cuda_release() -> str");
  m.def("cuda_error() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(lamp_kernels, CompositeExplicitAutograd, m) {
  m.impl("cuda_targets", TORCH_BOX(&lamp_kernels::cuda_targets));
  m.impl("cuda_release", TORCH_BOX(&lamp_kernels::cuda_release));
  m.impl("cuda_error", TORCH_BOX(&lamp_kernels::cuda_error));
}

STABLE_TORCH_LIBRARY_IMPL(lamp_kernels, CUDA, m) {
  m.impl("image_losses", TORCH_BOX(&lamp_kernels::image_losses<lamp_kernels::Cuda>));
  m.impl("loss_map", TORCH_BOX(&lamp_kernels::loss_map<lamp_kernels::Cuda>));
}
