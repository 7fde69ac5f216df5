// Test cases that compare kernels with a textbook implementation, without PyTorch. The kernels are
// a parameter: the CPU kernels (driver.cpp), or the CUDA kernels executed on the CPU
// (../cuda_host/driver.cpp).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <string>
#include <vector>

#include "tensors.h"
#include "textbook.h"

using lamp_kernels::Border;
using lamp_kernels::Sums;

inline int failures = 0;
inline bool stop = false;     // exit at the first failure
inline int most_ways = 1000;  // limit on the ways tried per case

inline void fail(const std::string& where, const char* what, double value = 0, double limit = 0) {
  std::printf("FAIL %s: %s", where.c_str(), what);
  if (limit) std::printf(" (%.3g, at most %.3g)", value, limit);
  std::printf("\n");
  ++failures;
  if (stop) std::exit(1);
}

template <class T>
constexpr Dtype kDtype = sizeof(T) == 4 ? Dtype::float32 : Dtype::float64;

// ---- The kernels under test --------------------------------------------------------------------

class Kernels {
 public:
  virtual ~Kernels() = default;

  // Does what compute() in csrc/cpu/launch.h does, with scaled_sums (N, T); also checks the other sums.
  // `use_double`: computes in float64.
  virtual void compute(const Params& p, bool use_double, void* scaled_sums, int way) = 0;
  // The number of ways to order or split a call's work; their results must agree bit for bit.
  virtual int ways(const Params& p) const = 0;
  virtual const char* depends_on(int way) const = 0;  // the failure message if results differ
  // Randomly changes implementation settings, if there are any, and describes them.
  virtual std::string vary(uint64_t) { return ""; }
  virtual bool has_gms() const { return true; }
  virtual bool has_mask() const { return false; }
  // The number of columns that share one shift in a call with this many gradients.
  virtual int64_t strip_width(const Params& p, bool use_double, int gradients) const = 0;
};

// ---- A case: one kernel call with all its inputs and outputs -----------------------------------

template <class T>
struct Case {
  std::string name;
  Params p{};
  Shape shape{};
  Input input, target, weight, mask;
  int64_t weight_corner = 0, map_corner = 0;
  std::vector<T> factors;
  bool shared = false;    // all images use the factors of the first
  std::vector<T> ranges;  // one data_range per image, `range_stride` apart; or empty
  int64_t range_stride = 1;
  Output<T> input_gradient, target_gradient, map;
  bool with_sums = true;
  std::vector<T> scaled_sums;

  Case() {
    p.amplify = Amplify::log;
    p.amplify_parameters[0] = 1e-2;                        // eps
    p.metric_parameters[int(Metric::charbonnier)] = 0.25;  // e
    p.metric_parameters[int(Metric::gms)] = 0.0026;        // c
    p.scale = 1;
    p.c1 = 1e-4;
    p.c2 = 9e-4;
    p.ssim_scale = 0.5;
    p.border = Border::reflect;
  }

  void set_shape(const Shape& s) {
    shape = s;
    p.batch = s.batch;
    p.channels = s.channels;
    p.height = s.height;
    p.width = s.width;
  }
  void set_window(int radius, double sigma) {
    p.radius = radius;
    double sum = 0;
    auto gaussian = [&](int k) { return std::exp(-0.5 * k * k / (sigma * sigma)); };
    for (int k = -radius; k <= radius; ++k) sum += gaussian(k);
    for (int k = 0; k <= radius; ++k) p.taps[k] = gaussian(k) / sum;
  }

  // Lets each image have a data_range of its own.
  void draw_ranges(Random& random) {
    range_stride = 1 + random.below(2);
    ranges.assign(size_t(shape.batch * range_stride), T(NAN));
    for (int64_t n = 0; n < shape.batch; ++n)
      ranges[size_t(n * range_stride)] = T(random.of<double>({1e-3, 0.5, 1, 2, 255}));
    p.scale = NAN;  // not to be used
  }
  double scale_of(int64_t image) const {
    return ranges.empty() ? p.scale : 1 / double(ranges[size_t(image * range_stride)]);
  }

