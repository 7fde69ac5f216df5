// Runs the CUDA kernels on the CPU, on the cases of ../cpu/cases.h, whose arguments it takes, and
//   --only shapes   every variant of the radii, on shapes that end in the middle of things
//   --only few      a few of these, where each takes long
//   --only planes   more planes than grid.y or grid.z could count
//   --only far      rows so far apart that 32 bits do not count the elements between (radius 2)
//   --only scaling  backward's multiplication
// A call must give the same bits whatever the order of blocks and threads. Exit status 1 if
// anything is wrong.
#include <sys/mman.h>

#include <cstdio>
#include <memory>
#include <stdexcept>
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
    const cuda::Call call(p, wide, device_);
    const std::unique_ptr<double[]> partial(new double[size_t(call.partial_size())]);
    std::fill_n(partial.get(), call.partial_size(), NAN);
    call.enqueue(shares, per_term, partial.get(), nullptr);
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

// ---- Backward's multiplication -----------------------------------------------------------------

// Images of sizes about a block's and not aligned, in one launch and in several.
template <class T>
void scaling() {
  constexpr int64_t kChunk = cuda::kScaleBytes / sizeof(T);
  for (const int64_t size : {int64_t(1), int64_t(7), kChunk, 2 * kChunk + 5})
    for (const int64_t most_blocks : {int64_t(1) << 30, int64_t(2)}) {
      const T factors[] = {T(-0.5), NAN, T(1), NAN, T(3), NAN};  // 2 apart
      const std::unique_ptr<T[]> gradient(new T[size_t(3 * size)]);
      for (int64_t i = 0; i < 3 * size; ++i) gradient[size_t(i)] = T(i % 97 + 1);
      cuda::scale(gradient.get(), factors, 2, 3, size, sizeof(T) == 8,
                  {132, 227 * 1024, most_blocks}, nullptr);
      for (int64_t i = 0; i < 3 * size; ++i)
        if (gradient[size_t(i)] != factors[2 * (i / size)] * T(i % 97 + 1))
          return fail("scaling", "not the product", double(gradient[size_t(i)]), double(i));
    }
}

// ---- Beyond 32 bits ----------------------------------------------------------------------------

// Rows so far apart that the last one lies beyond what 32 bits count, in elements.
struct Far {
  static constexpr int64_t kRow = int64_t(1) << 29, kRows = 8;
  static constexpr size_t kBytes = size_t(kRow * kRows) * sizeof(float);
  float* data;

  Far() {  // pages that nobody touches take no memory
    void* const found = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED) throw std::runtime_error("no address space for distant rows");
    data = static_cast<float*>(found);
  }
  ~Far() { munmap(data, kBytes); }
  Far(const Far&) = delete;
};

void far_rows(CudaKernels& kernels) {
  for (const bool ssim : {true, false}) {
    Case<float> c;
    c.name = ssim ? "distant rows" : "distant rows, pointwise";
    c.p.ssim = ssim;
    c.p.mse = !ssim;
    c.p.border = ssim ? Border::zeros : Border::reflect;
    c.set_window(2, 1.5);
    const Shape s{1, 1, Far::kRows, 40};
    c.set_shape(s);
    Random random(ssim);
    c.input = Input(Dtype::float32, contiguous(s), s);
    c.target = Input(Dtype::float32, contiguous(s), s);
    c.weight = Input(Dtype::float32, contiguous(s), s);
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
        put(c.weight, weight, 0.5 + random.uniform());
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
    p.weight.data = weight.data;
    p.input_gradient.data = by_x.data;
    p.target_gradient.data = by_y.data;
    p.input.row = p.target.row = p.weight.row = Far::kRow;
    p.input_gradient.row = p.target_gradient.row = Far::kRow;
    float share = NAN;
    kernels.compute(p, false, &share, 0);
    bool same = share == c.shares[0];
    for (int64_t i = 0; i < s.height; ++i)
      for (int64_t j = 0; j < s.width; ++j)
        same = same && by_x.data[i * Far::kRow + j] == c.input_gradient.get(0, 0, i, j) &&
               by_y.data[i * Far::kRow + j] == c.target_gradient.get(0, 0, i, j);
    if (!same) fail(c.name, "not what the same rows give side by side");
  }
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
  cuda_host::settings.asks_for_all = true;
  CudaKernels kernels;
  if (arguments.wants("shapes")) shapes(false, arguments, kernels);
  if (arguments.only == "few") shapes(true, arguments, kernels);
  if (arguments.wants("planes")) planes(arguments, kernels);
  if (arguments.wants("far")) far_rows(kernels);
  if (arguments.wants("scaling")) scaling<float>(), scaling<double>();
  run_cases(arguments, kernels);
  std::printf("%d failures\n", failures);
  return failures != 0;
}
