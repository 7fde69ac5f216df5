// Runs the CUDA kernels on the CPU, on the cases of ../cpu/cases.h. Accepts the arguments of
// cases.h, and in addition
//   --only shapes   every variant for the radii, on shapes that end inside strips and bands
//   --only few      a few of these, for slow sanitizers
//   --only planes   more planes than grid.y or grid.z can hold
//   --only far      rows so far apart that element offsets exceed 32 bits (radius 2)
//   --only scaling  the multiplication in the backward pass
//   --only sums     sums from tiles to images and to the batch, of few tiles and of very many
// A call must return the same bits for every order of blocks and threads. The exit status is 1 if
// anything fails.
#include <sys/mman.h>

#include <array>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <utility>

#include "../cpu/cases.h"
#include "cuda/launch.h"
#include "cuda/sums.h"
#include "cuda/variants.h"
#include "engine.h"

namespace {

using cuda_host::Order;
using lamp_kernels::kMetrics;
namespace cuda = lamp_kernels::cuda;

const cuda::Device kLarge{};  // an H100

class CudaKernels : public Kernels {
 public:
  int warps = 0;  // per block; 0: chosen by the library
  cuda::Design design = cuda::Design::fastest;
  int64_t cache = 0;       // of the device; 0: random
  bool large = false;      // use only the large device
  bool every_sum = false;  // also check the batch's sum in every order

  void compute(const Params& p, bool use_double, void* scaled_sums, int way) override {
    cuda_host::settings.order = Order(way);
    launch(p, use_double, scaled_sums, Sums::terms);
    if (!scaled_sums || (Order(way) != Order::reverse && !every_sum)) return;
    if (use_double)
      check_other_sums(p, static_cast<double*>(scaled_sums));
    else
      check_other_sums(p, static_cast<float*>(scaled_sums));
  }
  int ways(const Params&) const override { return 3; }
  const char* depends_on(int way) const override {
    return Order(way) == Order::reverse ? "differs when blocks and threads run in reverse"
                                        : "differs when blocks and threads run in random order";
  }

  // Large and small devices (the smallest have 64 KB of shared memory) and launches with few
  // blocks. Seed 0 means a large device.
  std::string vary(uint64_t seed) override {
    Random random(seed);
    device_ = kLarge;
    if (seed && !warps && !large) {
      device_.multiprocessors = random.of<int>({1, 4, 20, 132, 1000});
      device_.shared_memory = random.of<int64_t>({64, 99, 227}) * 1024;
      if (random.chance(0.4)) device_.most_blocks = random.of<int64_t>({1, 3, 50});
      // A cache with room for few h planes, or for none.
      if (random.chance(0.4)) device_.cache = random.of<int64_t>({1, 20, 100, 500}) * 1024;
    }
    if (cache) device_.cache = cache;
    cuda_host::settings.seed = seed;
    cuda_host::settings.multiprocessors = device_.multiprocessors;
    cuda_host::settings.shared_memory = size_t(device_.shared_memory);
    cuda_host::settings.cache = size_t(device_.cache);
    cuda::expect_device(0);
    const cuda::Device found = cuda::describe_device(0);
    if (found.multiprocessors != device_.multiprocessors ||
        found.shared_memory != device_.shared_memory || found.cache != device_.cache)
      fail("describe_device", "not the device that there is");
    if (std::abs(found.clock / kLarge.clock - 1) > 1e-3 ||
        std::abs(found.bandwidth / kLarge.bandwidth - 1) > 1e-2 || found.issue_cycles != 1)
      fail("describe_device", "not the speed of the device that there is");
    char text[100];
    std::snprintf(text, sizeof text, ", device (%d, %lld, %lld, %lld), design %d",
                  device_.multiprocessors, (long long)device_.shared_memory,
                  (long long)device_.most_blocks, (long long)device_.cache, int(design));
    return text;
  }

