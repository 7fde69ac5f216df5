#include "plan.h"

#include <cstdint>
#include <stdexcept>

namespace lamp_kernels::cuda {

namespace {

// Between two kernels that follow one another in a stream; bench/gpu/model.py has the source.
constexpr double kLaunchSeconds = 0.9e-6;
constexpr double kBandwidthShare = 0.9;  // of the DRAM's, that a kernel reaches

int gradients_of(const Params& p) {
  return int(p.input_gradient.data != nullptr) + int(p.target_gradient.data != nullptr);
}

// Whether a kernel may read images as floats whose columns lie side by side.
bool is_plain(const Source& s) {
  return s.dtype == Dtype::float32 && s.column == 1 && s.row >= 0 && s.row <= INT32_MAX / 4;
}
bool is_common(const Params& p) {
  return is_plain(p.input) && is_plain(p.target) && !p.weight.data && !p.mse && !p.l1 &&
         !p.map.data;
}

// Whether pairs of columns may be read or written at once, wherever a tile begins.
template <class Tensor>
bool has_pairs(const Tensor& s, const Params& p) {
  return s.column == 1 && reinterpret_cast<uintptr_t>(s.data) % (2 * sizeof(float)) == 0 &&
         (p.batch == 1 || s.batch % 2 == 0) && (p.channels == 1 || s.channel % 2 == 0) &&
         (p.height == 1 || s.row % 2 == 0);
}
bool is_common_gradient(const Params& p, const KernelResources& r) {
  if (!is_plain(p.input) || !is_plain(p.target)) return false;
  if (r.columns == 1) return true;
  return p.width % 2 == 0 && has_pairs(p.input, p) && has_pairs(p.target, p) &&
         has_pairs(p.input_gradient, p) &&
         (!p.target_gradient.data || has_pairs(p.target_gradient, p));
}

double seconds_of(const Params& p, const KernelResources& r, const Tiling& t, int64_t planes,
                  const Device& device) {
  // Neighbouring strips share what they read in the L2 cache; bands do not.
  const double rows = 1 + double(r.seam()) / t.band_height;
  const double bytes = double(planes) * double(p.height) * double(p.width) * r.bytes * rows;
  return std::max(launch_cycles(r, t, planes, device) / device.clock,
                  bytes / (kBandwidthShare * device.bandwidth)) +
         kLaunchSeconds;
}

Plan plan_one(const Params& p, bool wide, int gradients, const Device& device) {
  Plan plan{};
  plan.design = Design::one;
  plan.common = !wide && gradients == 1 && is_common(p) && p.height > p.radius + 1 &&
                p.width % 2 == 0 && has_pairs(p.input_gradient, p);
  plan.variant = &(wide          ? double_one
                   : plan.common ? float_one_common
                                 : float_one)(p.radius, gradients);
  const int64_t planes = p.batch * p.channels;
  plan.tiling = best_tiling(p, plan.variant->resources, planes, device);
  if (!plan.tiling.threads)
    throw std::runtime_error("a block of this device has too little shared memory for the window");
  plan.seconds = seconds_of(p, plan.variant->resources, plan.tiling, planes, device);
  return plan;
}

// h may take half of the cache.
int64_t planes_in_cache(int64_t h_bytes, const Device& device) { return device.cache / 2 / h_bytes; }

Plan plan_two(const Params& p, int gradients, const Device& device) {
  Plan plan{};
  plan.design = Design::two;
  plan.common = is_common(p);
  plan.variant = &float_losses(p.radius, gradients);
  const int64_t planes = p.batch * p.channels;
  const KernelResources& losses = plan.variant->resources;
  if (!gradients) {
    plan.tiling = best_tiling(p, losses, planes, device);
    plan.seconds = seconds_of(p, losses, plan.tiling, planes, device);
    return plan;
  }
  const int64_t of_plane =
      ((p.width + 1) & ~int64_t(1)) * p.height * (2 + gradients) * int64_t(sizeof(float));
  int64_t at_once = planes_in_cache(of_plane, device);
  if (at_once == 0) throw std::runtime_error("a plane of h does not fit the cache");
  const int64_t groups = ceil_div(planes, at_once);
  at_once = ceil_div(planes, groups);  // even ones
  plan.planes_at_once = at_once;
  plan.gradients = &float_gradients(p.radius, gradients);
  plan.gradients_count = gradients;
  plan.gradients_common = is_common_gradient(p, plan.gradients->resources);
  const Tilings tilings = best_tilings(p, losses, plan.gradients->resources, at_once, device);
  plan.tiling = tilings.losses;
  plan.gradients_tiling = tilings.gradients;
  plan.seconds =
      double(groups) *
          (seconds_of(p, losses, plan.tiling, at_once, device) +
           seconds_of(p, plan.gradients->resources, plan.gradients_tiling, at_once, device));
  return plan;
}

}  // namespace

Plan plan_ssim(const Params& p, bool wide, const Device& device, Design design) {
  const int gradients = gradients_of(p);
  if (!wide && !gradients) return plan_two(p, gradients, device);
  if (wide || design == Design::one) return plan_one(p, wide, gradients, device);
  if (design == Design::two) return plan_two(p, gradients, device);
  const int64_t of_plane = (p.width + 1) * p.height * (2 + gradients) * int64_t(sizeof(float));
  const Plan one = plan_one(p, wide, gradients, device);
  if (planes_in_cache(of_plane, device) == 0) return one;
  const Plan two = plan_two(p, gradients, device);
  return two.seconds < one.seconds ? two : one;
}

}  // namespace lamp_kernels::cuda
