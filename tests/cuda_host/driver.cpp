// Runs the CUDA kernels on the CPU, on the cases of ../cpu/cases.h, whose arguments it takes, and
//   --only shapes   every variant of the radii, on shapes that end in the middle of things
//   --only few      a few of these, where each takes long
//   --only planes   more planes than grid.y or grid.z could count
// A call must give the same bits whatever the order of blocks and threads. Exit status 1 if
// anything is wrong.
#include <cstdio>
#include <memory>
#include <utility>

#include "../cpu/cases.h"
#include "cuda/launch.h"
#include "cuda/variants.h"
#include "engine.h"

namespace {

using cuda_host::Order;
namespace cuda = lamp_kernels::cuda;

constexpr cuda::Device kLarge{132, 227 * 1024}, kSmall{1, 227 * 1024};

const cuda::Demands& demands(bool wide, int radius, int gradients) {
  return (wide ? cuda::double_variant : cuda::float_variant)(radius, gradients).demands;
}

class CudaKernels : public Kernels {
 public:
  bool small = false;  // always the smallest device

  void compute(const Params& p, bool wide, void* shares, int way) override {
    cuda_host::settings.order = Order(way);
    launch(p, wide, shares, true);
    if (!shares || Order(way) != Order::reverse) return;
    if (wide) check_sums_of_terms<double>(p, static_cast<double*>(shares));
    else check_sums_of_terms<float>(p, static_cast<float*>(shares));
  }
  int ways(const Params&) const override { return 3; }
  const char* depends_on(int way) const override {
    return Order(way) == Order::reverse ? "differs when blocks and threads run in reverse"
                                        : "differs when blocks and threads run in random order";
  }

  // Devices large and small (64 KB are the least that there is), and launches of few blocks; seed 0
  // is a large device.
  std::string vary(uint64_t seed) override {
    Random random(seed);
    device_ = kLarge;
    if (small) {
      device_ = kSmall;
    } else if (seed) {
      device_.multiprocessors = random.of<int>({1, 4, 20, 132, 1000});
      device_.shared_memory = random.of<int64_t>({64, 99, 227}) * 1024;
      if (random.chance(0.4)) device_.most_blocks = random.of<int64_t>({1, 3, 50});
    }
    cuda_host::settings.seed = seed;
    cuda_host::settings.multiprocessors = device_.multiprocessors;
    cuda_host::settings.shared_memory = size_t(device_.shared_memory);
    const cuda::Device found = cuda::current_device(0);
    if (found.multiprocessors != device_.multiprocessors ||
        found.shared_memory != device_.shared_memory)
      fail("current_device", "not the device that there is");
    char text[100];
    std::snprintf(text, sizeof text, ", device (%d, %lld, %lld)", device_.multiprocessors,
                  (long long)device_.shared_memory, (long long)device_.most_blocks);
    return text;
  }

  cuda::Tiling tiling(const Params& p, bool wide, int gradients) const {
    return cuda::ssim_tiling(p, demands(wide, p.radius, gradients), device_);
  }
  int64_t strip_width(const Params& p, bool wide, int gradients) const override {
    return tiling(p, wide, gradients).strip_width;
  }

 private:
  cuda::Device device_ = kLarge;

  void launch(const Params& p, bool wide, void* shares, bool per_term) const {
    const int64_t size = cuda::partial_size(p, wide, device_);
    const std::unique_ptr<double[]> partial(new double[size_t(size)]);
    std::fill_n(partial.get(), size, NAN);
    cuda::compute(p, wide, shares, per_term, partial.get(), device_, nullptr);
  }