  // A call with the chosen design, or with the other one if the device has no room for it.
  cuda::Call call(const Params& p, bool use_double) const {
    cuda::Call call = of_design(p, use_double);
    if (!warps) return call;
    cuda::Plan plan = call.plan();
    const cuda::Tiling wide_one =
        cuda::tiling_of(p, plan.variant->resources, warps, plan.tiling.bands, device_);
    if (!wide_one.threads) return call;
    plan.tiling = wide_one;
    if (plan.gradients) {
      const cuda::Tilings both(wide_one, plan.gradients->resources, 2);
      plan.tiling = both.losses;
      plan.gradients_tiling = both.gradients;
    }
    call.use(plan);
    return call;
  }
  bool has_gms() const override { return false; }
  int64_t strip_width(const Params& p, bool use_double, int gradients) const override {
    Params known = p;  // of which places in memory do not count
    float some = 0;
    known.input_gradient.data = gradients ? &some : nullptr;
    known.target_gradient.data = gradients == 2 ? &some : nullptr;
    return call(known, use_double).plan().tiling.strip_width;
  }

 private:
  cuda::Device device_ = kLarge;

  cuda::Call of_design(const Params& p, bool use_double) const {
    try {
      return cuda::Call(p, use_double, device_, design);
    } catch (const std::runtime_error&) {
      if (design != cuda::Design::two) throw;
      return cuda::Call(p, use_double, device_, cuda::Design::one);
    }
  }
  void launch(const Params& p, bool use_double, void* scaled_sums, Sums sums) const {
    const cuda::Call call = this->call(p, use_double);
    const size_t numbers = size_t(call.scratch_bytes() + 7) / sizeof(double);
    const std::unique_ptr<double[]> scratch(new double[numbers]);
    std::fill_n(scratch.get(), numbers, NAN);
    call.enqueue(scaled_sums, sums, scratch.get(), nullptr);
  }

