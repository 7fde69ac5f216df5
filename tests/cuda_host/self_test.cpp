// Small kernels that test the emulation itself.
//
//   self_test NAME forward|reverse|random
//
// The exit status is 0 if the test passes, and 1 if it fails or the emulation throws an error,
// which is printed. Errors and races are intentional: the caller expects them to be reported.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "cuda_host.h"

namespace {

constexpr unsigned kAll = 0xffffffffu;

template <class T>
T* shared_as(unsigned char* shared) {
  return reinterpret_cast<T*>(shared);
}

void require(bool true_of_it, const char* what) {
  if (true_of_it) return;
  std::printf("FAIL %s\n", what);
  std::exit(1);
}

void require_launched() { require(cudaGetLastError() == cudaSuccess, "launched"); }

// ---- Correct kernels ---------------------------------------------------------------------------

struct Indices {
  unsigned thread[3], block[3], sizes[6];
};
__global__ void index_kernel(Indices* to) {
  const unsigned blocks = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned threads = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  to[blocks * blockDim.x * blockDim.y * blockDim.z + threads] = {
      {threadIdx.x, threadIdx.y, threadIdx.z},
      {blockIdx.x, blockIdx.y, blockIdx.z},
      {blockDim.x, blockDim.y, blockDim.z, gridDim.x, gridDim.y, gridDim.z}};
}
void indices() {
  std::vector<Indices> seen(2 * 3 * 4 * 5 * 2 * 3);
  LAMP_LAUNCH(index_kernel, dim3(2, 3, 4), dim3(5, 2, 3), 0, nullptr, seen.data());
  require_launched();
  size_t i = 0;
  for (unsigned bz = 0; bz < 4; ++bz)
    for (unsigned by = 0; by < 3; ++by)
      for (unsigned bx = 0; bx < 2; ++bx)
        for (unsigned tz = 0; tz < 3; ++tz)
          for (unsigned ty = 0; ty < 2; ++ty)
            for (unsigned tx = 0; tx < 5; ++tx) {
              const Indices want{{tx, ty, tz}, {bx, by, bz}, {5, 2, 3, 2, 3, 4}};
              require(!std::memcmp(&seen[i++], &want, sizeof want), "every index once");
            }
}

// Each thread writes its number and reads that of the opposite thread, then does so again in the
// same memory.
__global__ void mirror_kernel(int* to) {
  LAMP_SHARED(shared);
  int* const numbers = shared_as<int>(shared);
  const int n = int(blockDim.x), i = int(threadIdx.x);
  numbers[i] = i;
  __syncthreads();
  const int opposite = numbers[n - 1 - i];
  __syncthreads();
  numbers[i] = 10 * opposite;
  __syncthreads();
  to[blockIdx.x * blockDim.x + threadIdx.x] = opposite + numbers[n - 1 - i];
}
void barriers() {
  for (const int n : {1, 33, 256}) {
    std::vector<int> found(size_t(3 * n));
    LAMP_LAUNCH(mirror_kernel, 3, n, n * sizeof(int), nullptr, found.data());
    require_launched();
    for (int i = 0; i < 3 * n; ++i)
      require(found[size_t(i)] == (n - 1 - i % n) + 10 * (i % n), "what the others wrote");
  }
}

template <class T>
__global__ void shuffle_kernel(T* to) {
  const T own = T(threadIdx.x) + T(0.25);
  T* const row = to + threadIdx.x;
  row[0] = __shfl_sync(kAll, own, 5);
  row[32] = __shfl_up_sync(kAll, own, 3);
  row[64] = __shfl_down_sync(kAll, own, 3);
  row[96] = __shfl_xor_sync(kAll, own, 9);
  row[128] = __shfl_down_sync(kAll, own, 3, 8);
  row[160] = __shfl_sync(kAll, own, 10, 8);
  row[192] = T(-1);
  if (threadIdx.x < 8) row[192] = __shfl_down_sync(0xffu, own, threadIdx.x < 4 ? 4 : 0);
}
template <class T>
void check_shuffles() {
  std::vector<T> found(7 * 32);
  LAMP_LAUNCH(shuffle_kernel<T>, 1, 32, 0, nullptr, found.data());
  require_launched();
  for (int i = 0; i < 32; ++i) {
    auto is = [&](int row, int lane) { return found[size_t(32 * row + i)] == T(lane) + T(0.25); };
    require(is(0, 5), "__shfl_sync");
    require(is(1, i < 3 ? i : i - 3), "__shfl_up_sync");
    require(is(2, i > 28 ? i : i + 3), "__shfl_down_sync");
    require(is(3, i ^ 9), "__shfl_xor_sync");
    require(is(4, i % 8 > 4 ? i : i + 3), "a width of 8");
    require(is(5, i / 8 * 8 + 2), "a lane in a width of 8");
    require(i < 8 ? is(6, i < 4 ? i + 4 : i) : found[size_t(192 + i)] == T(-1), "some lanes");
  }
}
__global__ void vote_kernel(int* to) {
  const int lane = int(threadIdx.x);
  to[lane] = __any_sync(kAll, lane == 7 ? 2 : 0);
  to[32 + lane] = __any_sync(kAll, 0);
  to[64 + lane] = -1;
  if (lane < 8) to[64 + lane] = __any_sync(0xffu, lane == 9);
}
void votes() {
  std::vector<int> found(3 * 32);
  LAMP_LAUNCH(vote_kernel, 1, 32, 0, nullptr, found.data());
  require_launched();
  for (size_t i = 0; i < 32; ++i) {
    require(found[i] == 1, "__any_sync: one lane");
    require(found[32 + i] == 0, "__any_sync: no lane");
    require(found[64 + i] == (i < 8 ? 0 : -1), "__any_sync: some lanes");
  }
}
void shuffles() {
  check_shuffles<float>();
  check_shuffles<double>();
  check_shuffles<int>();
  check_shuffles<int64_t>();
}

__global__ void absent_kernel(float* to) {
  if (threadIdx.x < 16) to[threadIdx.x] = __shfl_down_sync(0xffffu, 1.0f, 1);
}
void absent_lane_gives_nan() {
  float found[16];
  LAMP_LAUNCH(absent_kernel, 1, 32, 0, nullptr, &found[0]);
  require_launched();
  require(found[14] == 1 && std::isnan(found[15]), "NaN from a lane that takes no part");
}

__global__ void unwritten_kernel(float* to) {
  LAMP_SHARED(shared);
  float* const numbers = shared_as<float>(shared);
  to[blockIdx.x] = numbers[7];
  numbers[7] = 1;
}
void unwritten_is_nan() {
  float found[3] = {};
  LAMP_LAUNCH(unwritten_kernel, 3, 1, 32, nullptr, &found[0]);
  require_launched();
  for (const float one : found) require(std::isnan(one), "NaN where nothing was written");
}

// Each thread copies two numbers asynchronously, in two groups, and waits for the first.
__global__ void copies_kernel(const float* from, float* to) {
  LAMP_SHARED(shared);
  float* const numbers = shared_as<float>(shared);
  const unsigned n = blockDim.x, i = threadIdx.x;
  cuda_host::copy_ahead(numbers + i, from + i, sizeof(float), true);
  cuda_host::end_copies();
  cuda_host::copy_ahead(numbers + n + i, from + n + i, sizeof(float), i % 2);
  cuda_host::end_copies();
  to[i] = numbers[i];
  cuda_host::wait_for_copies(1);
  to[n + i] = numbers[i];
  to[2 * n + i] = numbers[n + i];
  cuda_host::wait_for_copies(0);
  to[3 * n + i] = numbers[n + i];
}
void copies_ahead() {
  constexpr unsigned n = 64;
  std::vector<float> from(2 * n), found(4 * n);
  for (unsigned i = 0; i < 2 * n; ++i) from[i] = float(i + 1);
  LAMP_LAUNCH(copies_kernel, 1, n, 2 * n * sizeof(float), nullptr, from.data(), found.data());
  require_launched();
  for (unsigned i = 0; i < n; ++i) {
    require(std::isnan(found[i]) && std::isnan(found[2 * n + i]), "NaN until it is waited for");
    require(found[n + i] == from[i], "copied");
    require(found[3 * n + i] == (i % 2 ? from[n + i] : 0), "copied, or zero where nothing is");
  }
}

__global__ void misaligned_copy_kernel(const float* from) {
  LAMP_SHARED(shared);
  cuda_host::copy_ahead(shared_as<double>(shared) + threadIdx.x, from + 2 * threadIdx.x + 1,
                        sizeof(double), true);
}
void misaligned_copy() {
  alignas(8) const float from[65] = {};
  LAMP_LAUNCH(misaligned_copy_kernel, 1, 32, 32 * sizeof(double), nullptr, &from[0]);
}

// A thread copies to memory that its neighbor may still read.
template <bool barrier>
__global__ void copies_over_kernel(const int* from, int* to) {
  LAMP_SHARED(shared);
  int* const numbers = shared_as<int>(shared);
  const unsigned n = blockDim.x, i = threadIdx.x;
  numbers[i] = int(i);
  __syncthreads();
  to[i] = numbers[(i + 1) % n];
  if (barrier) __syncthreads();
  cuda_host::copy_ahead(numbers + i, from + i, sizeof(int), true);
}
template <bool barrier>
void copies_over() {
  std::vector<int> from(64), found(64);
  LAMP_LAUNCH(copies_over_kernel<barrier>, 1, 64, 64 * sizeof(int), nullptr, from.data(),
              found.data());
  require_launched();
  for (int i = 0; barrier && i < 64; ++i) require(found[size_t(i)] == (i + 1) % 64, "read before");
}

// Records the order in which threads run.
__global__ void order_kernel(int* next, int* to) {
  to[(*next)++] = int(blockIdx.x * blockDim.x + threadIdx.x);
}
std::vector<int> order_seen() {
  int next = 0;
  std::vector<int> seen(4 * 40);
  LAMP_LAUNCH(order_kernel, 4, 40, 0, nullptr, &next, seen.data());
  require_launched();
  return seen;
}
void orders() {
  using cuda_host::Order;
  std::vector<int> counted(4 * 40);
  for (int i = 0; i < 4 * 40; ++i) counted[size_t(i)] = i;
  cuda_host::settings.order = Order::forward;
  require(order_seen() == counted, "forward");
  cuda_host::settings.order = Order::reverse;
  require(order_seen() == std::vector<int>(counted.rbegin(), counted.rend()), "reverse");
  cuda_host::settings.order = Order::random;
  const std::vector<int> one = order_seen();
  require(one == order_seen(), "the same again from one seed");
  cuda_host::settings.seed = 1;
  require(one != order_seen(), "another order from another seed");
  require(one != counted, "not forward");
}

__global__ void add_kernel(const int* from, int* to) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  to[i] = from[blockDim.x * gridDim.x - 1 - i] + 1;
}
void launches_follow_one_another() {
  std::vector<int> one(4 * 64), other(4 * 64);
  LAMP_LAUNCH(add_kernel, 4, 64, 0, nullptr, one.data(), other.data());
  LAMP_LAUNCH(add_kernel, 4, 64, 0, nullptr, other.data(), one.data());
  require_launched();
  for (const int i : one) require(i == 2, "what the first launch wrote");
}

