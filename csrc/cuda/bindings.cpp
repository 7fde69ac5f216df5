// Registers the operators' CUDA kernels. This library loads wherever PyTorch does, with or without
// CUDA: it links the CUDA runtime statically, and looks up the one function it needs from PyTorch's
// CUDA library at run time, if that library is already loaded.

#include <dlfcn.h>

#include <map>
#include <mutex>
#include <string>

#include "../operators.h"
#include "launch.h"

#include <torch/csrc/stable/accelerator.h>

// The targets that setup.py passed to nvcc: sm_75,sm_80 and so on, and compute_120 for PTX.
#ifndef LAMP_CUDA_TARGETS
#define LAMP_CUDA_TARGETS
#endif
#define LAMP_AS_STRING(...) #__VA_ARGS__
#define LAMP_STRING_OF(...) LAMP_AS_STRING(__VA_ARGS__)

namespace lamp_kernels {
namespace {

// PyTorch's current stream on a device. Looked up at run time, because linking against the function
// would leave an undefined symbol under a CPU-only PyTorch.
cudaStream_t current_stream(int32_t device) {
  using Get = AOTITorchError (*)(int32_t, void**);
  static void* const library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_NOW);
  STD_TORCH_CHECK(library, "libtorch_cuda.so is not loaded: this PyTorch does not support CUDA");
  static const Get get =
      reinterpret_cast<Get>(dlsym(library, "aoti_torch_get_current_cuda_stream"));
  STD_TORCH_CHECK(get, "this PyTorch does not export aoti_torch_get_current_cuda_stream");
  void* stream = nullptr;
  STD_TORCH_CHECK(get(device, &stream) == AOTI_TORCH_SUCCESS,
                  "PyTorch did not return the current CUDA stream of device ", device);
  return static_cast<cudaStream_t>(stream);
}

// Describes the current device, which must be the tensors' device. Each device is queried once.
cuda::Device current_device(int32_t index) {
  static std::mutex mutex;
  static std::map<int32_t, cuda::Device> known;
  cuda::expect_device(index);
  const std::lock_guard<std::mutex> lock(mutex);
  auto found = known.find(index);
  if (found == known.end()) found = known.emplace(index, cuda::describe_device(index)).first;
  return found->second;
}

struct Cuda {
  static bool has(const Tensor& t) { return t.is_cuda(); }

  static void run(Params& p, const Tensor& like, bool use_double, void* scaled_sums, Sums sums) {
    STD_TORCH_CHECK(!p.mask.data, "the CUDA kernels do not support a mask");
    STD_TORCH_CHECK(!p.gms(), "the CUDA kernels do not compute gms");
    const int32_t index = like.get_device_index();
    const torch::stable::accelerator::DeviceGuard guard(index);
    const cuda::Call call(p, use_double, current_device(index));
    const Tensor scratch = torch::stable::new_empty(like, {call.scratch_bytes()}, ScalarType::Byte);
    call.enqueue(scaled_sums, sums, scratch.mutable_data_ptr(), current_stream(index));
  }
};

// In place, multiplies each image of a gradient by its own factor, or all images by one factor.
void scale_(const Tensor& gradient, const Tensor& factor) {
  check_devices<Cuda>(gradient, factor);
  const ScalarType dtype = gradient.scalar_type();
  STD_TORCH_CHECK((dtype == ScalarType::Float || dtype == ScalarType::Double) &&
                      gradient.dim() == 4 &&
                      (gradient.is_contiguous() || is_channels_last(gradient)),
                  "gradient must be dense, of shape (N, C, H, W), and float32 or float64");
  STD_TORCH_CHECK(
      factor.scalar_type() == dtype &&
          (factor.dim() == 0 || (factor.dim() == 1 && factor.size(0) == gradient.size(0))),
      "factor must have shape (N,) or () and the dtype of gradient");
  const int32_t index = gradient.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(index);
  const int64_t images = gradient.size(0);
  if (gradient.numel() == 0) return;
  cuda::scale(gradient.mutable_data_ptr(), factor.const_data_ptr(),
              factor.dim() == 0 ? 0 : factor.stride(0), images, gradient.numel() / images,
              dtype == ScalarType::Double, current_device(index), current_stream(index));
}

std::string cuda_targets() { return LAMP_STRING_OF(LAMP_CUDA_TARGETS); }

std::string cuda_release() {
  return std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
}

// Why this library's CUDA runtime finds no device; empty if it finds one. PyTorch may find one when
// this library does not, if PyTorch's CUDA runtime is older and accepts an older driver.
std::string cuda_error() {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  cudaGetLastError();  // clears the error, so that no later launch reports it
  return status == cudaSuccess ? "" : cudaGetErrorString(status);
}

}  // namespace
}  // namespace lamp_kernels

STABLE_TORCH_LIBRARY_FRAGMENT(lamp_kernels, m) {
  m.def("cuda_targets() -> str");
  m.def("cuda_release() -> str");
  m.def("cuda_error() -> str");
  m.def("cuda_schemas() -> str");
  m.def("scale_(Tensor(a!) gradient, Tensor factor) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(lamp_kernels, CompositeExplicitAutograd, m) {
  m.impl("cuda_targets", TORCH_BOX(&lamp_kernels::cuda_targets));
  m.impl("cuda_release", TORCH_BOX(&lamp_kernels::cuda_release));
  m.impl("cuda_error", TORCH_BOX(&lamp_kernels::cuda_error));
  m.impl("cuda_schemas", TORCH_BOX(&lamp_kernels::schemas));
}

STABLE_TORCH_LIBRARY_IMPL(lamp_kernels, CUDA, m) {
  m.impl("image_losses", TORCH_BOX(&lamp_kernels::image_losses<lamp_kernels::Cuda>));
  m.impl("loss_map", TORCH_BOX(&lamp_kernels::loss_map<lamp_kernels::Cuda>));
  m.impl("scale_", TORCH_BOX(&lamp_kernels::scale_));
}
