// Runs the CPU kernel by itself in a loop, for a profiler: float32, window 11, "reflect", amplified,
// gradient of the input, (8, 3, 256, 256), one thread. Prints ns per element.
//
//   kernel_profile SECONDS
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cpu/launch.h"
#include "gaussian_taps.h"

int main(int, char** arguments) {
  using namespace lamp_kernels;
  Params p{};
  p.batch = 8;
  p.channels = 3;
  p.height = p.width = 256;
  p.terms.set(Metric::ssim);
  p.amplify = Amplify::log;
  p.amplify_parameters[0] = 1e-2;  // eps
  p.scale = 1;
  p.radius = 5;
  gaussian_taps(p.radius, 1.5, p.taps);
  p.c1 = 1e-4;
  p.c2 = 9e-4;
  p.ssim_scale = 0.5;
  const int64_t size = p.batch * p.channels * p.height * p.width;
  std::vector<float> x(size), y(size), gradient(size), factors(p.batch, 1.f / size);
  std::vector<float> scaled_sums(p.batch);
  for (int64_t i = 0; i < size; ++i)
    x[i] = std::rand() % 997 / 997.f, y[i] = std::rand() % 997 / 997.f;
  const int64_t plane = p.height * p.width;
  p.input = {x.data(), Dtype::float32, 3 * plane, plane, p.width, 1};
  p.target = {y.data(), Dtype::float32, 3 * plane, plane, p.width, 1};
  p.input_gradient = {gradient.data(), 3 * plane, plane, p.width, 1};
  p.factors = factors.data();

  using Clock = std::chrono::steady_clock;
  auto seconds = [](Clock::duration d) { return std::chrono::duration<double>(d).count(); };
  const Clock::time_point start = Clock::now();
  double fastest = 1e9;
  while (seconds(Clock::now() - start) < std::atof(arguments[1])) {
    const Clock::time_point before = Clock::now();
    compute<float>(p, scaled_sums.data(), Sums::images,
                   [](int64_t begin, int64_t end, int64_t, const auto& f) { f(begin, end); });
    fastest = std::min(fastest, seconds(Clock::now() - before));
  }
  std::printf("%s: %.2f ns per element\n", isa().name, 1e9 * fastest / size);
}