// ---- Limits of a launch ------------------------------------------------------------------------

__global__ void nothing() {}
cudaError_t status_of(dim3 grid, dim3 block, size_t shared) {
  cuda_host::launch_kernel("nothing", nothing, grid, block, shared, nullptr);
  return cudaGetLastError();
}
void limits() {
  cuda_host::settings.shared_memory = 100 * 1024;
  require(status_of(1, 1024, 48 * 1024) == cudaSuccess, "the largest block");
  require(status_of(1, 1025, 0) == cudaErrorInvalidConfiguration, "too many threads");
  require(status_of(1, 0, 0) == cudaErrorInvalidConfiguration, "no threads");
  require(status_of(0, 32, 0) == cudaErrorInvalidConfiguration, "no blocks");
  require(status_of(dim3(1, 65535, 1), 1, 0) == cudaSuccess, "the largest grid.y");
  require(status_of(dim3(1, 65536, 1), 1, 0) == cudaErrorInvalidConfiguration, "grid.y");
  require(status_of(dim3(1, 1, 65536), 1, 0) == cudaErrorInvalidConfiguration, "grid.z");
  require(status_of(1u << 31, 1, 0) == cudaErrorInvalidConfiguration, "grid.x");
  require(status_of(1, 1, 48 * 1024 + 1) == cudaErrorInvalidValue, "not asked for");
  const auto ask = [](int bytes) {
    return cudaFuncSetAttribute(reinterpret_cast<const void*>(&nothing),
                                cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  };
  require(ask(100 * 1024 + 1) == cudaErrorInvalidValue, "more than there is");
  require(cudaGetLastError() == cudaErrorInvalidValue, "which is the last error");
  require(ask(60 * 1024) == cudaSuccess, "what there is");
  require(status_of(1, 1, 60 * 1024) == cudaSuccess, "asked for");
  require(status_of(1, 1, 60 * 1024 + 1) == cudaErrorInvalidValue, "more than asked for");
  int value = 0;
  require(!cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0) &&
              value == 100 * 1024,
          "the device's limit");
  require(std::string(cudaGetErrorString(cudaErrorInvalidValue)) == "invalid argument", "its text");
}
void nobody_asked() {
  cuda_host::launch_kernel("nothing", nothing, 1, 0, 0, nullptr);
  cuda_host::launch_kernel("nothing", nothing, 1, 1, 0, nullptr);
}

