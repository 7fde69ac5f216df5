// Runs the CPU kernels, without PyTorch, against a textbook implementation: random shapes, layouts
// and options, and scenes on which accuracy is easily lost. Exit status 1 if anything is wrong.
//
//   driver [--seed N] [--cases N] [--seconds S] [--radii 1,5,7] [--only cases|scenes|halves]
//          [--stop 1]   at the first failure
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>

#include "cpu/launch.h"
#include "tensors.h"
#include "textbook.h"

namespace {

using lamp_kernels::Border;
using lamp_kernels::Tiling;

int failures = 0;
bool stop = false;  // at the first failure

void fail(const std::string& where, const char* what, double value = 0, double limit = 0) {
  std::printf("FAIL %s: %s", where.c_str(), what);
  if (limit) std::printf(" (%.3g, at most %.3g)", value, limit);
  std::printf("\n");
  ++failures;
  if (stop) std::exit(1);
}

template <class T>
constexpr Dtype kDtype = sizeof(T) == 4 ? Dtype::float32 : Dtype::float64;

// ---- Ways to share the work --------------------------------------------------------------------

struct OneThread {
  template <class F>
  void operator()(int64_t begin, int64_t end, int64_t, F f) const {
    if (begin < end) f(begin, end);
  }
};

// One piece at a time, the last one first: no order of completion that differs more.
struct Backwards {
  template <class F>
  void operator()(int64_t begin, int64_t end, int64_t, F f) const {
    for (int64_t i = end - 1; i >= begin; --i) f(i, i + 1);
  }
};

// Whoever is free takes the next pieces.
struct Threads {
  int count;
  int64_t pieces;

  template <class F>
  void operator()(int64_t begin, int64_t end, int64_t, F f) const {
    std::atomic<int64_t> next{begin};
    std::vector<std::thread> threads;
    for (int i = 0; i < count; ++i)
      threads.emplace_back([&] {
        for (int64_t at; (at = next.fetch_add(pieces)) < end;) f(at, std::min(at + pieces, end));
      });
    for (std::thread& thread : threads) thread.join();
  }
};

// ---- A case: a call of the kernel and all that it reads and writes -------------------------------

template <class T>
struct Case {
  std::string name;
  Params p{};
  Shape shape{};
  Input input, target, weight;
  int64_t weight_corner = 0, map_corner = 0;
  std::vector<T> factors;
  Output<T> input_gradient, target_gradient, map;
  bool with_shares = true;
  std::vector<T> shares;

  Case() {
    p.amplify = true;
    p.eps = 1e-2;
    p.scale = 1;
    p.c1 = 1e-4;
    p.c2 = 9e-4;
    p.dissimilarity = 0.5;
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

  template <class ParallelFor>
  void run(ParallelFor parallel_for) {
    input_gradient.poison();
    target_gradient.poison();
    map.poison();
    shares.assign(size_t(p.batch * p.terms()), T(NAN));
    p.input = input.source();
    p.target = target.source();
    p.weight = weight.source(weight_corner);
    p.factors = factors.data();
    p.input_gradient = input_gradient.sink();
    p.target_gradient = target_gradient.sink();
    p.map = map.sink(map_corner);
    lamp_kernels::compute<T>(p, with_shares ? shares.data() : nullptr, parallel_for);
  }

  std::vector<char> bits() const {
    std::vector<char> all((const char*)shares.data(), (const char*)(shares.data() + shares.size()));
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
            const bool inside = std::min(i, j) >= corner && i < shape.height - corner &&
                                j < shape.width - corner;
            image.push_back(inside ? from.get(n, c, i - corner, j - corner) : 0);
          }
    return image;
  }
  textbook::Result expected() const {
    return textbook::compute(p, values(input), values(target), values(weight, weight_corner),
                             std::vector<double>(factors.begin(), factors.end()));
  }
};

// ---- Comparison ----------------------------------------------------------------------------------

struct Error {
  double norm = 0, largest = 0;  // relative: in L2, and to the largest value
  bool same_finite = true;       // what is not finite is so in both
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
  e.norm = error2 ? std::sqrt(error2 / norm2) : 0;  // infinite where all should be 0
  e.largest = error ? error / norm : 0;
  return e;
}

struct Limits {
  double share, norm, largest;
};

double worst_share = 0, worst_norm = 0, worst_largest = 0;  // of the limit, over all cases

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
  for (size_t i = 0; c.with_shares && i < c.shares.size(); ++i) {
    const double got = double(c.shares[i]);
    if (!std::isfinite(want.shares[i])) {
      if (std::isfinite(got)) fail(c.name, "a sum hides NaN or infinity");
      continue;
    }
    const double error = got == want.shares[i] ? 0 : std::abs(got / want.shares[i] - 1);
    if (!(error <= limits.share)) fail(c.name, "relative error of a sum", error, limits.share);
    worst_share = std::max(worst_share, error / limits.share);
  }
  check_tensor(c, "input gradient", c.input_gradient, 0, want.input_gradient, limits);
  check_tensor(c, "target gradient", c.target_gradient, 0, want.target_gradient, limits);
  check_tensor(c, "map", c.map, c.map_corner, want.map, limits);
}

