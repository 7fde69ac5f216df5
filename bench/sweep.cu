// Times the SSIM kernels, without torch, over shapes, designs and tilings, and compares each gradient
// with the first one. Writes one JSON object per line to stdout.
//
//   nvcc -O3 -std=c++20 -arch=sm_90 -Icsrc bench/sweep.cu csrc/cuda/*.cu -o sweep
//   sweep           everything: the tiles that the library chooses, then others
//   sweep --only    for a profiler: the library's tiles for the first shapes, one or two launches each
//   sweep --check   for a sanitizer: small shapes, every design and block size once
//
// Tests run it on the CPU (tests/cuda_host/test_sweep.py), where all times are zero.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "cuda/launch.h"
#include "gaussian_taps.h"

using namespace lamp_kernels;
using namespace lamp_kernels::cuda;

namespace {

enum class Scope { all, only, check };

void ok(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  std::printf("{\"problem\": \"%s: %s\"}\n", what, cudaGetErrorString(status));
  std::exit(1);
}

// Device memory with copies from and to the host.
class Memory {
 public:
  explicit Memory(size_t bytes) : bytes_(bytes) {
    ok(cudaMalloc(&data_, bytes + !bytes), "memory");
  }
  ~Memory() { cudaFree(data_); }
  Memory(const Memory&) = delete;

  void* data() const { return data_; }
  void fill(int byte) { ok(cudaMemset(data_, byte, bytes_), "fill"); }
  void put(const std::vector<float>& values) {
    ok(cudaMemcpy(data_, values.data(), bytes_, cudaMemcpyHostToDevice), "copy");
  }
  std::vector<float> floats() const {
    std::vector<float> values(bytes_ / sizeof(float));
    ok(cudaMemcpy(values.data(), data_, bytes_, cudaMemcpyDeviceToHost), "copy");
    return values;
  }

 private:
  void* data_ = nullptr;
  size_t bytes_;
};

// Milliseconds that a function takes between two events.
class Clock {
 public:
  Clock() { ok(cudaEventCreate(&begin_), "event"), ok(cudaEventCreate(&end_), "event"); }
  ~Clock() { cudaEventDestroy(begin_), cudaEventDestroy(end_); }

  template <class F>
  double operator()(F&& f) {
    ok(cudaEventRecord(begin_, nullptr), "event");
    f();
    ok(cudaEventRecord(end_, nullptr), "event");
    ok(cudaEventSynchronize(end_), "launch");
    float ms = 0;
    ok(cudaEventElapsedTime(&ms, begin_, end_), "event");
    return ms;
  }

 private:
  cudaEvent_t begin_, end_;
};

struct Shape {
  int64_t batch, channels, height, width;
  int64_t size() const { return batch * channels * height * width; }
};

// Images, gradient and factors of one shape, and the parameters of the call.
class Problem {
 public:
  Problem(const Shape& shape, Border border, int gradients)
      : shape_(shape), gradients_(gradients), x_(bytes()), y_(bytes()), gradient_(bytes()),
        factors_(size_t(shape.batch) * sizeof(float)) {
    // A texture, and the same with noise, from a linear congruential generator.
    std::vector<float> x(size_t(shape.size())), y(x.size());
    uint32_t state = 1;
    auto uniform = [&] {
      return float((state = state * 1664525u + 1013904223u) >> 8) / 16777216.0f;
    };
    for (size_t i = 0; i < x.size(); ++i) {
      y[i] = uniform();
      x[i] = std::min(std::max(y[i] + 0.2f * (uniform() - 0.5f), 0.0f), 1.0f);
    }
    x_.put(x);
    y_.put(y);
    factors_.put(std::vector<float>(size_t(shape.batch), 1.0f / float(shape.size())));
    p.batch = shape.batch, p.channels = shape.channels;
    p.height = shape.height, p.width = shape.width;
    p.terms.set(Metric::ssim);
    p.amplify = Amplify::log;
    p.amplify_parameters[0] = 1e-2;  // eps
    p.scale = 1;
    p.radius = 5;
    p.border = border;
    gaussian_taps(5, 1.5, p.taps);
    p.c1 = 1e-4;
    p.c2 = 9e-4;
    p.ssim_scale = 0.5;
    const int64_t row = shape.width, plane = shape.height * row, image = shape.channels * plane;
    p.input = {x_.data(), Dtype::float32, image, plane, row, 1};
    p.target = p.input;
    p.target.data = y_.data();
    p.factors = factors_.data();
    if (gradients) p.input_gradient = {gradient_.data(), image, plane, row, 1};
  }

