#include "plan.h"

#include <array>
#include <climits>
#include <cstdint>
#include <stdexcept>

namespace lamp_kernels::cuda {

namespace {

// The gap between consecutive kernels in a stream. bench/static_analysis/model.py cites the source,
// and reads both numbers from here.
constexpr double kLaunchSeconds = 0.9e-6;
constexpr double kBandwidthShare = 0.9;  // the share of the DRAM bandwidth that a kernel reaches

// Whether a kernel may read the image as float32 with a column stride of 1.
bool is_dense_float(const ConstTensorView& s) {
  return s.dtype == Dtype::float32 && s.column == 1 && s.row >= 0 && s.row <= INT32_MAX / 4;
}
// Whether pairs of columns may be loaded or stored as one vector, wherever a tile begins.
template <class Tensor>
bool has_pairs(const Tensor& s, const Params& p) {
  return s.column == 1 && reinterpret_cast<uintptr_t>(s.data) % (2 * sizeof(float)) == 0 &&
         (p.batch == 1 || s.batch % 2 == 0) && (p.channels == 1 || s.channel % 2 == 0) &&
         s.row % 2 == 0;  // for a single row, too: kernels form the next row's address
}

// Everything that a plan depends on.
struct Question {
  int64_t batch, channels, height, width;
  int radius, gradients;
  bool use_double;  // compute in float64
  bool plain;       // float32 images with a column stride of 1 and one data_range ...
  bool common;      // ... and no weight, pointwise term, map or uncommon A
  bool pairs;       // pairs of columns may be loaded and stored as vectors
  Design design;
  Device device;

  Question(const Params& p, bool computes_double, const Device& of, Design wanted)
      : batch(p.batch), channels(p.channels), height(p.height), width(p.width), radius(p.radius),
        gradients(int(p.input_gradient.data != nullptr) + int(p.target_gradient.data != nullptr)),
        use_double(computes_double),
        plain(is_dense_float(p.input) && is_dense_float(p.target) && !p.data_ranges),
        common(plain && !p.weight.data && !p.terms.pointwise() && !p.map.data &&
               is_common(p.amplify)),
        pairs(p.width % 2 == 0 && has_pairs(p.input, p) && has_pairs(p.target, p) &&
              (gradients < 1 || has_pairs(p.input_gradient, p)) &&
              (gradients < 2 || has_pairs(p.target_gradient, p))),
        design(wanted), device(of) {}
  Question() = default;
  bool operator==(const Question&) const = default;
};

double seconds_of(const Params& p, const KernelResources& r, const Tiling& t, int64_t planes,
                  const Device& device) {
  // Neighboring strips share the columns that both read through the L2 cache; bands do not.
  const double rows = 1 + double(r.seam()) / t.band_height;
  const double bytes = double(planes) * double(p.height) * double(p.width) * r.bytes * rows;
  return std::max(launch_cycles(r, t, planes, device) / device.clock,
                  bytes / (kBandwidthShare * device.bandwidth)) +
         kLaunchSeconds;
}

Plan plan_one(const Params& p, const Question& q) {
  const Device& device = q.device;
  Plan plan{};
  plan.design = Design::one;
  plan.common = !q.use_double && q.gradients == 1 && q.common && q.pairs && q.height > q.radius + 1;
  plan.variant = &(q.use_double  ? double_one
                   : plan.common ? float_one_common
                                 : float_one)(q.radius, q.gradients);
  const int64_t planes = p.batch * p.channels;
  plan.tiling = best_tiling(p, plan.variant->resources, planes, device);
  if (!plan.tiling.threads)
    throw std::runtime_error("this device has too little shared memory per block for the window");
  plan.seconds = seconds_of(p, plan.variant->resources, plan.tiling, planes, device);
  return plan;
}

int64_t h_plane_bytes(const Params& p, int gradients) {
  Tiling t;
  t.width = int(p.width), t.height = int(p.height);
  return t.h_plane(gradients) * int64_t(sizeof(float));
}
// h may take up half of the L2 cache. Its shifts, at most a fiftieth of h, are not counted.
int64_t planes_in_cache(int64_t h_bytes, const Device& device) {
  return device.cache / 2 / h_bytes;
}

Plan plan_two(const Params& p, const Question& q) {
  const Device& device = q.device;
  const int gradients = q.gradients;
  Plan plan{};
  plan.design = Design::two;
  plan.common = q.common;
  plan.variant = &float_losses(p.radius, gradients);
  const int64_t planes = p.batch * p.channels;
  const KernelResources& losses = plan.variant->resources;
  if (!gradients) {
    plan.tiling = best_tiling(p, losses, planes, device);
    plan.seconds = seconds_of(p, losses, plan.tiling, planes, device);
    return plan;
  }
  int64_t at_once = planes_in_cache(h_plane_bytes(p, gradients), device);
  if (at_once == 0) throw std::runtime_error("a plane of h does not fit half of the L2 cache");
  const int64_t groups = ceil_div(planes, at_once);
  at_once = ceil_div(planes, groups);  // groups of equal size
  plan.planes_at_once = at_once;
  plan.gradients = &float_gradients(p.radius, gradients);
  plan.gradients_count = gradients;
  plan.gradients_common = q.plain && (q.pairs || plan.gradients->resources.columns == 1);
  const Tilings tilings = best_tilings(p, losses, plan.gradients->resources, at_once, device);
  plan.tiling = tilings.losses;
  plan.gradients_tiling = tilings.gradients;
  plan.seconds = double(groups) *
                 (seconds_of(p, losses, plan.tiling, at_once, device) +
                  seconds_of(p, plan.gradients->resources, plan.gradients_tiling, at_once, device));
  return plan;
}

Plan planned(const Params& p, const Question& q) {
  if (!q.use_double && !q.gradients) return plan_two(p, q);
  if (q.use_double || q.design == Design::one) return plan_one(p, q);
  if (q.design == Design::two) return plan_two(p, q);
  const Plan one = plan_one(p, q);
  if (planes_in_cache(h_plane_bytes(p, q.gradients), q.device) == 0) return one;
  const Plan two = plan_two(p, q);
  return two.seconds < one.seconds ? two : one;
}

}  // namespace

Plan plan_ssim(const Params& p, bool use_double, const Device& device, Design design) {
  // Planning tries hundreds of tilings, about 15 us on the host, so each host thread caches its
  // last plans.
  struct Kept {
    Question question;
    Plan plan;
  };
  constexpr size_t kKept = 16;
  thread_local std::array<Kept, kKept> kept{};
  const Question question(p, use_double, device, design);
  const auto hash = uint64_t(p.batch * 31 + p.channels * 37 + p.height * 41 + p.width * 43 +
                             p.radius * 3 + question.gradients);
  Kept& own = kept[hash % kKept];
  if (!(own.question == question)) own = {question, planned(p, question)};
  return own.plan;
}

}  // namespace lamp_kernels::cuda
