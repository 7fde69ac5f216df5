#include "cosine.h"

#include "cpu/cosine_launch.h"

namespace {

using lamp_kernels::CosineParams;
using Long = long double;

// A part of the work at a time, first to last or last to first.
struct Forward {
  template <class F>
  void operator()(int64_t begin, int64_t end, int64_t, F f) const {
    if (begin < end) f(begin, end);
  }
};
struct Backward {
  template <class F>
  void operator()(int64_t begin, int64_t end, int64_t, F f) const {
    for (int64_t i = end - 1; i >= begin; --i) f(i, i + 1);
  }
};

// A(L) and A'(L) of "log" and "none".
Long amplify(const Params& p, Long loss, Long& slope) {
  slope = 1;
  if (p.amplify == Amplify::none) return loss;
  const Long eps = p.amplify_parameters[0], knee = 1 - eps;
  slope = loss > knee ? 1 / eps : 1 / (1 - loss);
  return loss > knee ? -std::log1p(-knee) + (loss - knee) / eps : -std::log1p(-loss);
}

template <class T>
struct CosineCase : Case<T> {
  double epsilon = 1e-8;

  // With the factors of the images, or, if `joined`, with that of the first for a sum of them all.
  template <class ParallelFor>
  void run(bool joined, ParallelFor parallel_for) {
    this->input_gradient.poison();
    this->target_gradient.poison();
    this->map.poison();
    Params& p = this->p;
    p.input = this->input.source();
    p.target = this->target.source();
    p.mask = this->mask.source();
    p.weight = this->weight ? this->weight.source() : p.mask;
    p.factors = joined ? nullptr : this->factors.data();
    p.shared_factors[0] = double(this->factors[0]);
    p.input_gradient = this->input_gradient.sink();
    p.target_gradient = this->target_gradient.sink();
    p.map = this->map.sink();
    this->scaled_sums.assign(joined ? 1 : size_t(p.batch), T(NAN));
    CosineParams c{p, epsilon, false};
    c.arrange(!joined && !p.map.data);
    lamp_kernels::compute_cosine<T>(c, p.map.data ? nullptr : this->scaled_sums.data(),
                                    joined ? Sums::batch : Sums::images, parallel_for);
  }

  textbook::Result expected() const {
    const Params& p = this->p;
    const Shape& s = this->shape;
    textbook::Result r;
    r.scaled_sums.assign(size_t(s.batch), 0);
    r.map.assign(size_t(s.size()), 0);
    r.input_gradient = r.target_gradient = r.map;
    for (int64_t n = 0; n < s.batch; ++n)
      for (int64_t i = 0; i < s.height; ++i)
        for (int64_t j = 0; j < s.width; ++j) {
          if (this->mask && this->mask.get(n, 0, i, j) == 0) continue;
          auto of = [&](const Input& from, int64_t k) { return Long(from.get(n, k, i, j)); };
          Long x2 = 0, y2 = 0;
          for (int64_t k = 0; k < s.channels; ++k) {
            x2 += of(this->input, k) * of(this->input, k);
            y2 += of(this->target, k) * of(this->target, k);
          }
          const bool small_x = std::sqrt(x2) < epsilon, small_y = std::sqrt(y2) < epsilon;
          const Long x_norm = small_x ? Long(epsilon) : std::sqrt(x2);
          const Long y_norm = small_y ? Long(epsilon) : std::sqrt(y2);
          auto a = [&](int64_t k) { return of(this->input, k) / x_norm; };
          auto b = [&](int64_t k) { return of(this->target, k) / y_norm; };
          Long loss = 0, along_a = 0, along_b = 0;  // along: of the slope, which is (a - b)/2
          for (int64_t k = 0; k < s.channels; ++k) {
            loss += (a(k) - b(k)) * (a(k) - b(k)) / 4;
            along_a += small_x ? 0 : a(k) * (a(k) - b(k)) / 2;
            along_b += small_y ? 0 : b(k) * (b(k) - a(k)) / 2;
          }
          Long slope;
          const Long value = amplify(p, loss, slope);
          const Input& weights = this->weight ? this->weight : this->mask;
          const Long weight = weights ? weights.get(n, 0, i, j) : 1;
          const Long factor = this->factors[size_t(n)];
          r.scaled_sums[size_t(n)] += double(factor * weight * value);
          r.map[size_t(contiguous(s).at(n, 0, i, j))] = double(this->factors[0] * value);
          for (int64_t k = 0; k < s.channels; ++k) {
            const size_t at = size_t(contiguous(s).at(n, k, i, j));
            const Long half = (a(k) - b(k)) / 2, g = factor * weight * slope;
            r.input_gradient[at] = double(g * (half - along_a * a(k)) / x_norm);
            r.target_gradient[at] = double(g * (-half - along_b * b(k)) / y_norm);
          }
        }
    return r;
  }