  // The other form of the sums, (N,).
  template <class T>
  void check_sums_of_terms(const Params& p, const T* shares) const {
    std::vector<T> sums(size_t(p.batch), T(NAN));
    launch(p, sizeof(T) == sizeof(double), sums.data(), false);
    for (int64_t image = 0; image < p.batch; ++image) {
      T sum = 0;
      for (int term = 0; term < p.terms(); ++term) sum += shares[image * p.terms() + term];
      if (std::memcmp(&sum, &sums[size_t(image)], sizeof sum) != 0 && !std::isnan(sum))
        fail("sums of terms", "not what the terms add up to", double(sums[size_t(image)]),
             double(sum));
    }
  }
};

// ---- Every variant -----------------------------------------------------------------------------

// As wide as a strip can be for blocks of so many threads. A large device takes small images in
// blocks of one warp, so that this is a strip there.
int64_t widest_strip(bool wide, int radius, int gradients, int threads) {
  const cuda::Demands& d = demands(wide, radius, gradients);
  return d.positions(threads) - 2 * d.halo;
}

struct Seen {
  int64_t strips = 0, bands = 0;
};

template <class T>
cuda::Tiling shape_of_variant(uint64_t seed, int radius, int gradients, Border border,
                              const Shape& shape, CudaKernels& kernels) {
  Random random(seed);
  Case<T> c;
  c.p.ssim = true;
  c.p.mse = random.chance(0.3);
  c.p.l1 = random.chance(0.3);
  c.p.border = border;
  c.set_window(radius, 1.5);
  c.set_shape(shape);
  const int wanted = gradients == 1 ? 1 + int(random.below(2)) : gradients ? 3 : 0;
  complete_and_check(c, seed, random, kernels, wanted);
  return kernels.tiling(c.p, sizeof(T) == sizeof(double), gradients);
}

template <class T>
void shapes_of_variant(int radius, int gradients, bool few, CudaKernels& kernels) {
  constexpr bool kWide = sizeof(T) == sizeof(double);
  const int64_t strip = widest_strip(kWide, radius, gradients, cuda::kWarp);
  const int64_t bands = 8 * radius + 3;  // rows enough for several bands, with or without a halo
  Seen most;
  uint64_t seed = uint64_t(radius * 100 + gradients * 10 + kWide) * 1000;
  for (const Border border : {Border::reflect, Border::valid, Border::zeros}) {
    const int64_t least = border == Border::zeros    ? 1
                          : border == Border::valid ? 2 * radius + 1
                                                    : radius + 1;
    std::vector<Shape> shapes = {{1, 2, bands, strip + 1}};
    if (!few)
      shapes = {{1, 1, least, least},          // the smallest there is
                {1, 2, least + 1, strip - 1},  // less than a strip
                {2, 1, bands, strip},          // exactly one
                {1, 1, bands, strip + 1},
                {1, 1, least, 2 * strip},
                {2, 2, bands + 1, 2 * strip + 3}};
    for (const Shape& shape : shapes) {
      const Shape grown{shape.batch, shape.channels, std::max(shape.height, least),
                        std::max(shape.width, least)};
      const cuda::Tiling tiling =
          shape_of_variant<T>(++seed, radius, gradients, border, grown, kernels);
      most.strips = std::max(most.strips, tiling.strips);
      most.bands = std::max(most.bands, tiling.bands);
    }
  }
  if (most.strips < 2 || most.bands < 2)
    fail("shapes", "no image has several strips, or none several bands");
  if (few) return;
  // On the smallest device one wide strip takes the largest block; without a halo, two of half the
  // size as well.
  constexpr int kThreads = cuda::kMostWarps * cuda::kWarp;
  const Shape shape{1, 1, radius + 2, widest_strip(kWide, radius, gradients, kThreads)};
  kernels.small = true;
  const cuda::Tiling tiling =
      shape_of_variant<T>(++seed, radius, gradients, Border::reflect, shape, kernels);
  kernels.small = false;
  const bool fits =
      demands(kWide, radius, gradients).shared_memory(kThreads) <= kSmall.shared_memory;
  if (fits && gradients && tiling.threads != kThreads)
    fail("shapes", "no image takes the largest block");
}

// Of a few pixels more than a block takes.
template <class T>
void pixels(bool few, CudaKernels& kernels) {
  for (int wanted = 0; wanted <= 3; wanted += few ? 3 : 1) {
    const uint64_t seed = uint64_t(10 * wanted) + sizeof(T);
    Random random(seed);
    Case<T> c;
    c.p.mse = wanted != 1;
    c.p.l1 = wanted != 2;
    c.set_shape({2, 1, 10, (cuda::kPixelThreads * cuda::kPixelsOfAThread + 100) / 10});
    complete_and_check(c, seed, random, kernels, wanted);
  }
}

void shapes(bool few, const Arguments& arguments, CudaKernels& kernels) {
  for (const int radius : arguments.radii)
    for (int gradients = 0; gradients <= 2; ++gradients) {
      shapes_of_variant<float>(radius, gradients, few, kernels);
      shapes_of_variant<double>(radius, gradients, few, kernels);
    }
  pixels<float>(few, kernels);
  pixels<double>(few, kernels);
}

// ---- Many planes -------------------------------------------------------------------------------

// Limits of grid.y and grid.z are 65,535. So many blocks take seconds: in one order.
void planes(const Arguments& arguments, CudaKernels& kernels) {
  const int before = std::exchange(most_ways, 1);
  for (const bool ssim : {true, false}) {
    Random random(ssim);
    Case<float> c;
    c.p.ssim = ssim;
    c.p.l1 = !ssim;
    c.p.border = ssim ? Border::zeros : Border::reflect;
    if (ssim) c.set_window(arguments.radii[0], 1.5);
    c.set_shape({2, 33'000, 1, 2});
    complete_and_check(c, 1 + ssim, random, kernels, 3);
  }
  most_ways = before;
}

}  // namespace

int main(int count, char** values) {
  const Arguments arguments = parse(count, values);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // a crash leaves what was said before
  CudaKernels kernels;
  if (arguments.wants("shapes")) shapes(false, arguments, kernels);
  if (arguments.only == "few") shapes(true, arguments, kernels);
  if (arguments.wants("planes")) planes(arguments, kernels);
  run_cases(arguments, kernels);
  std::printf("%d failures\n", failures);
  return failures != 0;
}
