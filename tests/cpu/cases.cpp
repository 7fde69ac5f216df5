#include "cases.h"

#include <chrono>
#include <string_view>

namespace {

// ---- Random cases ------------------------------------------------------------------------------

// Side lengths just below, at and above multiples of strips, bands, row steps and vectors.
int64_t some_side(int64_t least, Random& random) {
  if (random.chance(0.15)) return least;
  const int64_t side =
      random.of<int64_t>({2,   4,   8,   9,   15,  16,  17,  24,  31,  32,  33,  48,  64,  65, 96,
                          127, 128, 129, 192, 200, 255, 256, 257, 272, 273, 320, 511, 512, 513});
  return std::max(least, side);
}

Shape some_shape(const Params& p, int64_t least, int64_t work, Random& random) {
  // The textbook implementation visits every pixel of every window.
  const int64_t pixels = work / (p.windowed() ? (2 * p.radius + 1) * (2 * p.radius + 1) : 30);
  Shape s{1 + random.below(3), 1 + random.below(3), some_side(least, random),
          some_side(least, random)};
  if (random.chance(0.05)) {  // several bands of maximum height
    s = {1, 1, random.of<int64_t>({1023, 1024, 1025, 2050}), least + random.below(20)};
  } else if (random.chance(0.05)) {  // many strips, the last or second to last of them narrow
    s = {1, 1, least + random.below(20), random.of<int64_t>({3841, 3842, 3855, 3857})};
  } else if (random.chance(0.1)) {  // few planes, so that several bands share them
    s.batch = s.channels = 1;
    s.height = 128 + random.below(130);
  }
  while (s.size() > pixels) {
    if (s.batch > 1)
      --s.batch;
    else if (s.channels > 1)
      --s.channels;
    else if (s.width > s.height)
      s.width = std::max(least, pixels / s.height);
    else
      s.height = std::max(least, pixels / s.width);
    if (s.height <= least && s.width <= least) break;
  }
  return s;
}

template <class T>
void random_case(uint64_t seed, const Arguments& arguments, Kernels& kernels) {
  Random random(seed);
  Case<T> c;
  Params& p = c.p;
  p.terms.set(Metric::gms, kernels.has_gms() && random.chance(0.2));
  while (!p.terms.count()) {
    p.terms.set(Metric::ssim, random.chance(0.7));
    for (int m = 1; m < kMetrics; ++m) p.terms.set(Metric(m), random.chance(0.4));
  }
  p.border = Border(random.below(3));
  p.amplify = random.of<Amplify>({Amplify::log, Amplify::log, Amplify::none, Amplify::power});
  if (p.amplify == Amplify::power) {
    p.amplify_parameters[0] = random.of<double>({0.5, 2.0, 3.0});  // gamma
    p.amplify_parameters[1] = random.of<double>({0.5, 0.1});       // delta
  } else {
    p.amplify_parameters[0] = random.of<double>({1e-2, 1e-1, 1e-4});  // eps
  }
  p.scale = random.of<double>({1.0, 1.0, 1.0 / 255});
  p.ssim_scale = random.of<double>({0.5, 1.0});
  if (p.gms())
    p.radius = lamp_kernels::kGmsRadius;
  else if (p.ssim())
    c.set_window(random.of(arguments.radii), random.of<double>({0.7, 1.5, 4}));
  else
    p.border = Border::reflect;

  int64_t least = 1;
  if (p.windowed() && p.border == Border::reflect) least = p.radius + 1;
  if (p.windowed() && p.border == Border::valid) least = 2 * p.radius + 1;
  c.set_shape(some_shape(p, least, arguments.work, random));
  complete_and_check(c, seed, random, kernels);
}

void random_cases(const Arguments& arguments, Kernels& kernels) {
  const auto start = std::chrono::steady_clock::now();
  auto elapsed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  int64_t i = 0;
  for (; i < arguments.cases && elapsed() < arguments.seconds; ++i) {
    const uint64_t seed = arguments.seed * 1'000'000 + uint64_t(i);
    if (i % 3 == 0)
      random_case<double>(seed, arguments, kernels);
    else
      random_case<float>(seed, arguments, kernels);
  }
  std::printf("%lld random cases; sums to %.2g, gradients to %.2g and %.2g of what is allowed\n",
              (long long)i, worst_share, worst_norm, worst_largest);
}

// ---- Empty tensors -----------------------------------------------------------------------------

void empty(const Arguments& arguments, Kernels& kernels) {
  for (const Shape s : {Shape{0, 3, 32, 32}, Shape{2, 0, 32, 32}}) {
    Case<float> c;
    c.name = "empty";
    c.p.terms.set(Metric::ssim), c.p.terms.set(Metric::l1);
    c.set_window(arguments.radii[0], 1.5);
    c.set_shape(s);
    c.input = Input(Dtype::float32, contiguous(s), s);
    c.target = Input(Dtype::float32, contiguous(s), s);
    c.factors.assign(size_t(2 * s.batch), 1.0f);
    c.input_gradient = Output<float>(contiguous(s), s);
    c.run(kernels);
    for (const float share : c.scaled_sums)
      if (share != 0) fail(c.name, "its sum is not 0");
  }
}

// ---- All values of the half-precision types ----------------------------------------------------

void halves(Kernels& kernels) {
  for (const Dtype dtype : {Dtype::float16, Dtype::bfloat16}) {
    Case<float> c;
    c.name = dtype == Dtype::float16 ? "float16" : "bfloat16";
    const Shape s{1, 1, 256, 256};
    c.set_shape(s);
    c.p.terms.set(Metric::mse);
    c.p.amplify = Amplify::none;
    std::vector<uint16_t> bits(65536);  // the gradient of (x - 0)^2 is 2 x
    for (size_t i = 0; i < bits.size(); ++i) bits[i] = uint16_t(i);
    c.target = Input(Dtype::float32, contiguous(s), s);
    for (int64_t i = 0; i < 65536; ++i) c.target.set(0, 0, i / 256, i % 256, 0);
    c.factors = {0.5f};
    c.input_gradient = Output<float>(contiguous(s), s);
    c.input = Input(dtype, contiguous(s), s);
    std::memcpy((void*)c.input.source().data, bits.data(), sizeof(uint16_t) * bits.size());
    c.run(kernels);
    for (int64_t i = 0; i < 65536; ++i) {
      const double want = from_bits16(dtype, uint16_t(i));
      const double got = c.input_gradient.get(0, 0, i / 256, i % 256);
      // 2x overflows if x is 2^127 or more.
      const bool same = std::abs(want) >= 0x1p127 ? !(std::abs(got) < 0x1p127)
                                                  : got == want || (got != got && want != want);
      if (!same) return fail(c.name, "wrong value of some bits", got, want);
    }
  }
}

// ---- Scenes ------------------------------------------------------------------------------------

// A float32 case with both gradients, of SSIM or, if `radius` is 0, of the pointwise losses. The
// target is y(i, j), the input y(i, j) + x(i, j).
template <class X, class Y>
Case<float> scene(const char* name, const Shape& s, int radius, X x, Y y) {
  Case<float> c;
  c.name = name;
  for (int m = 0; m < kMetrics; ++m) c.p.terms.set(Metric(m), (m == 0) == (radius > 0));
  if (radius) c.set_window(radius, 1.5);
  c.set_shape(s);
  c.input = Input(Dtype::float32, contiguous(s), s);
  c.target = Input(Dtype::float32, contiguous(s), s);
  c.weight = Input(Dtype::float32, contiguous(s), s);
  c.factors.assign(size_t(c.p.terms.count()), 1.0f);
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

// Each strip has a different brightness and a different offset between the images. A shift taken
// from another strip leaves 1e-7 of their squares in variances of 1e-6.
void strips_of_their_own(int radius, Kernels& kernels) {
  Random random(3);
  const Shape s{1, 1, 48, 768};
  int64_t width = s.width;
  auto strip = [&](int64_t j) { return j / width % 3; };
  auto pixels = [&] {
    return scene(
        "strips of their own brightness", s, radius,
        [&](int64_t, int64_t j) { return 0.15 * double(strip(j)) + 1e-3 * random.normal(); },
        [&](int64_t, int64_t j) { return 0.1 + 0.3 * double(strip(j)) + 1e-3 * random.normal(); });
  };
  width = kernels.strip_width(pixels().p, false, 2);
  auto c = pixels();
  if (width >= s.width) fail(c.name, "there is only one");
  // Windows that span two strips do not test the shift, so they get weight 0.
  for (int64_t i = 0; i < s.height; ++i)
    for (int64_t j = 0; j < s.width; ++j)
      if ((j + radius) % width < 2 * radius) c.weight.set(0, 0, i, j, 0);
  c.run(kernels);
  check(c, {1e-5, 1e-5, 1e-4});
}

// The variance of x - y is about 1e-10. Where the shift comes from other pixels, which differ less,
// rounding makes many variances negative. Their derivatives must not become zero.
void clamped_variance(int radius, Kernels& kernels) {
  Random random(4);
  const Shape s{1, 1, 64, 64};
  auto c = scene(
      "clamped variance", s, radius,
      [&](int64_t, int64_t j) { return (j < 30 ? 0.0 : 0.3) + 2e-5 * random.normal(); },
      [](int64_t, int64_t) { return 0.3; });
  for (int64_t i = 0; i < s.height; ++i)
    for (int64_t j = 20; j < 40; ++j) c.weight.set(0, 0, i, j, 0);
  c.run(kernels);
  check(c, {1e9, 1e-2, 1e-1});
}

// The shift must come from pixels with nonzero weight and, among these, from pixels where the
// images are nearly equal.
void uneven_weights(int radius, Kernels& kernels) {
  struct Kind {
    const char* name;
    double seen, others;  // x - y inside windows with nonzero weight, and elsewhere
    double weight;        // of the other windows
    bool one;             // only one window has a weight, which the level's samples may miss
  };
  const Kind kinds[] = {
      {"defect masked", 0, 0.3, 0, false},
      {"defect that hardly counts", 0, 0.3, 1e-20, false},
      {"equal frame masked", 0.3, 0, 0, false},
      {"all but one pixel masked", 0.3, 0.3, 0, true},
  };
  for (const Kind& kind : kinds) {
    Random random(7);
    const Shape s{1, 1, 96, 96};
    auto counts = [&](int64_t i, int64_t j, int64_t margin) {
      return kind.one ? std::abs(i - 61) <= margin && std::abs(j - 45) <= margin : j >= 40 - margin;
    };
    auto c = scene(
        kind.name, s, radius,
        [&](int64_t i, int64_t j) {
          return counts(i, j, radius + 1) ? kind.seen + 1e-5 * random.normal() : kind.others;
        },
        [](int64_t, int64_t) { return 0.6; });
    for (int64_t i = 0; i < s.height; ++i)
      for (int64_t j = 0; j < s.width; ++j)
        if (!counts(i, j, 0)) c.weight.set(0, 0, i, j, kind.weight);
    c.run(kernels);
    check(c, {1e-5, 1e-5, 1e-4});
  }
}

// A dark region must not cost windows in a bright region any accuracy.
void light_beside_dark(int radius, Kernels& kernels) {
  struct Kind {
    const char* name;
    double (*brightness)(int64_t i, int64_t j);
  };
  const Kind kinds[] = {
      {"bright rows below dark ones", [](int64_t i, int64_t) { return i >= 31 ? 0.95 : 0.05; }},
      {"bright columns beside dark ones", [](int64_t, int64_t j) { return j >= 45 ? 0.95 : 0.05; }},
      {"a bright row", [](int64_t i, int64_t) { return i == 31 ? 0.95 : 0.05; }},
      {"a bright corner", [](int64_t i, int64_t j) { return i >= 31 && j >= 45 ? 0.95 : 0.05; }},
      {"bands", [](int64_t i, int64_t) { return i / 24 % 2 ? 0.05 : 0.95; }},
      {"many tones",
       [](int64_t i, int64_t j) { return double((7 * (i / 16) + 3 * (j / 24)) % 11) / 11; }},
      {"a slope", [](int64_t i, int64_t) { return double(i) / 80; }},
  };
  for (const Kind& kind : kinds)
    for (const double sigma : {1.5, 0.1 * (2 * radius + 1)})
      for (const bool with_map : {false, true}) {
        Random random(8);
        const Shape s{1, 1, 80, 90};
        char name[100];
        std::snprintf(name, sizeof name, "%s, radius %d, sigma %g", kind.name, radius, sigma);
        auto c = scene(
            name, s, radius, [&](int64_t, int64_t) { return 1e-3 * random.normal(); },
            kind.brightness);
        c.set_window(radius, sigma);
        if (with_map) {
          c.map = Output<float>(contiguous(s), s);
          c.input_gradient = {};
          c.target_gradient = {};
        }
        c.run(kernels);
        check(c, {1e-5, 1e-5, 5e-5});
      }
}

// The last strip is one column wide: less than the radius, and without any window if "valid".
void narrow_last_strip(int radius, Kernels& kernels) {
  for (const Border border : {Border::reflect, Border::valid, Border::zeros})
    for (const bool with_map : {false, true}) {
      Random random(6);
      Shape s{1, 1, 2 * radius + 2, 100};
      Case<float> c;
      c.set_window(radius, 1.5);
      c.p.terms.set(Metric::ssim);
      c.p.border = border;
      for (int64_t width = 0; width == 0 || s.width % width != 1;) {
        if (++s.width > 10'000) return fail("narrow last strip", "there is none");
        c.set_shape(s);
        width = kernels.strip_width(c.p, false, with_map ? 0 : 2);
      }
      c = scene(
          with_map ? "narrow last strip, map" : "narrow last strip", s, radius,
          [&](int64_t, int64_t) { return 0.1 * random.normal(); },
          [&](int64_t, int64_t) { return random.uniform(); });
      c.p.border = border;
      if (with_map) {
        c.map_corner = border == Border::valid ? radius : 0;
        const Shape grid{1, 1, s.height - 2 * c.map_corner, s.width - 2 * c.map_corner};
        c.map = Output<float>(contiguous(grid), grid);
        c.input_gradient = {};
        c.target_gradient = {};
      }
      c.run(kernels);
      check(c, {1e-5, 1e-5, 1e-4});
    }
}

void nearly_equal(int radius, Kernels& kernels) {
  for (const double apart : {1e-1, 1e-2, 1e-3, 1e-4, 1e-5})
    for (const double base : {0.02, 0.5, 0.95}) {
      Random random(5);
      const Shape s{1, 1, 70, 90};
      char name[100];
      std::snprintf(name, sizeof name, "%g apart at %g, radius %d", apart, base, radius);
      // A texture if the value is 0.02, otherwise flat.
      auto c = scene(
          name, s, radius, [&](int64_t, int64_t) { return apart * random.normal(); },
          [&](int64_t, int64_t) { return base + base * (base < 0.1 ? random.uniform() : 0); });
      c.run(kernels);
      // Accuracy is promised for L <= 0.9; the squared error of images 1e-5 apart is 1e-10.
      check(c, {1e-5, 1e-5, 1e-4});
    }
}

// GMS of images that are nearly equal, on a texture and on flat images, which have no gradient.
void nearly_equal_gradients(Kernels& kernels) {
  for (const double apart : {1e-1, 1e-2, 1e-3, 1e-4, 1e-5})
    for (const double texture : {0.5, 0.0}) {
      Random random(9);
      char name[100];
      std::snprintf(name, sizeof name, "GMS, %g apart, texture %g", apart, texture);
      const Shape s{1, 1, 70, 90};
      auto c = scene(
          name, s, 1, [&](int64_t, int64_t) { return apart * random.normal(); },
          [&](int64_t, int64_t) { return 0.4 + texture * random.uniform(); });
      c.p.terms = {};
      c.p.terms.set(Metric::gms);
      c.run(kernels);
      check(c, {1e-5, 1e-5, 1e-4});
    }
}

void scenes(const Arguments& arguments, Kernels& kernels) {
  nearly_equal(0, kernels);
  if (kernels.has_gms()) nearly_equal_gradients(kernels);
  for (const int radius : arguments.radii) {
    nearly_equal(radius, kernels);
    strips_of_their_own(radius, kernels);
    clamped_variance(radius, kernels);
    uneven_weights(radius, kernels);
    light_beside_dark(radius, kernels);
    narrow_last_strip(radius, kernels);
  }
}

}  // namespace

Arguments parse(int count, char** values) {
  Arguments a;
  for (int i = 1; i + 1 < count; i += 2) {
    const std::string_view name = values[i];
    const char* value = values[i + 1];
    // clang-format off
    if (name == "--seed") a.seed = std::strtoull(value, nullptr, 10);
    else if (name == "--cases") a.cases = std::atoll(value);
    else if (name == "--seconds") a.seconds = std::atof(value);
    else if (name == "--work") a.work = std::atoll(value);
    else if (name == "--only") a.only = value;
    else if (name == "--ways") most_ways = std::atoi(value);
    else if (name == "--stop") stop = *value == '1';
    // clang-format on
    else if (name == "--radii" || name == "--volume-radii") {
      std::vector<int>& radii = name == "--radii" ? a.radii : a.volume_radii;
      radii.clear();
      for (const char* at = value; *at; ++at)
        if (*at != ',') radii.push_back(*at - '0');
    } else {
      std::fprintf(stderr, "unknown argument %s\n", values[i]);
      std::exit(2);
    }
  }
  return a;
}

void run_cases(const Arguments& arguments, Kernels& kernels) {
  if (arguments.wants("cases")) {
    random_cases(arguments, kernels);
    kernels.vary(0);
    empty(arguments, kernels);
  }
  if (arguments.wants("halves")) halves(kernels);
  if (arguments.wants("scenes")) scenes(arguments, kernels);
}
