#include "isa.h"

#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>

namespace lamp_kernels {

namespace avx512 {
void run_tiles(const Params&, const Tiling&, bool, int, int64_t, int64_t, double*);
void run_boxes(const Volume&, const VolumeTiling&, bool, int, int64_t, int64_t, double*);
void run_cosine(const CosineParams&, bool, int, int64_t, int64_t, double*);
}  // namespace avx512
namespace avx2 {
void run_tiles(const Params&, const Tiling&, bool, int, int64_t, int64_t, double*);
void run_boxes(const Volume&, const VolumeTiling&, bool, int, int64_t, int64_t, double*);
void run_cosine(const CosineParams&, bool, int, int64_t, int64_t, double*);
}  // namespace avx2
namespace baseline {
void run_tiles(const Params&, const Tiling&, bool, int, int64_t, int64_t, double*);
void run_boxes(const Volume&, const VolumeTiling&, bool, int, int64_t, int64_t, double*);
void run_cosine(const CosineParams&, bool, int, int64_t, int64_t, double*);
}  // namespace baseline

namespace {

constexpr const char* kVariable = "LAMP_KERNELS_CPU_ISA";

Isa choose() {
  const char* request = std::getenv(kVariable);
  const bool any = !request || !*request;
  // `alias`: the x86-64 level, the name that older releases used.
  auto wanted = [&](std::string_view name, std::string_view alias = "") {
    return any || request == name || request == alias;
  };
#if defined(__x86_64__) && !defined(__clang__) && __GNUC__ >= 12
  __builtin_cpu_init();
  if (wanted("avx512", "v4") && __builtin_cpu_supports("x86-64-v4"))
    return {"avx512", avx512::run_tiles, avx512::run_boxes, avx512::run_cosine};
  if (wanted("avx2", "v3") && __builtin_cpu_supports("x86-64-v3"))
    return {"avx2", avx2::run_tiles, avx2::run_boxes, avx2::run_cosine};
#endif
  if (wanted("baseline"))
    return {"baseline", baseline::run_tiles, baseline::run_boxes, baseline::run_cosine};
  throw std::runtime_error(std::string(kVariable) + "=" + request +
                           " is not supported by this machine; choose from avx512 and avx2 (on "
                           "x86-64), and baseline");
}

}  // namespace

const Isa& isa() {
  static const Isa chosen = choose();
  return chosen;
}

void* workspace(Scratch block, std::size_t bytes) {
  constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(void* memory) const { ::operator delete(memory, kAlignment); }
  };
  static thread_local std::unique_ptr<void, Free> memories[2];
  static thread_local std::size_t sizes[2] = {};
  std::unique_ptr<void, Free>& memory = memories[int(block)];
  std::size_t& size = sizes[int(block)];
  if (size < bytes) {
    memory.reset();
    size = 0;
    memory.reset(::operator new(bytes, kAlignment));
    size = bytes;
  }
  return memory.get();
}

}  // namespace lamp_kernels