template <class T>
void check_any_division_of_work(Case<T>& c) {
  c.run(OneThread{});
  const std::vector<char> bits = c.bits();
  c.run(Backwards{});
  if (c.bits() != bits) fail(c.name, "depends on the order of the tiles");
  for (const Threads threads : {Threads{2, 1}, Threads{3, 2}}) {
    c.run(threads);
    if (c.bits() != bits) fail(c.name, "depends on the number of threads");
  }
}

// ---- Random cases ----------------------------------------------------------------------------------

struct Arguments {
  uint64_t seed = 1;
  int64_t cases = 200;
  double seconds = 1e9;
  std::vector<int> radii = {1, 2, 3, 4, 5, 6, 7};
  std::string only;
};

// Sides on both sides of what strips, bands, rows of a step and vectors are multiples of.
int64_t some_side(int64_t least, Random& random) {
  if (random.chance(0.15)) return least;
  const int64_t side = random.of<int64_t>({2,   4,   8,   9,   15,  16,  17,  24,  31,  32,  33,
                                           48,  64,  65,  96,  127, 128, 129, 192, 200, 255, 256,
                                           257, 272, 273, 320, 511, 512, 513});
  return std::max(least, side);
}

Shape some_shape(const Params& p, int64_t least, Random& random) {
  // The textbook looks at every pixel of every window.
  const int64_t pixels = p.ssim ? 12'000'000 / ((2 * p.radius + 1) * (2 * p.radius + 1)) : 400'000;
  Shape s{1 + random.below(3), 1 + random.below(3), some_side(least, random),
          some_side(least, random)};
  if (random.chance(0.05)) {  // several bands of the greatest height
    s = {1, 1, random.of<int64_t>({1023, 1024, 1025, 2050}), least + random.below(20)};
  } else if (random.chance(0.05)) {  // many strips, the last one, or the one before, narrow
    s = {1, 1, least + random.below(20), random.of<int64_t>({3841, 3842, 3855, 3857})};
  } else if (random.chance(0.1)) {  // few planes, so that several bands share them
    s.batch = s.channels = 1;
    s.height = 128 + random.below(130);
  }
  while (s.size() > pixels) {
    if (s.batch > 1) --s.batch;
    else if (s.channels > 1) --s.channels;
    else if (s.width > s.height) s.width = std::max(least, pixels / s.height);
    else s.height = std::max(least, pixels / s.width);
    if (s.height <= least && s.width <= least) break;
  }
  return s;
}

