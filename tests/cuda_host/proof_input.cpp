// Prints one kernel's launch on a small image, with 2 x 2 blocks, as input for sentryward: the
// launch made by variants.cuh and each field of its parameter.
//
//   proof_input one|losses|gradients NAME_OF_THE_ENTRY
#include <cstdio>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "cuda_host.h"

#undef LAMP_LAUNCH
#define LAMP_LAUNCH(kernel, grid, block, shared, stream, arguments) \
  print_launch((grid), (block), (shared), arguments)

namespace {

const char* entry;

template <class Arguments>
void print_launch(unsigned grid, unsigned block, int shared, const Arguments& arguments);

}  // namespace

#include "cuda/variants.cuh"

namespace {

using namespace lamp_kernels;

class Fields {
 public:
  explicit Fields(const void* begin) : begin_(static_cast<const char*>(begin)) {}

  template <class T>
  void add(const T& field) {
    if constexpr (std::is_enum_v<T>) {
      number(&field, "s32", "%lld", (long long)field);
    } else if constexpr (std::is_pointer_v<T>) {
      // Addresses are numbers, because the kernel's path depends on their alignment.
      if (field)
        number(&field, "u64", "%llu", (unsigned long long)uintptr_t(field));
      else
        number(&field, "pointer", "null");
    } else if constexpr (std::is_same_v<T, bool>) {
      number(&field, "u8", "%d", int(field));
    } else if constexpr (std::is_floating_point_v<T>) {
      number(&field, sizeof(T) == 4 ? "f32" : "f64", "%.17g", double(field));
    } else {
      static_assert(sizeof(T) == 4 || sizeof(T) == 8);
      const char* const type = std::is_signed_v<T> ? sizeof(T) == 4 ? "s32" : "s64"
                               : sizeof(T) == 4    ? "u32"
                                                   : "u64";
      number(&field, type, "%lld", (long long)field);
    }
  }
  template <class T, class... Others>
  void add(const T& one, const Others&... others) {
    add(one);
    (add(others), ...);
  }
  template <class T, size_t n>
  void add(const T (&list)[n]) {
    for (const T& one : list) add(one);
  }

 private:
  const char* begin_;
  const char* separator_ = "";

  template <class... Values>
  void number(const void* field, const char* type, const char* format, Values... values) {
    std::printf("%s\n{\"parameter\": 0, \"offset\": %d, \"type\": \"%s\", \"value\": ", separator_,
                int(static_cast<const char*>(field) - begin_), type);
    std::printf(format, values...);
    std::printf("}");
    separator_ = ",";
  }
};

template <class Arguments>
void print_launch(unsigned grid, unsigned block, int shared, const Arguments& a) {
  std::printf("{\"schema\": \"spverify.kernel-input/v1\", \"entry\": \"%s\",\n", entry);
  std::printf("\"launch\": {\"grid_dim\": [%u, 1, 1], \"block_dim\": [%u, 1, 1], ", grid, block);
  std::printf("\"dynamic_shared_bytes\": %d},\n\"arguments\": [", shared);
  Fields fields(&a);
  const Params& p = a.p;
  fields.add(p.batch, p.channels, p.height, p.width, p.terms.bits);
  fields.add(p.metric_parameters);
  fields.add(p.amplify);
  fields.add(p.amplify_parameters);
  fields.add(p.scale, p.radius, p.border);
  fields.add(p.taps);
  fields.add(p.c1, p.c2, p.ssim_scale);
  for (const ConstTensorView* s : {&p.input, &p.target, &p.weight, &p.mask})
    fields.add(s->data, s->dtype, s->batch, s->channel, s->row, s->column);
  fields.add(p.data_ranges, p.data_range_stride);
  fields.add(p.factors);
  fields.add(p.shared_factors);
  for (const TensorView* s : {&p.input_gradient, &p.target_gradient, &p.map})
    fields.add(s->data, s->batch, s->channel, s->row, s->column);
  const auto add_tiling = [&](const cuda::TileGrid& t) {
    fields.add(t.channels, t.height, t.width, t.strips, t.strip_width, t.bands, t.band_height,
               t.threads);
    for (const cuda::Divisor* d : {&t.by_channels, &t.by_plane, &t.by_bands, &t.by_strip_width})
      fields.add(d->factor, d->shift);
  };
  add_tiling(a.tiling);
  fields.add(a.tiles.first, a.tiles.plane, a.tiles.rest);
  fields.add(a.tap);
  fields.add(a.rows_to_follow);
  fields.add(a.scale, a.constants.c1, a.constants.c2, a.constants.a, a.constants.shift_d,
             a.constants.shift_s);
  const auto& formula = a.formula;
  fields.add(formula.terms.bits, formula.amplification.kind);
  fields.add(formula.amplification.constants);
  fields.add(formula.parameter);
  fields.add(a.common, a.partial, a.first_h_plane, a.h, a.shifts);
  std::printf("]}\n");
}

}  // namespace

void lamp_kernels::cuda::check(cudaError_t, const char*) {}

namespace {

constexpr int kRadius = 5;
constexpr int64_t kHeight = 44, kWidth = 100;

void* place(uint64_t i) { return reinterpret_cast<void*>(i << 32); }  // far apart

Params params() {
  Params p{};
  p.batch = p.channels = 1;
  p.height = kHeight;
  p.width = kWidth;
  p.terms.set(Metric::ssim);
  p.amplify = Amplify::log;
  p.amplify_parameters[0] = 1e-2;  // eps
  p.scale = 1;
  p.radius = kRadius;
  p.border = Border::reflect;
  for (int k = 0; k <= kRadius; ++k) p.taps[k] = 1.0 / (2 * kRadius + 1);
  p.c1 = 1e-4;
  p.c2 = 9e-4;
  p.ssim_scale = 0.5;
  p.input = {place(1), Dtype::float32, kHeight * kWidth, kHeight * kWidth, kWidth, 1};
  p.target = p.input;
  p.target.data = place(2);
  p.input_gradient = {place(3), kHeight * kWidth, kHeight * kWidth, kWidth, 1};
  p.factors = place(4);
  return p;
}

template <class Kernel>
void print(const cuda::Tiling& tiling) {
  if (tiling.strips != 2 || tiling.bands != 2) throw std::runtime_error("not 2 x 2 blocks");
  const Params p = params();
  const cuda::Device device;
  cuda::launch<Kernel>({p, tiling, tiling.range(0), tiling.tiles_per_plane(), true,
                        static_cast<double*>(place(5)), 0, place(6), place(7), device, nullptr});
}

// A tiling with two bands and `warps` warps per block.
template <class Kernel>
cuda::Tiling tiling(int warps) {
  return cuda::tiling_of(params(), Kernel::kResources, warps, 2, cuda::Device{});
}

}  // namespace

int main(int count, char** values) {
  if (count != 3) return 2;
  entry = values[2];
  using One = cuda::OneLaunch<float, kRadius, 1, true>;
  using Losses = cuda::Losses<kRadius, 1>;
  using Gradients = cuda::Gradients<kRadius, 1>;
  const cuda::Tilings two(tiling<Losses>(2), Gradients::kResources, 1);
  const std::string kernel = values[1];
  if (kernel == "one")
    print<One>(tiling<One>(1));
  else if (kernel == "losses")
    print<Losses>(two.losses);
  else if (kernel == "gradients")
    print<Gradients>(two.gradients);
  else
    return 2;
}
