#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <deque>
#include <stdexcept>

// cuda_host_switch(from, to): pushes the callee-saved registers, stores the stack pointer in `from`
// and resumes `to`. The floating-point control modes are the same in all fibers.
#ifdef CUDA_HOST_OWN_SWITCH
extern "C" void cuda_host_switch(void** from, void* to);
asm(R"(
  .pushsection .text
  .globl cuda_host_switch
  .type cuda_host_switch, @function
cuda_host_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size cuda_host_switch, . - cuda_host_switch
  .popsection
)");
#endif

namespace cuda_host {
namespace {

// The scheduler's state, to which all fibers return.
struct Home {
  Context context;
  const void* stack = nullptr;  // for AddressSanitizer
  size_t bytes = 0;
  void* fake_stack = nullptr;
  void* thread = nullptr;  // for ThreadSanitizer
} home;

[[maybe_unused]] std::deque<void*> retired;  // ThreadSanitizer's threads

#ifdef CUDA_HOST_OWN_SWITCH
CUDA_HOST_UNSEEN void switch_context(Context& from, Context& to) {
  cuda_host_switch(&from.stack_pointer, to.stack_pointer);
}

void set_up(Context& context, char* stack, void (*entry)()) {
  // The values that cuda_host_switch pops: six registers and the address of `entry`. On entry, the
  // stack pointer must be 8 bytes off a multiple of 16, as after a call. The 0 above is the return
  // address: there is no caller.
  auto* top = reinterpret_cast<uintptr_t*>(stack + Fiber::kStackBytes);
  constexpr int kRegisters = 6;
  uintptr_t* at = top - 2;  // a multiple of 16
  at[0] = reinterpret_cast<uintptr_t>(entry);
  at[1] = 0;
  for (int i = 1; i <= kRegisters; ++i) at[-i] = 0;
  context.stack_pointer = at - kRegisters;
}
#else
CUDA_HOST_UNSEEN void switch_context(Context& from, Context& to) {
  swapcontext(&from.state, &to.state);
}

void set_up(Context& context, char* stack, void (*entry)()) {
  getcontext(&context.state);
  context.state.uc_stack.ss_sp = stack;
  context.state.uc_stack.ss_size = Fiber::kStackBytes;
  context.state.uc_link = nullptr;
  makecontext(&context.state, entry, 0);
}
#endif

// Tells ThreadSanitizer which thread runs from here on. This does not synchronize, because the
// scheduler orders the fibers, not the kernel.
CUDA_HOST_UNSEEN void become([[maybe_unused]] void* thread) {
#if CUDA_HOST_TSAN
  __tsan_switch_to_fiber(thread, __tsan_switch_to_fiber_no_sync);
#endif
}

}  // namespace

void Fiber::start(char* stack, void (*entry)()) {
  stack_ = stack + kGuardBytes;
#if CUDA_HOST_ASAN
  // A run that ended with an error has left poisoned memory.
  __asan_unpoison_memory_region(stack_, kStackBytes);
#endif
  set_up(context_, stack_, entry);
#if CUDA_HOST_TSAN
  retire();
  home.thread = __tsan_get_current_fiber();
  thread_ = __tsan_create_fiber(0);
#endif
}

// ThreadSanitizer reuses the number of a destroyed thread and then treats old and new thread as
// one, whose accesses are ordered. Threads are therefore kept, as many as memory allows.
void Fiber::retire() {
#if CUDA_HOST_TSAN
  constexpr size_t kMost = 2000;  // of 8,128; each takes 400 KB
  if (thread_) retired.push_back(thread_);
  thread_ = nullptr;
  if (retired.size() <= kMost) return;
  __tsan_destroy_fiber(retired.front());
  retired.pop_front();
#endif
}

void Fiber::forget_retired() {
#if CUDA_HOST_TSAN
  for (void* thread : retired) __tsan_destroy_fiber(thread);
  retired.clear();
#endif
}

CUDA_HOST_UNSEEN void Fiber::resume() {
#if CUDA_HOST_ASAN
  __sanitizer_start_switch_fiber(&home.fake_stack, stack_, kStackBytes);
#endif
  become(thread_);
  switch_context(home.context, context_);
#if CUDA_HOST_ASAN
  __sanitizer_finish_switch_fiber(home.fake_stack, nullptr, nullptr);
#endif
}

CUDA_HOST_UNSEEN void Fiber::suspend() {
#if CUDA_HOST_ASAN
  __sanitizer_start_switch_fiber(&fake_stack_, home.stack, home.bytes);
#endif
  become(home.thread);
  switch_context(context_, home.context);
#if CUDA_HOST_ASAN
  __sanitizer_finish_switch_fiber(fake_stack_, &home.stack, &home.bytes);
#endif
}

CUDA_HOST_UNSEEN void Fiber::finish() {
#if CUDA_HOST_ASAN
  __sanitizer_start_switch_fiber(nullptr, home.stack, home.bytes);  // never resumed
#endif
  become(home.thread);
  switch_context(context_, home.context);
  std::abort();  // a finished fiber is never resumed
}

void Fiber::arrive() {
#if CUDA_HOST_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &home.stack, &home.bytes);
#endif
}

char* new_stacks(size_t count) {
  constexpr size_t kBytes = Fiber::kGuardBytes + Fiber::kStackBytes;
  void* const stacks = mmap(nullptr, count * kBytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stacks == MAP_FAILED) throw std::runtime_error("no memory for the stacks");
  char* const first = static_cast<char*>(stacks);
  for (size_t i = 0; i < count; ++i) mprotect(first + i * kBytes, Fiber::kGuardBytes, PROT_NONE);
  return first;
}

void renew_stacks([[maybe_unused]] char* stacks, [[maybe_unused]] size_t count) {
#if CUDA_HOST_TSAN
  // Renewing whole stacks would be stricter, but would double the run time.
  constexpr size_t kUsed = 24 * 1024;
  for (size_t i = 1; i <= count; ++i) {
    char* const end = stacks + i * (Fiber::kGuardBytes + Fiber::kStackBytes);
    mmap(end - kUsed, kUsed, PROT_READ | PROT_WRITE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  }
#endif
}

void free_stacks(char* stacks, size_t count) {
  munmap(stacks, count * (Fiber::kGuardBytes + Fiber::kStackBytes));
}

}  // namespace cuda_host