// A weight of any shape that broadcasts to the image.
void add_weight(Dtype dtype, Shape grid, Random& random, Input& weight) {
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

template <class T>
void random_case(uint64_t seed, const Arguments& arguments) {
  Random random(seed);
  Case<T> c;
  Params& p = c.p;
  while (!p.terms()) {
    p.ssim = random.chance(0.7);
    p.mse = random.chance(0.4);
    p.l1 = random.chance(0.4);
  }
  p.border = Border(random.below(3));
  p.amplify = random.chance(0.7);
  p.eps = random.of<double>({1e-2, 1e-1, 1e-4});
  p.scale = random.of<double>({1.0, 1.0, 1.0 / 255});
  p.dissimilarity = random.of<double>({0.5, 1.0});
  if (p.ssim)
    c.set_window(random.of(arguments.radii), random.of<double>({0.7, 1.5, 4}));
  else
    p.border = Border::reflect;

  int64_t least = 1;
  if (p.ssim && p.border == Border::reflect) least = p.radius + 1;
  if (p.ssim && p.border == Border::valid) least = 2 * p.radius + 1;
  c.set_shape(some_shape(p, least, random));
  const Shape s = c.shape;

  const Dtype dtype = random.of<Dtype>(
      {kDtype<T>, kDtype<T>, Dtype::float32, Dtype::float16, Dtype::bfloat16});
  Layout l = some_layout(s, random);
  c.target = Input(random.chance(0.2) ? kDtype<T> : dtype, some_layout(s, random), s);
  if (random.chance(0.1)) l.batch = 0;
  if (random.chance(0.05)) l.row = 0;
  c.input = Input(dtype, l, s);
  // Images alike enough for float to hold the promise; double has digits to spare.
  const double apart = sizeof(T) == 4 ? 0.1 : random.of<double>({1e-3, 0.1, 0.5});
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t k = 0; k < s.channels; ++k)
      for (int64_t i = 0; i < s.height; ++i)
        for (int64_t j = 0; j < s.width; ++j) {
          const double y = 0.2 + 0.7 * random.uniform();
          c.target.set(n, k, i, j, y / p.scale);
          c.input.set(n, k, i, j, (y + apart * (2 * random.uniform() - 1)) / p.scale);
        }
  if (random.chance(0.1))
    c.input.set(random.below(s.batch), random.below(s.channels), random.below(s.height),
                random.below(s.width), random.chance(0.5) ? NAN : INFINITY);

  Shape grid = s;
  const bool own_grid = p.ssim && p.border == Border::valid;
  if (own_grid) grid = {s.batch, s.channels, s.height - 2 * p.radius, s.width - 2 * p.radius};
  if (random.chance(0.5)) {
    // The pointwise terms of a "valid" SSIM have the weight of the whole image.
    const bool on_grid = own_grid && p.terms() == 1 && random.chance(0.5);
    if (on_grid) c.weight_corner = p.radius;
    add_weight(kDtype<T>, on_grid ? grid : s, random, c.weight);
  }
  for (int64_t i = 0; i < s.batch * p.terms(); ++i)
    c.factors.push_back(T(0.5 + random.uniform()));

  const int wanted = int(random.below(4));
  if (wanted & 1) c.input_gradient = Output<T>(some_layout(s, random), s);
  if (wanted & 2) c.target_gradient = Output<T>(some_layout(s, random), s);
  if (!wanted && !(own_grid && p.terms() > 1) && random.chance(0.7)) {
    c.map = Output<T>(some_layout(grid, random), grid);
    if (own_grid) c.map_corner = p.radius;
    c.with_shares = random.chance(0.5);
  }

  char name[300];
  std::snprintf(name, sizeof name,
                "seed %llu: %s (%lld, %lld, %lld, %lld), terms %d%d%d, radius %d, border %d, "
                "gradients %d, map %d, weight %d, source %d",
                (unsigned long long)seed, sizeof(T) == 4 ? "float" : "double",
                (long long)s.batch, (long long)s.channels, (long long)s.height, (long long)s.width,
                p.ssim, p.mse, p.l1, p.radius, int(p.border), wanted, bool(c.map), bool(c.weight),
                int(dtype));
  c.name = name;
  c.run(OneThread{});
  // Towards L = 1 errors grow as 1/(1 - L), which only a = 1 lets SSIM reach here.
  const double digits = p.ssim && p.dissimilarity == 1 ? 20 : 1;
  check(c, sizeof(T) == 4 ? Limits{1e-5 * digits, 1e-5 * digits, 4e-5 * digits}
                          : Limits{3e-11, 3e-11, 1e-10});
  if (Tiling(p).tiles() > 1) check_any_division_of_work(c);
}

void random_cases(const Arguments& arguments) {
  const auto start = std::chrono::steady_clock::now();
  auto elapsed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  int64_t i = 0;
  for (; i < arguments.cases && elapsed() < arguments.seconds; ++i) {
    const uint64_t seed = arguments.seed * 1'000'000 + uint64_t(i);
    if (i % 3 == 0)
      random_case<double>(seed, arguments);
    else
      random_case<float>(seed, arguments);
  }
  std::printf("%lld random cases; sums to %.2g, gradients to %.2g and %.2g of what is allowed\n",
              (long long)i, worst_share, worst_norm, worst_largest);
}

// ---- Empty tensors -----------------------------------------------------------------------------

