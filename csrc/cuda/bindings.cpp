// The operators' CUDA kernels. This library loads wherever PyTorch does, with or without CUDA: the
// CUDA runtime is linked into it, and what it needs of PyTorch's own CUDA library is looked up where
// that is loaded already.

#include <dlfcn.h>

#include "../operators.h"
#include "launch.h"

#include <torch/csrc/stable/accelerator.h>

namespace lamp_kernels {
namespace {

// PyTorch's current stream of a device. A reference to it would be an undefined symbol under a
// PyTorch without CUDA.
cudaStream_t current_stream(int32_t device) {
  using Get = AOTITorchError (*)(int32_t, void**);
  static const Get get = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_NOW);
    return library ? reinterpret_cast<Get>(dlsym(library, "aoti_torch_get_current_cuda_stream"))
                   : nullptr;
  }();
  STD_TORCH_CHECK(get, "this PyTorch has no CUDA");
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(get(device, &stream));
  return static_cast<cudaStream_t>(stream);
}

struct Cuda {
  static bool has(const Tensor& t) { return t.is_cuda(); }

  static void run(Params& p, const Tensor& like, bool wide, void* shares, bool per_term) {
    const int32_t index = like.get_device_index();
    const torch::stable::accelerator::DeviceGuard guard(index);
    const cuda::Device device = cuda::current_device();
    const Tensor partial = torch::stable::new_empty(
        like, {cuda::partial_size(p, wide, device)}, ScalarType::Double);
    cuda::compute(p, wide, shares, per_term, static_cast<double*>(partial.mutable_data_ptr()),
                  device, current_stream(index));
  }
};

}  // namespace
}  // namespace lamp_kernels

STABLE_TORCH_LIBRARY_IMPL(lamp_kernels, CUDA, m) {
  m.impl("image_losses", TORCH_BOX(&lamp_kernels::image_losses<lamp_kernels::Cuda>));
  m.impl("loss_map", TORCH_BOX(&lamp_kernels::loss_map<lamp_kernels::Cuda>));
}