// ---- Errors ------------------------------------------------------------------------------------

__global__ void returned_kernel() {
  if (threadIdx.x == 7) return;
  __syncthreads();
}
__global__ void different_barriers_kernel() {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}
__global__ void barrier_and_shuffle_kernel(int* to) {
  if (threadIdx.x < 16)
    __syncthreads();
  else
    *to = __shfl_down_sync(kAll, 1, 1);
}
__global__ void returned_lane_kernel(int* to) {
  if (threadIdx.x == 7) return;
  to[threadIdx.x] = __shfl_down_sync(kAll, 1, 1);
}
__global__ void other_mask_kernel(int* to) {
  to[threadIdx.x] = __shfl_down_sync(threadIdx.x < 16 ? 0xffffu : kAll, 1, 1);
}
__global__ void not_in_mask_kernel(int* to) { to[threadIdx.x] = __shfl_down_sync(0xffu, 1, 1); }
__global__ void whole_warp_kernel(int* to) { to[threadIdx.x] = __shfl_down_sync(kAll, 1, 1); }

template <class... A>
void run_wrong(void (*kernel)(A...), unsigned threads) {
  int to[64];
  if constexpr (sizeof...(A) == 0)
    LAMP_LAUNCH(kernel, 2, threads, 0, nullptr);
  else
    LAMP_LAUNCH(kernel, 2, threads, 0, nullptr, &to[0]);
}