  template <class T>
  void check_other_sums(const Params& p, const T* scaled_sums) const {
    check_sums(p, scaled_sums, every_sum, [&](Sums sums, T* to) {
      launch(p, sizeof(T) == sizeof(double), to, sums);
      if (sums != Sums::batch) return;
      const Order before = std::exchange(cuda_host::settings.order, Order::forward);
      T again = T(NAN);
      launch(p, sizeof(T) == sizeof(double), &again, sums);
      cuda_host::settings.order = before;
      if (std::memcmp(&again, to, sizeof again) != 0 && !std::isnan(again))
        fail("sum of the batch", "differs in another order of threads");
    });
  }
};

// ---- Every variant -----------------------------------------------------------------------------

const cuda::KernelResources& resources(bool use_double, int radius, int gradients,
                                       cuda::Design design) {
  if (use_double) return cuda::double_one(radius, gradients).resources;
  const bool one = design == cuda::Design::one && gradients > 0;
  return (one ? cuda::float_one : cuda::float_losses)(radius, gradients).resources;
}

// The maximum width of a strip in blocks of `threads` threads. On a large device, small images get
// blocks of one warp, so this is the strip width there.
int64_t widest_strip(const cuda::KernelResources& r, int threads) {
  return r.positions(threads) - 2 * r.halo;
}

struct Seen {
  int64_t strips = 0, bands = 0, threads = 0, common = 0;
  void add(const cuda::Plan& plan) {
    for (const cuda::Tiling& t : {plan.tiling, plan.gradients_tiling}) {
      strips = std::max<int64_t>(strips, t.strips);
      bands = std::max<int64_t>(bands, t.bands);
      threads = std::max<int64_t>(threads, t.threads);
    }
    common += plan.common;
  }
};

template <class T>
cuda::Plan shape_of_variant(uint64_t seed, int radius, int gradients, Border border,
                            const Shape& shape, CudaKernels& kernels) {
  Random random(seed);
  Case<T> c;
  c.p.terms.set(Metric::ssim);
  c.p.terms.set(Metric::mse, random.chance(0.3));
  c.p.terms.set(Metric::l1, random.chance(0.3));
  c.p.border = border;
  c.set_window(radius, 1.5);
  c.set_shape(shape);
  const int wanted = gradients == 1 ? 1 + int(random.below(2)) : gradients ? 3 : 0;
  complete_and_check(c, seed, random, kernels, wanted);
  return kernels.call(c.p, sizeof(T) == sizeof(double)).plan();
}

template <class T>
void shapes_of_variant(int radius, int gradients, bool few, CudaKernels& kernels) {
  constexpr bool kWide = sizeof(T) == sizeof(double);
  const cuda::KernelResources& r = resources(kWide, radius, gradients, kernels.design);
  const int64_t strip = widest_strip(r, cuda::kWarp);
  const int64_t bands = 8 * radius + 3;  // enough rows for several bands, with or without a halo
  Seen most;
  uint64_t seed = uint64_t(radius * 100 + gradients * 10 + kWide) * 1000;
  kernels.large = few;
  for (const Border border : {Border::reflect, Border::valid, Border::zeros}) {
    if (few && int(border) != gradients) continue;  // ThreadSanitizer creates threads slowly
    const int64_t least = border == Border::zeros   ? 1
                          : border == Border::valid ? 2 * radius + 1
                                                    : radius + 1;
    // Wide enough for the two-launch design, whose blocks have 2 warps.
    std::vector<Shape> shapes = {{1, 1, bands, 2 * strip + 1}};
    if (!few)
      shapes = {{1, 1, least, least},          // the smallest image
                {1, 2, least + 1, strip - 1},  // less than a strip
                {2, 1, bands, strip},          // exactly one
                {1, 1, bands, strip + 1},
                {1, 1, least, 2 * strip},
                {2, 2, bands + 1, 2 * strip + 3}};
    for (const Shape& shape : shapes) {
      const Shape grown{shape.batch, shape.channels, std::max(shape.height, least),
                        std::max(shape.width, least)};
      most.add(shape_of_variant<T>(++seed, radius, gradients, border, grown, kernels));
    }
  }
  kernels.large = false;
  if (most.strips < 2 || most.bands < 2)
    fail("shapes", "no image has several strips, or none several bands");
  if (few) return;
  // The largest blocks, on two strips, one of them narrow.
  kernels.warps = cuda::kMostWarps;
  constexpr int kThreads = cuda::kMostWarps * cuda::kWarp;
  const Shape shape{1, 1, radius + 2, widest_strip(r, kThreads) + 3};
  Seen large;
  large.add(shape_of_variant<T>(++seed, radius, gradients, Border::reflect, shape, kernels));
  kernels.warps = 0;
  if (r.shared_memory(kThreads) <= kLarge.shared_memory && large.threads != kThreads)
    fail("shapes", "no image takes the largest block");
}

// ---- The common paths --------------------------------------------------------------------------

// Layouts of the input, the target and the gradients.
using Layouts = std::array<Layout, 3>;

// An SSIM case without other terms.
Case<float> ssim_alone(uint64_t seed, int radius, int gradients, Border border, const Shape& s,
                       const Layouts& layouts, Dtype dtype = Dtype::float32) {
  Random random(seed);
  Case<float> c;
  c.p.terms.set(Metric::ssim);
  c.p.border = border;
  c.p.amplify = seed % 4 != 0 ? Amplify::log : Amplify::none;
  c.set_window(radius, 1.5);
  c.set_shape(s);
  c.input = Input(dtype, layouts[0], s);
  c.target = Input(dtype, layouts[1], s);
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t k = 0; k < s.channels; ++k)
      for (int64_t i = 0; i < s.height; ++i)
        for (int64_t j = 0; j < s.width; ++j) {
          const double y = 0.2 + 0.7 * random.uniform();
          c.target.set(n, k, i, j, y);
          c.input.set(n, k, i, j, y + 0.1 * (2 * random.uniform() - 1));
        }
  for (int64_t n = 0; n < s.batch * kMetrics; ++n)
    c.factors.push_back(0.5f + float(random.uniform()));
  if (gradients >= 1) c.input_gradient = Output<float>(layouts[2], s);
  if (gradients == 2) c.target_gradient = Output<float>(layouts[2], s);
  return c;
}