  void run(Kernels& kernels, int way = 0) {
    input_gradient.poison();
    target_gradient.poison();
    map.poison();
    scaled_sums.assign(size_t(p.batch * p.terms.count()), T(NAN));
    p.input = input.source();
    p.target = target.source();
    p.weight = weight.source(weight_corner);
    p.mask = mask.source();
    if (mask && !weight) p.weight = p.mask;
    p.factors = shared ? nullptr : factors.data();
    if (shared) std::copy_n(factors.begin(), p.terms.count(), p.shared_factors);
    p.data_ranges = ranges.empty() ? nullptr : ranges.data();
    p.data_range_stride = range_stride;
    p.input_gradient = input_gradient.sink();
    p.target_gradient = target_gradient.sink();
    p.map = map.sink(map_corner);
    try {
      kernels.compute(p, sizeof(T) == sizeof(double), with_sums ? scaled_sums.data() : nullptr,
                      way);
    } catch (const std::exception& error) {
      fail(name, error.what());
    }
    if (mask && map) clear_hidden();
  }

  // Where the mask is 0, the map is finite and means nothing.
  void clear_hidden() {
    const Shape& s = map.shape();
    for (int64_t n = 0; n < s.batch; ++n)
      for (int64_t c = 0; c < s.channels; ++c)
        for (int64_t i = 0; i < s.height; ++i)
          for (int64_t j = 0; j < s.width; ++j)
            if (mask.get(n, c, i + map_corner, j + map_corner) == 0 &&
                std::isfinite(map.get(n, c, i, j)))
              map.set(n, c, i, j, T(0));
  }

  std::vector<char> bits() const {
    std::vector<char> all((const char*)scaled_sums.data(),
                          (const char*)(scaled_sums.data() + scaled_sums.size()));
    for (const Output<T>* output : {&input_gradient, &target_gradient, &map}) {
      const std::vector<char> some = output->bits();
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }

  textbook::Image values(const Input& from, int64_t corner = 0) const {
    textbook::Image image;
    if (!from) return image;
    for (int64_t n = 0; n < shape.batch; ++n)
      for (int64_t c = 0; c < shape.channels; ++c)
        for (int64_t i = 0; i < shape.height; ++i)
          for (int64_t j = 0; j < shape.width; ++j) {
            const bool inside =
                std::min(i, j) >= corner && i < shape.height - corner && j < shape.width - corner;
            image.push_back(inside ? from.get(n, c, i - corner, j - corner) : 0);
          }
    return image;
  }
  textbook::Result expected() const {
    std::vector<double> scales;
    for (int64_t n = 0; n < shape.batch; ++n) scales.push_back(scale_of(n));
    return textbook::compute(p, values(input), values(target),
                             mask && !weight ? values(mask) : values(weight, weight_corner),
                             values(mask), std::vector<double>(factors.begin(), factors.end()),
                             scales);
  }
};

// ---- Comparison --------------------------------------------------------------------------------

struct Error {
  double norm = 0, largest = 0;  // relative L2 error; largest error over largest value
  bool same_finite = true;       // both have their non-finite values in the same places
};

template <class T>
Error compare(const Output<T>& found, int64_t corner, const textbook::Image& expected,
              const Shape& image) {
  double error2 = 0, norm2 = 0, error = 0, norm = 0;
  Error e;
  const Shape& s = found.shape();
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t c = 0; c < s.channels; ++c)
      for (int64_t i = 0; i < s.height; ++i)
        for (int64_t j = 0; j < s.width; ++j) {
          const Layout l = contiguous(image);
          const double want = expected[size_t(l.at(n, c, i + corner, j + corner))];
          const double got = double(found.get(n, c, i, j));
          if (!std::isfinite(want) || !std::isfinite(got)) {
            e.same_finite = e.same_finite && std::isfinite(want) == std::isfinite(got);
            continue;
          }
          error2 += (got - want) * (got - want);
          norm2 += want * want;
          error = std::max(error, std::abs(got - want));
          norm = std::max(norm, std::abs(want));
        }
  e.norm = error2 ? std::sqrt(error2 / norm2) : 0;  // infinity if all values should be 0
  e.largest = error ? error / norm : 0;
  return e;
}

struct Limits {
  double share, norm, largest;
};

inline double worst_share = 0, worst_norm = 0,
              worst_largest = 0;  // as fractions of the limits, over all cases

template <class T>
void check_tensor(const Case<T>& c, const char* what, const Output<T>& found, int64_t corner,
                  const textbook::Image& expected, const Limits& limits) {
  if (!found) return;
  const std::string where = c.name + ", " + what;
  if (!found.written_exactly()) fail(where, "not written exactly");
  const Error e = compare(found, corner, expected, c.shape);
  if (!e.same_finite) fail(where, "NaN or infinity misplaced");
  if (!(e.norm <= limits.norm)) fail(where, "relative L2 error", e.norm, limits.norm);
  if (!(e.largest <= limits.largest)) fail(where, "largest error", e.largest, limits.largest);
  worst_norm = std::max(worst_norm, e.norm / limits.norm);
  worst_largest = std::max(worst_largest, e.largest / limits.largest);
}

