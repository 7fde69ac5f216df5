// Runs the threads of CUDA blocks on the CPU, one fiber each, block after block. Strict where CUDA
// says "undefined": such a kernel ends with an Error.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>

namespace cuda_host {

// What a kernel did wrong, or what else the emulation refuses.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Of the blocks of a grid, and of the threads of a block between two of their barriers.
enum class Order { forward, reverse, random };

struct Settings {
  Order order = Order::forward;
  uint64_t seed = 0;  // of the random order
  // Of the device that there is.
  int multiprocessors = 4;
  size_t shared_memory = 227 * 1024;  // that a block may have, if its kernel has asked
  size_t cache = 50 << 20;            // L2
  // It is an error to ask for less than all: threads that launch one kernel would take from one
  // another what they had asked for.
  bool asks_for_all = false;
};
extern Settings settings;

// The CUDA thread that runs, and what it may know.
struct Now {
  uint3 thread{}, block{};
  dim3 block_size, grid_size;
  unsigned char* shared = nullptr;  // the block's dynamic shared memory
};
extern Now now;

// Where in the kernel an operation of several threads stands.
struct Site {
  const char* file = "";
  int line = 0;
};

// `any`: a vote; the bits of all lanes, by or.
enum class Shuffle { from_lane, up, down, exclusive_or, any };

void synchronize_block(Site site);
// `bits` of the lane that `kind`, `by` and `width` name. All lanes of `mask` take part.
uint64_t shuffle(Shuffle kind, unsigned mask, uint64_t bits, int by, int width, Site site);

// A copy that no register waits for: between here and the wait for its group what is in `to` is
// undefined, here NaN. Zeros, where nothing is `there`.
void copy_ahead(void* to, const void* from, size_t bytes, bool there);
void end_copies();
// Makes this thread's copies, but for those of the last `groups`: no device makes them later.
void wait_for_copies(unsigned groups);

// Runs `thread` for each thread of the grid. Where CUDA refuses a launch nothing runs, and
// cudaGetLastError tells; `kernel` is what cudaFuncSetAttribute knows it by.
void launch(const char* name, const void* kernel, dim3 grid, dim3 block, size_t shared,
            const std::function<void()>& thread);

// By runtime.cpp: whether CUDA would launch this; if not, it is the last error.
bool may_launch(const void* kernel, dim3 grid, dim3 block, size_t shared);

}  // namespace cuda_host