// Launches after an error work.
void error_and_on() {
  for (int i = 0; i < 3; ++i) {
    try {
      run_wrong(returned_kernel, 64);
      require(false, "an error");
    } catch (const cuda_host::Error&) {
    }
    barriers();
  }
}

// ---- For AddressSanitizer ----------------------------------------------------------------------

__global__ void write_shared_kernel(int at) {
  LAMP_SHARED(shared);
  shared[at] = 1;
}
void beyond_shared() { LAMP_LAUNCH(write_shared_kernel, 1, 1, 100, nullptr, 100); }
void before_shared() { LAMP_LAUNCH(write_shared_kernel, 1, 1, 100, nullptr, -1); }
void end_of_shared() { LAMP_LAUNCH(write_shared_kernel, 1, 1, 100, nullptr, 99); }

__global__ void local_kernel(int n, int* to) {
  volatile int some[4] = {};
  for (int i = 0; i < n; ++i) some[i] = i;
  __syncthreads();
  *to = some[0];
}
void beyond_local() {
  int to = 0;
  LAMP_LAUNCH(local_kernel, 1, 1, 0, nullptr, 5, &to);
}
void end_of_local() {
  int to = 0;
  LAMP_LAUNCH(local_kernel, 1, 1, 0, nullptr, 4, &to);
}

__global__ void global_kernel(int* to) { to[blockIdx.x * blockDim.x + threadIdx.x] = 1; }
void beyond_global() {
  std::vector<int> some(127);
  LAMP_LAUNCH(global_kernel, 2, 64, 0, nullptr, some.data());
}

// ---- For ThreadSanitizer -----------------------------------------------------------------------

template <bool barrier>
__global__ void neighbor_kernel(int* to) {
  LAMP_SHARED(shared);
  int* const numbers = shared_as<int>(shared);
  numbers[threadIdx.x] = int(threadIdx.x);
  if (barrier) __syncthreads();
  to[blockIdx.x * blockDim.x + threadIdx.x] = numbers[(threadIdx.x + 1) % blockDim.x];
}
template <bool barrier>
void neighbors() {
  std::vector<int> to(2 * 256);
  LAMP_LAUNCH(neighbor_kernel<barrier>, 2, 256, 256 * sizeof(int), nullptr, to.data());
  require_launched();
}