void run_and_check(Case<float>& c, const std::string& name, CudaKernels& kernels) {
  c.name = name + ", radius " + std::to_string(c.p.radius) + ", border " +
           std::to_string(int(c.p.border)) + kernels.vary(0);
  c.run(kernels);
  check(c, {1e-5, 1e-5, 4e-5});
  check_all_ways(c, kernels);
}

// Dense images, one after another in memory: handled by the variants without the rare features.
void common_ways(int radius, bool few, CudaKernels& kernels) {
  uint64_t seed = uint64_t(radius) * 77;
  for (const Border border : {Border::reflect, Border::valid, Border::zeros})
    for (int gradients = 0; gradients <= 2; ++gradients)
      for (const Shape& s : {Shape{2, 3, 4 * radius + 3, 70}, Shape{1, 1, 2 * radius + 1, 130}}) {
        ++seed;
        if (few && (gradients != 1 || s.batch > 1 || border != Border::reflect)) continue;
        const Layout l = contiguous(s);
        Case<float> c = ssim_alone(seed, radius, gradients, border, s, {l, l, l});
        run_and_check(c, "common, gradients " + std::to_string(gradients), kernels);
        const cuda::Plan plan = kernels.call(c.p, false).plan();
        const bool two = plan.design == cuda::Design::two;
        if ((two && (!plan.common || (gradients && !plan.gradients_common))) ||
            (!two && gradients == 1 && !plan.common))
          fail(c.name, "does not use the common variants");
      }
}

void use_power(Params& p) {
  p.amplify = Amplify::power;
  p.amplify_parameters[0] = 3;    // gamma
  p.amplify_parameters[1] = 0.5;  // delta
}

// Cases with one feature that the common path does not support.
void nearly_common(int radius, CudaKernels& kernels) {
  constexpr Border kReflect = Border::reflect;
  const Shape s{2, 2, 2 * radius + 4, 34};  // even rows, so that planes of odd rows are even
  const Layout l = contiguous(s);
  uint64_t seed = uint64_t(radius) * 99;
  // The common path accesses two columns at once; each layout prevents that for one tensor.
  const std::pair<const char*, Layout> odd[] = {
      {"first element", {l.batch, l.channel, l.row, 1, 1}},
      {"row", {2 * (l.channel + s.height), l.channel + s.height, l.row + 1, 1}},
      {"channel", {2 * (l.channel + 1), l.channel + 1, l.row, 1}},
      {"image", {l.batch + 1, l.channel, l.row, 1}},
      {"column", {2 * l.batch, 2 * l.channel, 2 * l.row, 2}},
  };
  for (const auto& [what, layout] : odd)
    for (size_t tensor = 0; tensor < 3; ++tensor) {
      Layouts layouts{l, l, l};
      layouts[tensor] = layout;
      Case<float> c = ssim_alone(++seed, radius, 1, kReflect, s, layouts);
      run_and_check(c, "tensor " + std::to_string(tensor) + ", odd " + what, kernels);
    }
  {
    const Shape narrow{1, 1, s.height, 33};
    const Layout padded{34 * s.height, 34 * s.height, 34, 1};
    Case<float> c = ssim_alone(++seed, radius, 1, kReflect, narrow, {padded, padded, padded});
    run_and_check(c, "an odd width in even rows", kernels);
  }
  {
    const Shape low{1, 1, radius + 1, 34};
    const Layout dense = contiguous(low);
    Case<float> c = ssim_alone(++seed, radius, 1, kReflect, low, {dense, dense, dense});
    run_and_check(c, "as few rows as reflect", kernels);
  }
  {
    Case<float> c = ssim_alone(++seed, radius, 1, kReflect, s, {l, l, l}, Dtype::bfloat16);
    run_and_check(c, "half", kernels);
  }
  for (const Metric metric : {Metric::mse, Metric::l1, Metric::charbonnier}) {
    Case<float> c = ssim_alone(++seed, radius, 1, kReflect, s, {l, l, l});
    c.p.terms.set(metric);
    run_and_check(c, "with a pointwise term", kernels);
  }
  {
    Case<float> c = ssim_alone(++seed, radius, 1, kReflect, s, {l, l, l});
    use_power(c.p);
    run_and_check(c, "with power", kernels);
  }
  for (const int gradients : {1, 2}) {
    Case<float> c = ssim_alone(++seed, radius, gradients, kReflect, s, {l, l, l});
    c.ranges = {0.75f, 1.5f};
    c.p.scale = NAN;  // not to be used
    run_and_check(c, "with a range per image", kernels);
  }
  for (const int gradients : {0, 1}) {
    Case<float> c = ssim_alone(++seed, radius, gradients, kReflect, s, {l, l, l});
    Random random(seed);
    if (gradients)
      add_weight(Dtype::float32, s, random, c.weight);
    else
      c.map = Output<float>(l, s);
    run_and_check(c, gradients ? "with a weight" : "with a map", kernels);
  }
}