  void check(const Limits& limits) {
    const textbook::Result want = expected();
    double all = 0;
    for (size_t n = 0; n < want.scaled_sums.size(); ++n) {
      all += want.scaled_sums[n];
      if (this->scaled_sums.size() > 1)
        check_sum(this->scaled_sums[n], want.scaled_sums[n], limits);
    }
    if (this->scaled_sums.size() == 1) check_sum(this->scaled_sums[0], all, limits);
    check_tensor(*this, "input gradient", this->input_gradient, 0, want.input_gradient, limits);
    check_tensor(*this, "target gradient", this->target_gradient, 0, want.target_gradient, limits);
    check_tensor(*this, "map", this->map, 0, want.map, limits);
  }

  void check_sum(T got, double want, const Limits& limits) {
    if (this->map) return;
    if (!std::isfinite(want) || !std::isfinite(double(got))) {
      if (std::isfinite(want) != std::isfinite(double(got))) fail(this->name, "a sum hides NaN");
    } else if (const double error = double(got) == want ? 0 : std::abs(double(got) / want - 1);
               !(error <= limits.share)) {
      fail(this->name, "relative error of a sum", error, limits.share);
    }
  }
};

// Vectors y and x, `apart` in units of y, one of them perhaps with a NaN; unless they are nearly
// parallel, for which float32 has the digits only if they are equally long, also short and zero ones.
template <class T>
void fill(CosineCase<T>& c, double apart, Random& random) {
  const Shape& s = c.shape;
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t i = 0; i < s.height; ++i)
      for (int64_t j = 0; j < s.width; ++j) {
        auto length = [&] {
          return apart > 0.01 && random.chance(0.1) ? random.of<double>({0, 1e-3}) : 1;
        };
        const double short_x = length(), short_y = length();
        const bool nan = random.chance(0.2 / double(s.batch * s.height * s.width));
        for (int64_t k = 0; k < s.channels; ++k) {
          const double y = 0.1 + random.uniform(), x = y + apart * random.normal();
          c.target.set(n, k, i, j, short_y * y);
          c.input.set(n, k, i, j, nan && k == s.channels / 2 ? NAN : short_x * x);
        }
      }
}

template <class T>
void cosine_case(uint64_t seed) {
  Random random(seed);
  CosineCase<T> c;
  if (random.chance(0.3)) c.p.amplify = Amplify::none;
  c.set_shape({1 + random.below(3), random.of<int64_t>({2, 17, 64, 70, 300}),
               random.of<int64_t>({1, 1, 3}), random.of<int64_t>({1, 7, 16, 64, 65, 130})});
  const Shape& s = c.shape;
  const bool last = random.chance(0.4);
  auto layout = [&] { return last ? channels_last(s) : some_layout(s, random); };
  const Dtype dtype = random.of<Dtype>({kDtype<T>, kDtype<T>, Dtype::float16, Dtype::bfloat16});
  Layout of_input = layout();
  if (random.chance(0.1)) of_input.batch = 0;
  c.input = Input(dtype, of_input, s);
  c.target = Input(random.chance(0.2) ? kDtype<T> : dtype, layout(), s);
  c.epsilon = random.of<double>({1e-8, 0.5});
  // Half types round y and x to numbers that are further apart.
  const double apart = random.of<double>({1, 0.1, 1e-3});
  fill(c, apart, random);
  const Shape positions{s.batch, 1, s.height, s.width};
  if (random.chance(0.5)) add_weight(kDtype<T>, positions, random, c.weight);
  if (random.chance(0.4)) {
    add_mask(kDtype<T>, positions, random, c.mask);
    if (of_input.batch) spoil_hidden(s, c.mask, random, c.input);
    spoil_hidden(s, c.mask, random, c.target);
    if (c.weight) include_mask(kDtype<T>, positions, 0, c.mask, c.weight);
  }
  const bool joined = random.chance(0.4);
  for (int64_t n = 0; n < s.batch; ++n)
    c.factors.push_back(joined && n ? c.factors[0] : T(0.5 + random.uniform()));
  const int wanted = int(random.below(4));
  if (wanted & 1) c.input_gradient = Output<T>(layout(), s);
  if (wanted & 2) c.target_gradient = Output<T>(layout(), s);
  if (!wanted && random.chance(0.7)) c.map = Output<T>(some_layout(positions, random), positions);
  char name[200];
  std::snprintf(name, sizeof name,
                "cosine, seed %llu: %s (%lld, %lld, %lld, %lld), gradients %d, map %d, weight %d, "
                "mask %d",
                (unsigned long long)seed, sizeof(T) == 4 ? "float" : "double", (long long)s.batch,
                (long long)s.channels, (long long)s.height, (long long)s.width, wanted, bool(c.map),
                bool(c.weight), bool(c.mask));
  c.name = name;
  c.run(joined, Forward());
  c.check(sizeof(T) == 4 ? Limits{1e-5, 1e-5, 4e-5} : Limits{3e-11, 3e-11, 1e-10});
  const std::vector<char> bits = c.bits();
  c.run(joined, Backward());
  if (c.bits() != bits) fail(c.name, "depends on the order of the tiles");
}

}  // namespace

void cosine_cases(const Arguments& arguments) {
  for (uint64_t i = 0; i < uint64_t(arguments.cases); ++i) {
    const uint64_t seed = arguments.seed + i;
    seed % 3 ? cosine_case<float>(seed) : cosine_case<double>(seed);
  }
  std::printf("%lld cosine cases\n", (long long)arguments.cases);
}
