// Runs the CPU kernels on the cases of cases.h, without PyTorch. Accepts the arguments of cases.h,
// and in addition
//   --only windows   run every kernel for the radii: dtypes, gradients, borders
//   --only cosine    run random cases of the cosine kernel, as many as --cases says
//   --only volumes   run the kernels of volumes (volumes.h)
// The exit status is 1 if anything fails.
#include <atomic>
#include <cstdio>
#include <thread>
#include <type_traits>

#include "cases.h"
#include "cosine.h"
#include "cpu/launch.h"
#include "volumes.h"

namespace {

using lamp_kernels::Tiling;

// ---- Ways to share the work --------------------------------------------------------------------

struct OneThread {
  template <class F>
  void operator()(int64_t begin, int64_t end, int64_t, F f) const {
    if (begin < end) f(begin, end);
  }
};

// Runs one piece at a time, last to first: the order of completion that differs most.
struct Backwards {
  template <class F>
  void operator()(int64_t begin, int64_t end, int64_t, F f) const {
    for (int64_t i = end - 1; i >= begin; --i) f(i, i + 1);
  }
};

// Each thread takes the next pieces when it becomes free.
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

class CpuKernels : public Kernels {
 public:
  void compute(const Params& p, bool use_double, void* scaled_sums, int way) override {
    if (way == 0) share(p, use_double, scaled_sums, OneThread{});
    if (way == 1) share(p, use_double, scaled_sums, Backwards{});
    if (way == 2) share(p, use_double, scaled_sums, Threads{2, 1});
    if (way == 3) share(p, use_double, scaled_sums, Threads{3, 2});
  }
  int ways(const Params& p) const override { return Tiling(p).tiles() > 1 ? 4 : 1; }
  bool has_mask() const override { return true; }
  const char* depends_on(int way) const override {
    return way == 1 ? "depends on the order of the tiles" : "depends on the number of threads";
  }
  int64_t strip_width(const Params& p, bool, int) const override { return Tiling(p).strip_width; }

 private:
  template <class ParallelFor>
  static void share(const Params& p, bool use_double, void* scaled_sums, ParallelFor parallel_for) {
    if (use_double)
      share_typed(p, static_cast<double*>(scaled_sums), parallel_for);
    else
      share_typed(p, static_cast<float*>(scaled_sums), parallel_for);
  }
  template <class T, class ParallelFor>
  static void share_typed(const Params& p, T* scaled_sums, ParallelFor parallel_for) {
    lamp_kernels::compute<T>(p, scaled_sums, Sums::terms, parallel_for);
    if (!scaled_sums || !std::is_same_v<ParallelFor, OneThread>) return;
    check_sums(p, scaled_sums, true,
               [&](Sums sums, T* to) { lamp_kernels::compute<T>(p, to, sums, parallel_for); });
  }
};

// ---- Every kernel ------------------------------------------------------------------------------

template <class T>
void window(int radius, int gradients, Border border, uint64_t seed, Kernels& kernels) {
  Random random(seed);
  Case<T> c;
  Params& p = c.p;
  p.terms.set(Metric::ssim);
  p.terms.set(Metric::mse, random.chance(0.5));
  p.border = border;
  c.set_window(radius, 1.5);
  c.set_shape({2, 1, 2 * radius + 13, 2 * radius + 37});
  const int wanted = gradients == 1 ? 1 + int(random.below(2)) : gradients == 2 ? 3 : 0;
  complete_and_check(c, seed, random, kernels, wanted);
}

void windows(const Arguments& arguments, Kernels& kernels) {
  uint64_t seed = 0;
  for (const int radius : arguments.radii)
    for (int gradients = 0; gradients <= 2; ++gradients)
      for (const Border border : {Border::reflect, Border::valid, Border::zeros}) {
        window<float>(radius, gradients, border, ++seed, kernels);
        window<double>(radius, gradients, border, ++seed, kernels);
      }
  std::printf("%llu windows\n", (unsigned long long)seed);
}

}  // namespace

int main(int count, char** values) {
  const Arguments arguments = parse(count, values);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // keep the output printed before a crash
  std::printf("instruction set: %s\n", lamp_kernels::isa().name);
  CpuKernels kernels;
  run_cases(arguments, kernels);
  if (arguments.wants("windows")) windows(arguments, kernels);
  if (arguments.wants("cosine")) cosine_cases(arguments);
  if (arguments.wants("volumes")) volumes(arguments);
  std::printf("%d failures\n", failures);
  return failures != 0;
}