void empty(const Arguments& arguments) {
  for (const Shape s : {Shape{0, 3, 32, 32}, Shape{2, 0, 32, 32}}) {
    Case<float> c;
    c.name = "empty";
    c.p.ssim = c.p.l1 = true;
    c.set_window(arguments.radii[0], 1.5);
    c.set_shape(s);
    c.input = Input(Dtype::float32, contiguous(s), s);
    c.target = Input(Dtype::float32, contiguous(s), s);
    c.factors.assign(size_t(2 * s.batch), 1.0f);
    c.input_gradient = Output<float>(contiguous(s), s);
    c.run(OneThread{});
    for (const float share : c.shares)
      if (share != 0) fail(c.name, "its sum is not 0");
  }
}

// ---- Half types, all of them -------------------------------------------------------------------

void halves() {
  for (const Dtype dtype : {Dtype::float16, Dtype::bfloat16}) {
    Case<float> c;
    c.name = dtype == Dtype::float16 ? "float16" : "bfloat16";
    const Shape s{1, 1, 256, 256};
    c.set_shape(s);
    c.p.mse = true;
    c.p.amplify = false;
    std::vector<uint16_t> bits(65536);  // the gradient of (x - 0)^2 is 2 x
    for (size_t i = 0; i < bits.size(); ++i) bits[i] = uint16_t(i);
    c.target = Input(Dtype::float32, contiguous(s), s);
    for (int64_t i = 0; i < 65536; ++i) c.target.set(0, 0, i / 256, i % 256, 0);
    c.factors = {0.5f};
    c.input_gradient = Output<float>(contiguous(s), s);
    c.input = Input(dtype, contiguous(s), s);
    std::memcpy((void*)c.input.source().data, bits.data(), sizeof(uint16_t) * bits.size());
    c.run(OneThread{});
    for (int64_t i = 0; i < 65536; ++i) {
      const double want = from_bits16(dtype, uint16_t(i));
      const double got = c.input_gradient.get(0, 0, i / 256, i % 256);
      // 2 x overflows where x is 2^127 or more.
      const bool same = std::abs(want) >= 0x1p127 ? !(std::abs(got) < 0x1p127)
                                                 : got == want || (got != got && want != want);
      if (!same) return fail(c.name, "wrong value of some bits", got, want);
    }
  }
}

// ---- Scenes ------------------------------------------------------------------------------------

// An SSIM (or another) case in float with both gradients, whose pixels are `x(i, j)`, `y(i, j)`.
template <class X, class Y>
Case<float> scene(const char* name, const Shape& s, int radius, X x, Y y) {
  Case<float> c;
  c.name = name;
  c.p.ssim = radius > 0;
  c.p.mse = c.p.l1 = radius == 0;
  if (radius) c.set_window(radius, 1.5);
  c.set_shape(s);
  c.input = Input(Dtype::float32, contiguous(s), s);
  c.target = Input(Dtype::float32, contiguous(s), s);
  c.weight = Input(Dtype::float32, contiguous(s), s);
  c.factors.assign(size_t(c.p.terms()), 1.0f);
  for (int64_t i = 0; i < s.height; ++i)
    for (int64_t j = 0; j < s.width; ++j) {
      const double value = y(i, j);
      c.target.set(0, 0, i, j, value);
      c.input.set(0, 0, i, j, value + x(i, j));
      c.weight.set(0, 0, i, j, 1);
    }
  c.input_gradient = Output<float>(contiguous(s), s);
  c.target_gradient = Output<float>(contiguous(s), s);
  return c;
}

// Each strip has its own brightness and its own offset between the images: a level that is not the
// strip's leaves 1e-7 of their squares in variances of 1e-6.
void strips_of_their_own(int radius) {
  Random random(3);
  const Shape s{1, 1, 48, 768};
  auto strip = [](int64_t j) { return j / 256; };
  auto c = scene(
      "strips of their own brightness", s, radius,
      [&](int64_t, int64_t j) { return 0.15 * double(strip(j)) + 1e-3 * random.normal(); },
      [&](int64_t, int64_t j) { return 0.1 + 0.3 * double(strip(j)) + 1e-3 * random.normal(); });
  if (Tiling(c.p).strip_width != 256) fail(c.name, "strips are not where this scene has them");
  // Windows that see two strips are no concern of a level.
  for (int64_t i = 0; i < s.height; ++i)
    for (int64_t j = 0; j < s.width; ++j)
      if ((j + 16) % 256 < 32) c.weight.set(0, 0, i, j, 0);
  c.run(OneThread{});
  check(c, {1e-5, 1e-5, 1e-4});
}