// Three planes, with room for the h planes of two.
void groups_of_planes(int radius, CudaKernels& kernels) {
  const Shape s{1, 3, 2 * radius + 1, 34};
  const Layout l = contiguous(s);
  Case<float> c = ssim_alone(uint64_t(radius), radius, 1, Border::reflect, s, {l, l, l});
  const int64_t h_bytes = 3 * s.height * s.width * int64_t(sizeof(float));
  kernels.cache = 2 * (2 * h_bytes);  // h may use half of it
  run_and_check(c, "groups of planes", kernels);
  if (kernels.call(c.p, false).plan().planes_at_once != 2)
    fail(c.name, "does not use two planes at once");
  kernels.cache = 0;
}

// Cases with slightly more pixels than one block processes.
template <class T>
void pixels(bool few, CudaKernels& kernels) {
  for (int wanted = 0; wanted <= 3; wanted += few ? 3 : 1) {
    const uint64_t seed = uint64_t(10 * wanted) + sizeof(T);
    Random random(seed);
    Case<T> c;
    c.p.terms.set(Metric::mse, wanted != 1);
    c.p.terms.set(Metric::l1, wanted != 2);
    c.p.terms.set(Metric::charbonnier, wanted == 3);
    if (wanted == 2) use_power(c.p);
    c.set_shape({2, 1, 10, (cuda::kPixelThreads * cuda::kPixelsOfAThread + 100) / 10});
    complete_and_check(c, seed, random, kernels, wanted);
  }
}

void shapes(bool few, const Arguments& arguments, CudaKernels& kernels) {
  for (const int radius : arguments.radii)
    for (int gradients = 0; gradients <= 2; ++gradients) {
      shapes_of_variant<double>(radius, gradients, few, kernels);
      for (const cuda::Design design : {cuda::Design::one, cuda::Design::two}) {
        if (!gradients && design == cuda::Design::one) continue;
        kernels.design = design;
        shapes_of_variant<float>(radius, gradients, few, kernels);
        if (gradients != 1) continue;
        common_ways(radius, few, kernels);
        if (!few) nearly_common(radius, kernels);
        if (design == cuda::Design::two) groups_of_planes(radius, kernels);
      }
      kernels.design = cuda::Design::fastest;
    }
  pixels<float>(few, kernels);
  pixels<double>(few, kernels);
}

// ---- The multiplication in the backward pass ---------------------------------------------------