// Memory that is read, and then overwritten by another thread.
template <bool barrier>
__global__ void again_kernel(int* to) {
  LAMP_SHARED(shared);
  int* const numbers = shared_as<int>(shared);
  for (int i = 0; i < 3; ++i) {
    numbers[threadIdx.x] = i;
    __syncthreads();
    to[blockIdx.x * blockDim.x + threadIdx.x] += numbers[(threadIdx.x + 1) % blockDim.x];
    if (barrier) __syncthreads();
  }
}
template <bool barrier>
void written_again() {
  std::vector<int> to(2 * 256);
  LAMP_LAUNCH(again_kernel<barrier>, 2, 256, 256 * sizeof(int), nullptr, to.data());
  require_launched();
}

__global__ void through_shuffle_kernel(int* to) {
  LAMP_SHARED(shared);
  int* const numbers = shared_as<int>(shared);
  numbers[threadIdx.x] = int(threadIdx.x);
  __shfl_down_sync(kAll, 1, 1);
  to[threadIdx.x] = numbers[31 - threadIdx.x];
}
void shuffle_is_no_barrier() {
  std::vector<int> to(32);
  LAMP_LAUNCH(through_shuffle_kernel, 1, 32, 32 * sizeof(int), nullptr, to.data());
}

// The parts of adjacent blocks overlap in one element.
template <bool after_barriers>
__global__ void overlap_kernel(int* to) {
  if (after_barriers) {
    __syncthreads();
    __syncthreads();
    __syncthreads();
  }
  to[blockIdx.x * (blockDim.x - 1) + threadIdx.x] = 1;
}
template <bool after_barriers>
void blocks_overlap() {
  std::vector<int> to(3 * 64);
  LAMP_LAUNCH(overlap_kernel<after_barriers>, 3, 64, 0, nullptr, to.data());
}

// ------------------------------------------------------------------------------------------------

const std::map<std::string, std::function<void()>> kTests = {
    {"indices", indices},
    {"barriers", barriers},
    {"shuffles", shuffles},
    {"votes", votes},
    {"absent_lane_gives_nan", absent_lane_gives_nan},
    {"unwritten_is_nan", unwritten_is_nan},
    {"copies_ahead", copies_ahead},
    {"misaligned_copy", misaligned_copy},
    {"copies_over", copies_over<true>},
    {"copies_over_without_barrier", copies_over<false>},
    {"orders", orders},
    {"launches_follow_one_another", launches_follow_one_another},
    {"limits", limits},
    {"nobody_asked", nobody_asked},
    {"returned", [] { run_wrong(returned_kernel, 64); }},
    {"different_barriers", [] { run_wrong(different_barriers_kernel, 64); }},
    {"barrier_and_shuffle", [] { run_wrong(barrier_and_shuffle_kernel, 32); }},
    {"returned_lane", [] { run_wrong(returned_lane_kernel, 32); }},
    {"other_mask", [] { run_wrong(other_mask_kernel, 32); }},
    {"not_in_mask", [] { run_wrong(not_in_mask_kernel, 32); }},
    {"half_a_warp", [] { run_wrong(whole_warp_kernel, 48); }},
    {"error_and_on", error_and_on},
    {"beyond_shared", beyond_shared},
    {"before_shared", before_shared},
    {"end_of_shared", end_of_shared},
    {"beyond_local", beyond_local},
    {"end_of_local", end_of_local},
    {"beyond_global", beyond_global},
    {"neighbors", neighbors<true>},
    {"neighbors_without_barrier", neighbors<false>},
    {"written_again", written_again<true>},
    {"written_again_without_barrier", written_again<false>},
    {"shuffle_is_no_barrier", shuffle_is_no_barrier},
    {"blocks_overlap", blocks_overlap<false>},
    {"blocks_overlap_after_barriers", blocks_overlap<true>},
};

}  // namespace

int main(int count, char** values) {
  if (count != 3 || !kTests.count(values[1])) return 2;
  const std::string order = values[2];
  cuda_host::settings.order = order == "forward"   ? cuda_host::Order::forward
                              : order == "reverse" ? cuda_host::Order::reverse
                                                   : cuda_host::Order::random;
  try {
    kTests.at(values[1])();
  } catch (const cuda_host::Error& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
  return 0;
}
