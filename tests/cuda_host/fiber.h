// A fiber runs a function on a separate stack until it yields to the scheduler. The scheduler runs
// on the program's stack, and only it resumes fibers.
#pragma once

#include <cstddef>

#include "sanitizers.h"

// Switches stacks with a few instructions of assembly, or with the C library, which makes two
// system calls per switch.
#if defined(__x86_64__) && !defined(CUDA_HOST_UCONTEXT)
#define CUDA_HOST_OWN_SWITCH
#else
#include <ucontext.h>
#endif

namespace cuda_host {

// The saved state of a fiber, or of the scheduler, that is not running.
#ifdef CUDA_HOST_OWN_SWITCH
struct Context {
  void* stack_pointer = nullptr;  // the rest of the state is on the stack
};
#else
struct Context {
  ucontext_t state;
};
#endif

class Fiber {
 public:
  static constexpr size_t kStackBytes = CUDA_HOST_ASAN ? 256 * 1024 : 64 * 1024;
  static constexpr size_t kGuardBytes = 4096;  // below the stack, so that an overflow faults

  Fiber() = default;
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Prepares a run of `entry` on `stack`, which has kGuardBytes + kStackBytes. `entry` must call
  // arrive() first and finish() last, and must not return.
  void start(char* stack, void (*entry)());
  // To ThreadSanitizer, each run is a separate thread. It is retired after the run and forgotten
  // after the launch.
  void retire();
  static void forget_retired();

  // Called by the scheduler; returns when the fiber suspends or finishes.
  void resume();
  // Called on the fiber.
  void suspend();
  static void arrive();
  [[noreturn]] void finish();

 private:
  Context context_;
  char* stack_ = nullptr;       // the lowest byte above the guard
  void* fake_stack_ = nullptr;  // AddressSanitizer's
  void* thread_ = nullptr;      // ThreadSanitizer's
};

// Allocates `count` contiguous stacks with guards, in untouched memory.
char* new_stacks(size_t count);
void free_stacks(char* stacks, size_t count);
// Makes ThreadSanitizer forget accesses of earlier threads to the upper parts, which kernels use.
void renew_stacks(char* stacks, size_t count);

}  // namespace cuda_host
