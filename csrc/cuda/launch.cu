#include "launch.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "pixels.cuh"
#include "scale.cuh"
#include "sums.cuh"
#include "variants.h"

namespace lamp_kernels::cuda {

namespace {

constexpr int64_t kLongestSide = 1 << 30;  // SSIM counts twice a side in 32 bits

constexpr size_t kScratch = kMostWarps * sizeof(double);  // for sum_of_block
static_assert(kPixelThreads <= kMostWarps * kWarp && kSumThreads <= kMostWarps * kWarp);

int gradients_of(const Params& p) {
  return int(p.input_gradient.data != nullptr) + int(p.target_gradient.data != nullptr);
}

const Variant& variant_of(const Params& p, bool wide) {
  return (wide ? double_variant : float_variant)(p.radius, gradients_of(p));
}

// Calls f(first, count) until `total` are done, as many at once as a launch may have blocks.
template <class F>
void in_launches(int64_t total, const Device& device, F f) {
  for (int64_t first = 0; first < total; first += device.most_blocks)
    f(first, std::min(device.most_blocks, total - first));
}

bool is_empty(const Params& p) { return p.batch * p.channels * p.height * p.width == 0; }

template <class T>
void launch_pixels(const Params& p, double* partial, const Device& device, cudaStream_t stream) {
  const PixelTiling tiling(p);
  in_launches(p.batch * p.channels * tiling.per_plane, device, [&](int64_t first, int64_t count) {
    const PixelArguments<T> a{p, tiling, first, T(p.scale), amplification<T>(p.amplify, p.eps),
                              partial};
    LAMP_LAUNCH(pixel_kernel<T>, unsigned(count), kPixelThreads, kScratch, stream, a);
    check(cudaGetLastError(), "launch of the pixel kernel");
  });
}

template <class T>
void launch_sums(SumArguments a, int64_t images, const Device& device, cudaStream_t stream) {
  in_launches(images, device, [&](int64_t first, int64_t count) {
    a.first_image = first;
    LAMP_LAUNCH(sum_kernel<T>, unsigned(count), kSumThreads, kScratch, stream, a);
    check(cudaGetLastError(), "launch of the summing kernel");
  });
}

template <class T>
void launch_scale(ScaleArguments a, int64_t images, const Device& device, cudaStream_t stream) {
  a.per_image = ceil_div(a.size, kScaleBytes / int64_t(sizeof(T)));
  in_launches(images * a.per_image, device, [&](int64_t first, int64_t count) {
    a.first_block = first;
    LAMP_LAUNCH(scale_kernel<T>, unsigned(count), kScaleThreads, 0, stream, a);
    check(cudaGetLastError(), "launch of the scaling kernel");
  });
}

}  // namespace

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // no later launch shall report this one
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

Device current_device(int expected) {
  int device = 0, multiprocessors = 0, shared_memory = 0;
  check(cudaGetDevice(&device), "CUDA device");
  // This library's CUDA runtime is its own, not PyTorch's.
  if (device != expected) throw std::runtime_error("the current CUDA device is not the tensors'");
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device),
        "number of multiprocessors");
  check(cudaDeviceGetAttribute(&shared_memory, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "size of the shared memory");
  return {multiprocessors, shared_memory};
}

Call::Call(const Params& p, bool wide, const Device& device)
    : p_(p), wide_(wide), device_(device) {
  if (p.target_gradient.data && !p.input_gradient.data) {  // every term is symmetric in its images
    std::swap(p_.input, p_.target);
    std::swap(p_.input_gradient, p_.target_gradient);
  }
  if (is_empty(p_)) return;
  if (!p_.ssim) {
    per_plane_ = PixelTiling(p_).per_plane;
    return;
  }
  if (std::max(p_.height, p_.width) >= kLongestSide)
    throw std::runtime_error("an image of 2^30 rows or columns is too large for SSIM");
  tiling_ = ssim_tiling(p_, variant_of(p_, wide_).demands, device_);
  if (!tiling_.threads)
    throw std::runtime_error("a block of this device has too little shared memory for the window");
  per_plane_ = tiling_.tiles_per_plane();
}

void Call::enqueue(void* shares, bool per_term, double* partial, cudaStream_t stream) const {
  if (!is_empty(p_) && p_.ssim) {
    in_launches(planes() * per_plane_, device_, [&](int64_t first, int64_t count) {
      variant_of(p_, wide_).launch(p_, tiling_, first, count, partial, device_, stream);
    });
  } else if (!is_empty(p_)) {
    (wide_ ? launch_pixels<double> : launch_pixels<float>)(p_, partial, device_, stream);
  }
  if (!shares) return;
  const SumArguments sums{partial,  0,          p_.channels * per_plane_, p_.terms(),
                          per_term, p_.factors, shares};
  (wide_ ? launch_sums<double> : launch_sums<float>)(sums, p_.batch, device_, stream);
}

void scale(void* gradient, const void* factor, int64_t stride, int64_t images, int64_t size,
           bool wide, const Device& device, cudaStream_t stream) {
  const ScaleArguments a{gradient, factor, stride, size, 0, 0};
  if (size) (wide ? launch_scale<double> : launch_scale<float>)(a, images, device, stream);
}

}  // namespace lamp_kernels::cuda
