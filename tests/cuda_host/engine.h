// Runs the threads of CUDA blocks on the CPU, one fiber per thread and block after block. Behavior
// that CUDA leaves undefined ends the kernel with an Error.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>

namespace cuda_host {

// An error of a kernel, or an operation that the emulation does not support.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The order of a grid's blocks, and of a block's threads between two barriers.
enum class Order { forward, reverse, random };

struct Settings {
  Order order = Order::forward;
  uint64_t seed = 0;  // for the random order
  // Properties of the emulated device.
  int multiprocessors = 4;
  size_t shared_memory = 227 * 1024;  // per block, if requested for its kernel
  size_t cache = 50 << 20;            // L2
  // Makes it an error to request less than all shared memory. Host threads that launch the same
  // kernel would otherwise lower each other's limits.
  bool asks_for_all = false;
};
extern Settings settings;

// The running CUDA thread and its built-in variables.
struct Now {
  uint3 thread{}, block{};
  dim3 block_size, grid_size;
  unsigned char* shared = nullptr;  // the block's dynamic shared memory
};
extern Now now;

// The location of a collective operation in the kernel.
struct Site {
  const char* file = "";
  int line = 0;
};

// `any` is a vote: the bitwise or of all lanes.
enum class Shuffle { from_lane, up, down, exclusive_or, any };

void synchronize_block(Site site);
// Returns the bits of the lane selected by `kind`, `by` and `width`. All lanes of `mask` take part.
uint64_t shuffle(Shuffle kind, unsigned mask, uint64_t bits, int by, int width, Site site);

// An asynchronous copy. Until the wait for its group, the contents of `to` are undefined; the
// emulation fills it with NaN. Copies zeros unless `there`.
void copy_ahead(void* to, const void* from, size_t bytes, bool there);
void end_copies();
// Executes this thread's copies except for the last `groups` groups, at the latest possible time.
void wait_for_copies(unsigned groups);

// Runs `thread` for each thread of the grid. If CUDA would reject the launch, nothing runs and
// cudaGetLastError returns the error. `kernel` is the pointer passed to cudaFuncSetAttribute.
void launch(const char* name, const void* kernel, dim3 grid, dim3 block, size_t shared,
            const std::function<void()>& thread);

// Defined in runtime.cpp. Whether CUDA would accept this launch; if not, sets the last error.
bool may_launch(const void* kernel, dim3 grid, dim3 block, size_t shared);

}  // namespace cuda_host
