// A fiber: a stack of its own, on which a function runs until it gives way to the scheduler, which
// runs on the program's stack and is the only one that resumes.
#pragma once

#include <cstddef>

#include "sanitizers.h"

// How to change stacks: by a few instructions of our own, or by the C library, which makes two
// system calls each time.
#if defined(__x86_64__) && !defined(CUDA_HOST_UCONTEXT)
#define CUDA_HOST_OWN_SWITCH
#else
#include <ucontext.h>
#endif

namespace cuda_host {

// Where someone goes on who does not run now.
#ifdef CUDA_HOST_OWN_SWITCH
struct Context {
  void* stack_pointer = nullptr;  // what else there is to know lies on the stack
};
#else
struct Context {
  ucontext_t state;
};
#endif

class Fiber {
 public:
  static constexpr size_t kStackBytes = CUDA_HOST_ASAN ? 256 * 1024 : 64 * 1024;
  static constexpr size_t kGuardBytes = 4096;  // below the stack: an overflow is a fault

  Fiber() = default;
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // From now on a new run of `entry` on `stack`, which has kGuardBytes + kStackBytes. The first
  // call of `entry` is arrive(), its last one finish(): it must not return.
  void start(char* stack, void (*entry)());
  // A run has a thread of its own in ThreadSanitizer's eyes. It is retired when the run is over,
  // and forgotten when the launch is.
  void retire();
  static void forget_retired();

  void resume();   // called by the scheduler: until the fiber gives way, or finishes
  void suspend();  // these are called on the fiber
  static void arrive();
  [[noreturn]] void finish();

 private:
  Context context_;
  char* stack_ = nullptr;       // the lowest byte above the guard
  void* fake_stack_ = nullptr;  // AddressSanitizer's
  void* thread_ = nullptr;      // ThreadSanitizer's
};

// `count` stacks with their guards, one after another, in untouched memory.
char* new_stacks(size_t count);
void free_stacks(char* stacks, size_t count);
// Makes ThreadSanitizer forget what earlier threads left in the upper parts, which kernels use.
void renew_stacks(char* stacks, size_t count);

}  // namespace cuda_host