template <class T>
void check(const Case<T>& c, const Limits& limits) {
  const textbook::Result want = c.expected();
  for (size_t i = 0; c.with_sums && i < c.scaled_sums.size(); ++i) {
    const double got = double(c.scaled_sums[i]);
    if (!std::isfinite(want.scaled_sums[i])) {
      if (std::isfinite(got)) fail(c.name, "a sum hides NaN or infinity");
      continue;
    }
    const double error = got == want.scaled_sums[i] ? 0 : std::abs(got / want.scaled_sums[i] - 1);
    if (!(error <= limits.share)) fail(c.name, "relative error of a sum", error, limits.share);
    worst_share = std::max(worst_share, error / limits.share);
  }
  check_tensor(c, "input gradient", c.input_gradient, 0, want.input_gradient, limits);
  check_tensor(c, "target gradient", c.target_gradient, 0, want.target_gradient, limits);
  check_tensor(c, "map", c.map, c.map_corner, want.map, limits);
}

// Runs the remaining ways of a case that has run once.
template <class T>
void check_all_ways(Case<T>& c, Kernels& kernels) {
  const std::vector<char> bits = c.bits();
  for (int way = 1; way < std::min(kernels.ways(c.p), most_ways); ++way) {
    c.run(kernels, way);
    if (c.bits() != bits) fail(c.name, kernels.depends_on(way));
  }
}

// Compares the sums over terms and, if `of_batch`, over the batch with `scaled_sums` (N, T) of the same
// call. run(Sums, to) computes sums.
template <class T, class Run>
void check_sums(const Params& p, const T* scaled_sums, bool of_batch, Run run) {
  std::vector<T> images(size_t(p.batch), T(NAN));
  run(Sums::images, images.data());
  double all = 0, size = 0;
  for (int64_t image = 0; image < p.batch; ++image) {
    T sum = 0;
    double magnitude = 0;
    for (int term = 0; term < p.terms.count(); ++term) {
      const T share = scaled_sums[image * p.terms.count() + term];
      sum += share;
      all += double(share);
      magnitude += std::abs(double(share));
    }
    size += magnitude;
    // Equal to the last bit in float32. In float64 the compiler may fuse a share's multiplication
    // with the addition, which then rounds once instead of twice.
    const T got = images[size_t(image)];
    const double fused = sizeof(T) == 8 ? std::numeric_limits<double>::epsilon() * magnitude : 0;
    const bool equal = std::memcmp(&sum, &got, sizeof sum) == 0 || std::isnan(sum);
    if (!equal && !(std::abs(double(got) - double(sum)) <= fused))
      fail("sums of terms", "not what the terms add up to", double(got), double(sum));
  }
  if (p.factors || !of_batch) return;
  T batch = T(NAN);
  run(Sums::batch, &batch);
  if (!std::isfinite(all)) {
    if (std::isfinite(batch)) fail("sum of the batch", "hides NaN or infinity");
    return;
  }
  // Each share was rounded, the sum only once; in float64 every addition rounds as well.
  const double error = std::abs(double(batch) - all);
  const double limit =
      (sizeof(T) == 4 ? 2 : 100) * double(std::numeric_limits<T>::epsilon()) * size;
  if (!(error <= limit)) fail("sum of the batch", "not what the images add up to", error, limit);
}

// ---- Random completion of a case ---------------------------------------------------------------

// Makes a weight with a random shape that broadcasts to the image.
inline void add_weight(Dtype dtype, Shape grid, Random& random, Input& weight) {
  Shape s = grid;
  switch (random.below(6)) {
    case 0: s.channels = 1; break;
    case 1: s.batch = s.channels = 1; break;
    case 2: s.batch = s.channels = s.height = 1; break;
    case 3: s.batch = s.height = s.width = 1; break;
    case 4: s.channels = s.width = 1; break;
  }
  Layout l = some_layout(s, random);
  if (s.batch == 1) l.batch = 0;
  if (s.channels == 1) l.channel = 0;
  if (s.height == 1) l.row = 0;
  if (s.width == 1) l.column = 0;
  weight = Input(dtype, l, s);
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t c = 0; c < s.channels; ++c)
      for (int64_t i = 0; i < s.height; ++i)
        for (int64_t j = 0; j < s.width; ++j)
          weight.set(n, c, i, j, random.chance(0.1) ? 0 : 0.5 + random.uniform());
}

