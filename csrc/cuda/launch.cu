#include "launch.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "pixels.cuh"
#include "scale.cuh"
#include "sums.cuh"

namespace lamp_kernels::cuda {

namespace {

constexpr int64_t kLongestSide = 1 << 28;  // SSIM's 32-bit arithmetic needs eight times a side
constexpr int64_t kMostPlanes = int64_t(1) << 31;
constexpr int64_t kAligned = 256;  // bytes

constexpr size_t kScratchBytes = kMostWarps * sizeof(double);  // for sum_of_block
static_assert(kScratchBytes <= kScratch * sizeof(double));
static_assert(kPixelThreads <= kMostWarps * kWarp && kSumThreads <= kMostWarps * kWarp);
constexpr size_t kBatchScratchBytes = kMostBatchThreads / kWarp * sizeof(double);

// Splits `total` blocks into launches of at most device.most_blocks, and calls f(first, count) for
// each.
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
    const PixelArguments<T> a{p, tiling, first, loss_formula<T>(p), partial};
    LAMP_LAUNCH(pixel_kernel<T>, unsigned(count), kPixelThreads, kScratchBytes, stream, a);
    check(cudaGetLastError(), "launch of the pixel kernel");
  });
}

template <class T>
void launch_batch_sum(const SumArguments& a, cudaStream_t stream) {
  const int threads = a.images * a.tiles > kManyTiles ? kMostBatchThreads : kBatchThreads;
  LAMP_LAUNCH(batch_sum_kernel<T>, 1, unsigned(threads), kBatchScratchBytes, stream, a);
  check(cudaGetLastError(), "launch of the kernel that sums a batch");
}

template <class T>
void launch_sums(SumArguments a, const Device& device, cudaStream_t stream) {
  in_launches(a.images, device, [&](int64_t first, int64_t count) {
    a.first_image = first;
    LAMP_LAUNCH(sum_kernel<T>, unsigned(count), kSumThreads, kScratchBytes, stream, a);
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
  cudaGetLastError();  // clears the error, so that no later launch reports it
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

void expect_device(int expected) {
  int device = 0;
  check(cudaGetDevice(&device), "CUDA device");
  // This library links its own CUDA runtime, which is not PyTorch's.
  if (device != expected)
    throw std::runtime_error("the current CUDA device must be that of the tensors, " +
                             std::to_string(expected) + ", got " + std::to_string(device));
}

Device describe_device(int device) {
  auto attribute = [&](cudaDeviceAttr name, const char* what) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, name, device), what);
    return value;
  };
  Device d;
  d.multiprocessors = attribute(cudaDevAttrMultiProcessorCount, "number of multiprocessors");
  d.shared_memory = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, "size of the shared memory");
  d.cache = attribute(cudaDevAttrL2CacheSize, "size of the L2 cache");
  const double clock = 1e3 * attribute(cudaDevAttrClockRate, "clock");
  // Memory transfers data twice per cycle.
  const double bandwidth = 2e3 * attribute(cudaDevAttrMemoryClockRate, "memory clock") / 8 *
                           attribute(cudaDevAttrGlobalMemoryBusWidth, "width of the memory bus");
  // A virtual device may not report its clocks: then the defaults, those of an H100, apply.
  if (clock > 0) d.clock = clock;
  if (bandwidth > 0) d.bandwidth = bandwidth;
  // Each scheduler has 16 float32 lanes on compute capabilities 7.5 and 8.0, and 32 on others.
  // About a third of the instructions do not use these lanes.
  const int capability = 10 * attribute(cudaDevAttrComputeCapabilityMajor, "compute capability") +
                         attribute(cudaDevAttrComputeCapabilityMinor, "compute capability");
  d.issue_cycles = capability <= 80 ? 4.0 / 3 : 1;
  return d;
}