// Unaligned images of about the size that a block processes, in one and in several launches.
template <class T>
void scaling() {
  constexpr int64_t kChunk = cuda::kScaleBytes / sizeof(T);
  for (const int64_t size : {int64_t(1), int64_t(7), kChunk, 2 * kChunk + 5})
    for (const int64_t most_blocks : {int64_t(1) << 30, int64_t(2)}) {
      const T factors[] = {T(-0.5), NAN, T(1), NAN, T(3), NAN};  // 2 apart
      const std::unique_ptr<T[]> gradient(new T[size_t(3 * size)]);
      for (int64_t i = 0; i < 3 * size; ++i) gradient[size_t(i)] = T(i % 97 + 1);
      cuda::scale(gradient.get(), factors, 2, 3, size, sizeof(T) == 8, {.most_blocks = most_blocks},
                  nullptr);
      for (int64_t i = 0; i < 3 * size; ++i)
        if (gradient[size_t(i)] != factors[2 * (i / size)] * T(i % 97 + 1))
          return fail("scaling", "not the product", double(gradient[size_t(i)]), double(i));
    }
}

// ---- Sums --------------------------------------------------------------------------------------

// Sums of one tile and of several; of one image, of many and of none; of enough tiles that the
// batch's block has its maximum number of threads; in one launch and, on some devices, in several.
template <class T>
void sums(const Arguments& arguments, CudaKernels& kernels) {
  const int64_t pixels = cuda::kPixelThreads * cuda::kPixelsOfAThread;  // per tile
  kernels.every_sum = true;
  uint64_t seed = 10'000;
  for (const Shape s :
       {Shape{1, 1, 1, 1}, Shape{1, 1, 3, pixels}, Shape{3, 2, 5, 7}, Shape{7, 1, 2, pixels + 1},
        Shape{cuda::kBatchThreads + 1, 1, 1, 2}, Shape{2, cuda::kManyTiles / 2 + 50, 1, 1}})
    for (const bool l1 : {false, true}) {
      const bool many = s.batch * s.channels > cuda::kManyTiles;  // which takes seconds
      if (many && l1 != (sizeof(T) == sizeof(double))) continue;
      const int before = std::exchange(most_ways, many ? 1 : most_ways);
      Random random(++seed);
      Case<T> c;
      c.p.terms.set(Metric::mse);
      c.p.terms.set(Metric::l1, l1);
      c.shared = true;
      c.set_shape(s);
      complete_and_check(c, seed, random, kernels, int(l1));
      most_ways = before;
    }
  for (const int64_t batch : {int64_t(2), int64_t(300)}) {
    Random random(++seed);
    Case<T> c;
    c.p.terms.set(Metric::ssim), c.p.terms.set(Metric::l1);
    c.p.border = Border::zeros;
    c.shared = true;
    c.set_window(arguments.radii[0], 1.5);
    c.set_shape({batch, 1, 1, 2});
    complete_and_check(c, seed, random, kernels, 1);
  }
  Case<T> none;
  none.name = "no image";
  none.p.terms.set(Metric::l1);
  none.shared = true;
  none.factors = {T(1)};
  const Shape s{0, 3, 4, 4};
  none.set_shape(s);
  none.input = Input(kDtype<T>, contiguous(s), s);
  none.target = Input(kDtype<T>, contiguous(s), s);
  none.run(kernels);
  kernels.every_sum = false;
}

// ---- Beyond 32 bits ----------------------------------------------------------------------------

// Rows so far apart that the offset of the last one, in elements, exceeds a 32-bit integer.
struct Far {
  static constexpr int64_t kRow = int64_t(1) << 29, kRows = 8;
  static constexpr size_t kBytes = size_t(kRow * kRows) * sizeof(float);
  float* data;

  Far() {  // untouched pages use no memory
    void* const found = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED) throw std::runtime_error("no address space for distant rows");
    data = static_cast<float*>(found);
  }
  ~Far() { munmap(data, kBytes); }
  Far(const Far&) = delete;
};