  void poison() { gradient_.fill(0xff); }  // NaN
  // Relative L2 distance of the gradient from the first one for which this was called.
  double error() {
    if (!gradients_) return 0;
    const std::vector<float> found = gradient_.floats();
    if (first_.empty()) first_ = found;
    double error = 0, norm = 0;
    for (size_t i = 0; i < found.size(); ++i) {
      error += std::pow(double(found[i]) - first_[i], 2);
      norm += std::pow(double(first_[i]), 2);
    }
    return std::sqrt(error / norm);
  }

  Params p{};

 private:
  Shape shape_;
  int gradients_;
  Memory x_, y_, gradient_, factors_;
  std::vector<float> first_;

  size_t bytes() const { return size_t(shape_.size()) * sizeof(float); }
};

class Sweep {
 public:
  explicit Sweep(Scope scope) : scope_(scope), device_(describe_device(0)), cache_(kFlushed) {
    cache_.fill(0);
  }

  void run() {
    const Shape main[] = {{8, 3, 256, 256}, {1, 3, 1080, 1920}};
    const Shape more[] = {
        {64, 1, 28, 28}, {32, 3, 256, 256}, {16, 3, 224, 224}, {4, 3, 1024, 1024}};
    const Shape small[] = {{2, 2, 45, 83}, {1, 1, 30, 150}};
    if (scope_ == Scope::check) {
      for (const Shape& s : small)
        for (const Border border : {Border::reflect, Border::valid, Border::zeros})
          shape(s, border, 1);
      return;
    }
    for (const Shape& s : main)
      for (const Border border : {Border::zeros, Border::reflect}) shape(s, border, 1);
    if (scope_ == Scope::only) return;
    for (const Shape& s : more) shape(s, Border::zeros, 1);
    for (const Shape& s : main) shape(s, Border::zeros, 0);
  }

 private:
  static constexpr size_t kFlushed = size_t(256) << 20;  // larger than any L2 cache

  Scope scope_;
  Device device_;
  Memory cache_;
  Clock clock_;

  void shape(const Shape& s, Border border, int gradients) {
    Problem problem(s, border, gradients);
    for (const Design design : {Design::one, Design::two}) {
      if (!gradients && design == Design::one) continue;  // no such kernel exists in float32
      try {
        tilings(problem, s, design);
      } catch (const std::exception& error) {
        std::printf("{\"shape\": [%lld, %lld, %lld, %lld], \"problem\": \"%s\"}\n",
                    (long long)s.batch, (long long)s.channels, (long long)s.height,
                    (long long)s.width, error.what());
      }
    }
  }

  // The library's own tiling, then other block sizes and numbers of bands.
  void tilings(Problem& problem, const Shape& s, Design design) {
    Call call(problem.p, false, device_, design);
    const Plan own = call.plan();
    time(problem, s, call, true);
    if (scope_ == Scope::only) return;
    const KernelResources& r = own.variant->resources;
    const int64_t most = scope_ == Scope::check ? 2 : std::min<int64_t>(s.height / 2, 64);
    for (int warps = 1; warps <= kMostWarps; ++warps)
      for (int64_t bands = 1, last = 0; bands <= most; bands = std::max(bands + 1, bands * 5 / 4)) {
        const Tiling tiling = tiling_of(problem.p, r, warps, bands, device_);
        if (!tiling.threads || tiling.bands == last) continue;
        last = tiling.bands;
        // Tilings that leave most of the device idle are slow and tell nothing.
        const int64_t busy = s.batch * s.channels * tiling.tiles_per_plane() * warps;
        if (scope_ == Scope::all && busy < device_.multiprocessors / 2) continue;
        Plan plan = own;
        plan.tiling = tiling;
        for (int parts = 1; parts <= (own.gradients ? 2 : 1); ++parts) {
          if (own.gradients) {
            const Tilings both(tiling, own.gradients->resources, parts);
            plan.tiling = both.losses;
            plan.gradients_tiling = both.gradients;
          }
          call.use(plan);
          time(problem, s, call, false);
        }
      }
  }