Call::Call(const Params& p, bool use_double, const Device& device, Design design)
    : p_(p), use_double_(use_double), device_(device) {
  if (p.target_gradient.data && !p.input_gradient.data) {  // swap: every term is symmetric
    std::swap(p_.input, p_.target);
    std::swap(p_.input_gradient, p_.target_gradient);
  }
  if (is_empty(p_)) return;
  if (!p_.ssim()) {
    per_plane_ = PixelTiling(p_).per_plane;
    return;
  }
  if (std::max(p_.height, p_.width) >= kLongestSide)
    throw std::runtime_error("height and width must be less than 2^28 for SSIM");
  if (planes() >= kMostPlanes) throw std::runtime_error("N * C must be less than 2^31 for SSIM");
  use(plan_ssim(p_, use_double_, device_, design));
}

void Call::use(const Plan& plan) {
  plan_ = plan;
  per_plane_ = plan_.tiling.tiles_per_plane();
}

int64_t Call::h_at() const {
  return round_up(planes() * per_plane_ * p_.terms.count() * int64_t(sizeof(double)), kAligned);
}
int64_t Call::shifts_at() const {
  const Tiling& t = plan_.tiling;
  const int64_t h = plan_.gradients ? t.h_plane(plan_.gradients_count) * int64_t(sizeof(float)) : 0;
  return h_at() + round_up(plan_.planes_at_once * h, kAligned);
}
int64_t Call::scratch_bytes() const {
  if (!plan_.gradients) return h_at();
  const Tiling& t = plan_.tiling;
  return shifts_at() + plan_.planes_at_once * t.strips * t.height * 2 * int64_t(sizeof(float));
}

void Call::enqueue_ssim(char* scratch, cudaStream_t stream) const {
  double* const partial = reinterpret_cast<double*>(scratch);
  // Launches one kernel over `count` planes.
  auto launch = [&](const Variant& variant, const Tiling& tiling, bool common, int64_t first_plane,
                    int64_t count) {
    const int64_t before = first_plane * tiling.tiles_per_plane();
    in_launches(count * tiling.tiles_per_plane(), device_, [&](int64_t first, int64_t blocks) {
      variant.launch({p_, tiling, tiling.range(before + first), blocks, common, partial,
                      first_plane, scratch + h_at(), scratch + shifts_at(), device_, stream});
    });
  };
  if (!plan_.gradients) return launch(*plan_.variant, plan_.tiling, plan_.common, 0, planes());
  for (int64_t first = 0; first < planes(); first += plan_.planes_at_once) {
    const int64_t count = std::min(plan_.planes_at_once, planes() - first);
    launch(*plan_.variant, plan_.tiling, plan_.common, first, count);
    launch(*plan_.gradients, plan_.gradients_tiling, plan_.gradients_common, first, count);
  }
  if (p_.terms.pointwise()) launch_pixels<float>(p_, nullptr, device_, stream);
}

void Call::enqueue(void* scaled_sums, Sums sums, void* scratch, cudaStream_t stream) const {
  double* const partial = static_cast<double*>(scratch);
  if (!is_empty(p_)) {
    if (p_.ssim())
      enqueue_ssim(static_cast<char*>(scratch), stream);
    else
      (use_double_ ? launch_pixels<double> : launch_pixels<float>)(p_, partial, device_, stream);
  }
  if (!scaled_sums) return;
  SumArguments a{
      partial,    0,  p_.batch,   p_.channels * per_plane_, p_.terms.count(), sums == Sums::terms,
      p_.factors, {}, scaled_sums};
  std::copy_n(p_.shared_factors, kMetrics, a.shared_factors);
  if (sums == Sums::batch)
    (use_double_ ? launch_batch_sum<double> : launch_batch_sum<float>)(a, stream);
  else
    (use_double_ ? launch_sums<double> : launch_sums<float>)(a, device_, stream);
}

void scale(void* gradient, const void* factor, int64_t stride, int64_t images, int64_t size,
           bool use_double, const Device& device, cudaStream_t stream) {
  const ScaleArguments a{gradient, factor, stride, size, 0, 0};
  if (size) (use_double ? launch_scale<double> : launch_scale<float>)(a, images, device, stream);
}

}  // namespace lamp_kernels::cuda