// Makes a mask with a random shape that broadcasts to the image: holes everywhere or a rectangle,
// perhaps with values between 0 and 1.
inline void add_mask(Dtype dtype, const Shape& image, Random& random, Input& mask) {
  add_weight(dtype, image, random, mask);
  const bool rectangle = random.chance(0.4), fractions = random.chance(0.3);
  const double share = random.of<double>({0.0, 0.1, 0.5, 0.97});
  auto within = [](int64_t at, int64_t side) { return at >= side / 5 && at < side - side / 4; };
  for (int64_t n = 0; n < image.batch; ++n)
    for (int64_t c = 0; c < image.channels; ++c)
      for (int64_t i = 0; i < image.height; ++i)
        for (int64_t j = 0; j < image.width; ++j) {
          const bool seen =
              rectangle ? within(i, image.height) && within(j, image.width) : !random.chance(share);
          mask.set(n, c, i, j, seen ? (fractions ? 0.1 + 0.9 * random.uniform() : 1) : 0);
        }
}

// Multiplies the weight, or the part of it that covers the loss's grid, by the mask.
inline void include_mask(Dtype dtype, const Shape& grid, int64_t corner, const Input& mask,
                         Input& weight) {
  Input product(dtype, contiguous(grid), grid);
  for (int64_t n = 0; n < grid.batch; ++n)
    for (int64_t c = 0; c < grid.channels; ++c)
      for (int64_t i = 0; i < grid.height; ++i)
        for (int64_t j = 0; j < grid.width; ++j)
          product.set(n, c, i, j, weight.get(n, c, i, j) * mask.get(n, c, i + corner, j + corner));
  weight = std::move(product);
}

// Lets hidden pixels hold anything.
inline void spoil_hidden(const Shape& s, const Input& mask, Random& random, Input& image) {
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t c = 0; c < s.channels; ++c)
      for (int64_t i = 0; i < s.height; ++i)
        for (int64_t j = 0; j < s.width; ++j)
          if (mask.get(n, c, i, j) == 0)
            image.set(n, c, i, j, random.of<double>({NAN, INFINITY, -1e30}));
}

// Turns a mask of pixels into that of the positions of a 3 x 3 operator: the smallest m that it sees.
inline void erode(Dtype dtype, const Shape& s, Input& mask) {
  Input smallest(dtype, contiguous(s), s);
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t c = 0; c < s.channels; ++c)
      for (int64_t i = 0; i < s.height; ++i)
        for (int64_t j = 0; j < s.width; ++j) {
          double least = 1;
          for (int64_t y = std::max<int64_t>(i - 1, 0); y < std::min(i + 2, s.height); ++y)
            for (int64_t x = std::max<int64_t>(j - 1, 0); x < std::min(j + 2, s.width); ++x)
              least = std::min(least, mask.get(n, c, y, x));
          smallest.set(n, c, i, j, least);
        }
  mask = std::move(smallest);
}