  void time(Problem& problem, const Shape& s, const Call& call, bool own) {
    const Memory scratch(size_t(call.scratch_bytes())),
        scaled_sums(size_t(s.batch) * sizeof(float));
    auto launch = [&] { call.enqueue(scaled_sums.data(), Sums::images, scratch.data(), nullptr); };
    problem.poison();
    launch();
    ok(cudaDeviceSynchronize(), "launch");
    const double error = problem.error();
    double cold = 0, warm = 0;
    if (scope_ == Scope::all) {
      const int rounds = own ? 20 : 5;
      std::vector<double> times;
      for (int i = 0; i < rounds; ++i) {
        cache_.fill(i);  // evicts everything from the L2 cache
        times.push_back(clock_(launch));
      }
      std::sort(times.begin(), times.end());
      cold = times[times.size() / 2];
      const auto ten_launches = [&] {
        for (int i = 0; i < 10; ++i) launch();
      };
      warm = clock_(ten_launches) / 10;
    }
    const Plan& plan = call.plan();
    std::printf(
        "{\"shape\": [%lld, %lld, %lld, %lld], \"gradients\": %d, \"border\": \"%s\", "
        "\"design\": \"%s\", \"own\": %s, ",
        (long long)s.batch, (long long)s.channels, (long long)s.height, (long long)s.width,
        int(problem.p.input_gradient.data != nullptr),
        problem.p.border == Border::zeros   ? "zeros"
        : problem.p.border == Border::valid ? "valid"
                                            : "reflect",
        plan.design == Design::one ? "one" : "two", own ? "true" : "false");
    const int64_t planes = plan.gradients ? plan.planes_at_once : s.batch * s.channels;
    print(plan.variant->resources, plan.tiling, planes);
    if (plan.gradients) {
      std::printf("\"planes_at_once\": %lld, \"second\": {", (long long)plan.planes_at_once);
      print(plan.gradients->resources, plan.gradients_tiling, planes, "}, ");
    }
    std::printf("\"predicted_ms\": %.5f, \"cold_ms\": %.5f, \"warm_ms\": %.5f, \"error\": %.3g}\n",
                1e3 * plan.seconds, cold, warm, error);
    std::fflush(stdout);
  }

  void print(const KernelResources& r, const Tiling& t, int64_t planes, const char* end = ", ") {
    std::printf(
        "\"threads\": %d, \"strips\": %d, \"strip_width\": %d, \"bands\": %d, "
        "\"band_height\": %d, \"blocks\": %lld, \"at_once\": %lld, \"shared\": %lld%s",
        t.threads, t.strips, t.strip_width, t.bands, t.band_height,
        (long long)(planes * t.tiles_per_plane()),
        (long long)r.blocks_at_once(t.threads, device_.shared_memory),
        (long long)r.shared_memory(t.threads), end);
  }
};

}  // namespace

int main(int count, char** values) {
  Scope scope = Scope::all;
  if (count == 2 && !std::strcmp(values[1], "--only"))
    scope = Scope::only;
  else if (count == 2 && !std::strcmp(values[1], "--check"))
    scope = Scope::check;
  else if (count > 1)
    return std::fprintf(stderr, "sweep [--only | --check]\n"), 2;
  try {
    Sweep(scope).run();
  } catch (const std::exception& error) {
    std::printf("{\"problem\": \"%s\"}\n", error.what());
    return 1;
  }
}