void far_rows(CudaKernels& kernels) {
  // SSIM with a weight, SSIM on the common path, and a pointwise loss with a weight.
  for (const auto [ssim, weighted] : {std::pair{true, true}, {true, false}, {false, true}}) {
    Case<float> c;
    c.name = ssim ? "distant rows" : "distant rows, pointwise";
    c.p.terms.set(Metric::ssim, ssim);
    c.p.terms.set(Metric::mse, !ssim);
    c.p.border = ssim ? Border::zeros : Border::reflect;
    c.set_window(2, 1.5);
    const Shape s{1, 1, Far::kRows, 40};
    c.set_shape(s);
    Random random(ssim);
    c.input = Input(Dtype::float32, contiguous(s), s);
    c.target = Input(Dtype::float32, contiguous(s), s);
    if (weighted) c.weight = Input(Dtype::float32, contiguous(s), s);
    const Far x, y, weight, by_x, by_y;
    for (int64_t i = 0; i < s.height; ++i)
      for (int64_t j = 0; j < s.width; ++j) {
        const auto put = [&](Input& near, const Far& far, double v) {
          near.set(0, 0, i, j, v);
          far.data[i * Far::kRow + j] = float(v);
        };
        const double v = random.uniform();
        put(c.target, y, v);
        put(c.input, x, v + 0.1 * random.normal());
        if (weighted) put(c.weight, weight, 0.5 + random.uniform());
      }
    c.factors = {1.0f};
    c.input_gradient = Output<float>(contiguous(s), s);
    c.target_gradient = Output<float>(contiguous(s), s);
    kernels.vary(0);
    c.run(kernels);
    check(c, {1e-5, 1e-5, 4e-5});
    Params p = c.p;
    p.input.data = x.data;
    p.target.data = y.data;
    if (weighted) p.weight.data = weight.data;
    p.input_gradient.data = by_x.data;
    p.target_gradient.data = by_y.data;
    p.input.row = p.target.row = p.weight.row = Far::kRow;
    p.input_gradient.row = p.target_gradient.row = Far::kRow;
    float share = NAN;
    kernels.compute(p, false, &share, 0);
    bool same = share == c.scaled_sums[0];
    for (int64_t i = 0; i < s.height; ++i)
      for (int64_t j = 0; j < s.width; ++j)
        same = same && by_x.data[i * Far::kRow + j] == c.input_gradient.get(0, 0, i, j) &&
               by_y.data[i * Far::kRow + j] == c.target_gradient.get(0, 0, i, j);
    if (!same) fail(c.name, "not what the same rows give side by side");
  }
}

// ---- Many planes -------------------------------------------------------------------------------

// grid.y and grid.z are limited to 65,535. So many blocks take seconds, so this runs in one order
// and only the losses of SSIM; all SSIM kernels number their blocks the same way.
void planes(const Arguments& arguments, CudaKernels& kernels) {
  const int before = std::exchange(most_ways, 1);
  for (const bool ssim : {true, false}) {
    Random random(ssim);
    Case<float> c;
    c.p.terms.set(Metric::ssim, ssim);
    c.p.terms.set(Metric::l1, !ssim);
    c.p.border = ssim ? Border::zeros : Border::reflect;
    if (ssim) c.set_window(arguments.radii[0], 1.5);
    c.set_shape({2, 33'000, 1, 2});
    complete_and_check(c, 1 + ssim, random, kernels, ssim ? 0 : 3);
  }
  most_ways = before;
}

}  // namespace

int main(int count, char** values) {
  const Arguments arguments = parse(count, values);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // keep the output printed before a crash
  cuda_host::settings.asks_for_all = true;
  CudaKernels kernels;
  if (arguments.wants("shapes")) shapes(false, arguments, kernels);
  if (arguments.only == "few") shapes(true, arguments, kernels);
  if (arguments.wants("planes")) planes(arguments, kernels);
  if (arguments.wants("far")) far_rows(kernels);
  if (arguments.wants("scaling")) scaling<float>(), scaling<double>();
  if (arguments.wants("sums")) sums<float>(arguments, kernels), sums<double>(arguments, kernels);
  run_cases(arguments, kernels);
  std::printf("%d failures\n", failures);
  return failures != 0;
}