// The variance of x - y is about 1e-10, and rounding, to which the first columns add by setting
// the level off, puts many of them below 0. Their derivative must survive.
void clamped_variance(int radius) {
  Random random(4);
  const Shape s{1, 1, 64, 64};
  auto c = scene(
      "clamped variance", s, radius,
      [&](int64_t, int64_t j) { return (j < 20 ? 0.5 : 0.0) + 2e-5 * random.normal(); },
      [](int64_t, int64_t) { return 0.3; });
  for (int64_t i = 0; i < s.height; ++i)
    for (int64_t j = 0; j < 20 + 10; ++j) c.weight.set(0, 0, i, j, 0);
  c.run(OneThread{});
  check(c, {1e9, 1e-2, 1e-1});
}

// The last strip is one column wide: less than a radius, and without a window under "valid".
void narrow_last_strip(int radius) {
  for (const Border border : {Border::reflect, Border::valid, Border::zeros})
    for (const bool with_map : {false, true}) {
      Random random(6);
      const Shape s{1, 1, 2 * radius + 2, 3841};
      auto c = scene(
          with_map ? "narrow last strip, map" : "narrow last strip", s, radius,
          [&](int64_t, int64_t) { return 0.1 * random.normal(); },
          [&](int64_t, int64_t) { return random.uniform(); });
      c.p.border = border;
      if (Tiling(c.p).tile(Tiling(c.p).strips * Tiling(c.p).bands - 1).column != s.width - 1)
        fail(c.name, "strips are not where this scene has them");
      if (with_map) {
        c.map_corner = border == Border::valid ? radius : 0;
        const Shape grid{1, 1, s.height - 2 * c.map_corner, s.width - 2 * c.map_corner};
        c.map = Output<float>(contiguous(grid), grid);
        c.input_gradient = {};
        c.target_gradient = {};
      }
      c.run(OneThread{});
      check(c, {1e-5, 1e-5, 1e-4});
    }
}

void nearly_equal(int radius) {
  for (const double apart : {1e-1, 1e-2, 1e-3, 1e-4, 1e-5})
    for (const double base : {0.02, 0.5, 0.95}) {
      Random random(5);
      const Shape s{1, 1, 70, 90};
      char name[100];
      std::snprintf(name, sizeof name, "%g apart at %g, radius %d", apart, base, radius);
      // At 0.02 a texture, else flat.
      auto c = scene(
          name, s, radius, [&](int64_t, int64_t) { return apart * random.normal(); },
          [&](int64_t, int64_t) { return base + base * (base < 0.1 ? random.uniform() : 0); });
      c.run(OneThread{});
      // Promised where L <= 0.9; the squared error of images 1e-5 apart is 1e-10.
      check(c, {1e-5, 1e-5, 1e-4});
    }
}

void scenes(const Arguments& arguments) {
  nearly_equal(0);
  for (const int radius : arguments.radii) {
    nearly_equal(radius);
    strips_of_their_own(radius);
    clamped_variance(radius);
    narrow_last_strip(radius);
  }
}

Arguments parse(int count, char** values) {
  Arguments a;
  for (int i = 1; i + 1 < count; i += 2) {
    const std::string_view name = values[i];
    const char* value = values[i + 1];
    if (name == "--seed") a.seed = std::strtoull(value, nullptr, 10);
    else if (name == "--cases") a.cases = std::atoll(value);
    else if (name == "--seconds") a.seconds = std::atof(value);
    else if (name == "--only") a.only = value;
    else if (name == "--stop") stop = *value == '1';
    else if (name == "--radii") {
      a.radii.clear();
      for (const char* at = value; *at; ++at)
        if (*at != ',') a.radii.push_back(*at - '0');
    } else {
      std::fprintf(stderr, "unknown argument %s\n", values[i]);
      std::exit(2);
    }
  }
  return a;
}

}  // namespace

int main(int count, char** values) {
  const Arguments arguments = parse(count, values);
  auto wanted = [&](const char* what) { return arguments.only.empty() || arguments.only == what; };
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // a crash leaves what was said before
  std::printf("instruction set: %s\n", lamp_kernels::isa().name);
  if (wanted("cases")) random_cases(arguments), empty(arguments);
  if (wanted("halves")) halves();
  if (wanted("scenes")) scenes(arguments);
  std::printf("%d failures\n", failures);
  return failures != 0;
}