// Completes a case with given terms, window and shape at random, then runs and checks it.
// `wanted`: 1 for the input's gradient, 2 for the target's, 3 for both, 0 for neither; negative for
// a random choice.
template <class T>
void complete_and_check(Case<T>& c, uint64_t seed, Random& random, Kernels& kernels,
                        int wanted = -1) {
  Params& p = c.p;
  const Shape s = c.shape;

  if (random.chance(0.3)) c.draw_ranges(random);
  const Dtype dtype =
      random.of<Dtype>({kDtype<T>, kDtype<T>, Dtype::float32, Dtype::float16, Dtype::bfloat16});
  Layout l = some_layout(s, random);
  c.target = Input(random.chance(0.2) ? kDtype<T> : dtype, some_layout(s, random), s);
  if (random.chance(0.1) && c.ranges.empty()) l.batch = 0;
  if (random.chance(0.05)) l.row = 0;
  c.input = Input(dtype, l, s);
  // In float32, images must be close enough to meet the promised accuracy; float64 has digits to
  // spare.
  const double apart = sizeof(T) == 4 ? 0.1 : random.of<double>({1e-3, 0.1, 0.5});
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t k = 0; k < s.channels; ++k)
      for (int64_t i = 0; i < s.height; ++i)
        for (int64_t j = 0; j < s.width; ++j) {
          const double y = 0.2 + 0.7 * random.uniform();
          c.target.set(n, k, i, j, y / c.scale_of(n));
          c.input.set(n, k, i, j, (y + apart * (2 * random.uniform() - 1)) / c.scale_of(n));
        }
  if (random.chance(0.1))
    c.input.set(random.below(s.batch), random.below(s.channels), random.below(s.height),
                random.below(s.width), random.chance(0.5) ? NAN : INFINITY);

  Shape grid = s;
  const bool own_grid = p.windowed() && p.border == Border::valid;
  if (own_grid) grid = {s.batch, s.channels, s.height - 2 * p.radius, s.width - 2 * p.radius};
  if (random.chance(0.5)) {
    // Pointwise terms beside a "valid" SSIM use a weight of the whole image.
    const bool on_grid = own_grid && p.terms.count() == 1 && random.chance(0.5);
    if (on_grid) c.weight_corner = p.radius;
    add_weight(kDtype<T>, on_grid ? grid : s, random, c.weight);
  }
  if (kernels.has_mask() && random.chance(0.4)) {
    add_mask(kDtype<T>, s, random, c.mask);
    if (l.batch && l.row) spoil_hidden(s, c.mask, random, c.input);
    spoil_hidden(s, c.mask, random, c.target);
    if (p.gms()) erode(kDtype<T>, s, c.mask);
    if (c.weight)
      include_mask(kDtype<T>, c.weight_corner ? grid : s, c.weight_corner, c.mask, c.weight);
  }
  for (int64_t i = 0; i < s.batch * p.terms.count(); ++i)
    c.factors.push_back(T(0.5 + random.uniform()));
  c.shared = c.shared || seed % 2;
  for (int64_t i = p.terms.count(); c.shared && i < s.batch * p.terms.count(); ++i)
    c.factors[size_t(i)] = c.factors[size_t(i - p.terms.count())];

  if (wanted < 0) wanted = int(random.below(4));
  if (wanted & 1) c.input_gradient = Output<T>(some_layout(s, random), s);
  if (wanted & 2) c.target_gradient = Output<T>(some_layout(s, random), s);
  if (!wanted && !(own_grid && p.terms.count() > 1) && random.chance(0.7)) {
    c.map = Output<T>(some_layout(grid, random), grid);
    if (own_grid) c.map_corner = p.radius;
    c.with_sums = random.chance(0.5);
  }

  const std::string varied = kernels.vary(seed);
  std::string terms;
  for (int m = 0; m < lamp_kernels::kAllMetrics; ++m)
    if (p.terms.has(Metric(m))) terms += (terms.empty() ? "" : "+") + std::string(kMetricNames[m]);
  char name[300];
  std::snprintf(name, sizeof name,
                "seed %llu: %s (%lld, %lld, %lld, %lld), terms %s, radius %d, border %d, "
                "gradients %d, map %d, weight %d, mask %d, ranges %d, source %d%s",
                (unsigned long long)seed, sizeof(T) == 4 ? "float" : "double", (long long)s.batch,
                (long long)s.channels, (long long)s.height, (long long)s.width, terms.c_str(),
                p.radius, int(p.border), wanted, bool(c.map), bool(c.weight), bool(c.mask),
                !c.ranges.empty(), int(dtype), varied.c_str());
  c.name = name;
  c.run(kernels);
  // Errors grow as 1/(1 - L) near L = 1, which SSIM only reaches here if a = 1.
  const double digits = p.ssim() && p.ssim_scale == 1 ? 20 : 1;
  check(c, sizeof(T) == 4 ? Limits{1e-5 * digits, 1e-5 * digits, 4e-5 * digits}
                          : Limits{3e-11, 3e-11, 1e-10});
  check_all_ways(c, kernels);
}

// ---- All cases ---------------------------------------------------------------------------------

struct Arguments {
  uint64_t seed = 1;
  int64_t cases = 200;
  double seconds = 1e9;
  int64_t work = 12'000'000;  // pixels times window size, in the largest random case
  std::vector<int> radii = {1, 2, 3, 4, 5, 6, 7}, volume_radii;  // none: the same
  std::string only;

  bool wants(const char* what) const { return only.empty() || only == what; }
};

//   [--seed N] [--cases N] [--seconds S] [--work N] [--radii 1,5,7] [--only cases|halves|scenes]
//   [--volume-radii 5]
//   [--ways N]   try at most N ways per case
//   [--stop 1]   stop at the first failure
Arguments parse(int count, char** values);

// Runs random shapes, layouts and options; every value of the half-precision types; and scenes on
// which accuracy is easily lost.
void run_cases(const Arguments& arguments, Kernels& kernels);
