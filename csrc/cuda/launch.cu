#include "launch.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "pixels.cuh"
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

int64_t tiles_per_plane(const Params& p, bool wide, const Device& device) {
  if (is_empty(p)) return 0;
  if (!p.ssim) return PixelTiling(p).per_plane;
  if (std::max(p.height, p.width) >= kLongestSide)
    throw std::runtime_error("an image of 2^30 rows or columns is too large for SSIM");
  const Tiling tiling = ssim_tiling(p, variant_of(p, wide).demands, device);
  if (!tiling.threads)
    throw std::runtime_error("a block of this device has too little shared memory for the window");
  return tiling.tiles_per_plane();
}

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

int64_t partial_size(const Params& p, bool wide, const Device& device) {
  return p.batch * p.channels * tiles_per_plane(p, wide, device) * p.terms();
}

void compute(Params p, bool wide, void* shares, bool per_term, double* partial,
             const Device& device, cudaStream_t stream) {
  if (p.target_gradient.data && !p.input_gradient.data) {  // every term is symmetric in its images
    std::swap(p.input, p.target);
    std::swap(p.input_gradient, p.target_gradient);
  }
  const int64_t per_plane = tiles_per_plane(p, wide, device);
  if (!is_empty(p) && p.ssim) {
    const Variant& variant = variant_of(p, wide);
    const Tiling tiling = ssim_tiling(p, variant.demands, device);
    in_launches(p.batch * p.channels * per_plane, device, [&](int64_t first, int64_t count) {
      variant.launch(p, tiling, first, count, partial, stream);
    });
  } else if (!is_empty(p)) {
    (wide ? launch_pixels<double> : launch_pixels<float>)(p, partial, device, stream);
  }
  if (!shares) return;
  const SumArguments sums{partial,  0,         p.channels * per_plane, p.terms(),
                          per_term, p.factors, shares};
  (wide ? launch_sums<double> : launch_sums<float>)(sums, p.batch, device, stream);
}

}  // namespace lamp_kernels::cuda
