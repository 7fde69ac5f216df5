#include "engine.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "fiber.h"

namespace cuda_host {

Settings settings;
Now now;

namespace {

constexpr unsigned kWarp = 32;

enum class State { ready, at_barrier, in_shuffle, returned };

struct Thread {
  Fiber fiber;
  uint3 index{};
  unsigned number = 0;  // in its block
  State state = State::returned;
  Site site;              // where it waits
  unsigned barriers = 0;  // that it has passed
  const char* error = nullptr;

  // A ring of pending asynchronous copies, in groups.
  static constexpr unsigned kMostCopies = 256;
  struct Copy {
    void* to;
    const void* from;
    size_t bytes;
    bool there;
    unsigned group;
  } copies[kMostCopies];
  unsigned first_copy = 0, end_copy = 0, groups = 0;

  // Its operands in a shuffle.
  Shuffle kind{};
  unsigned mask = 0;
  int by = 0, width = 0;
  uint64_t given = 0, received = 0;
};

bool same(const Site& a, const Site& b) {
  return a.line == b.line && (a.file == b.file || !std::strcmp(a.file, b.file));
}

// Tell ThreadSanitizer that everything before one thread's release happens before everything after
// another thread's acquire.
CUDA_HOST_UNSEEN void release([[maybe_unused]] char* at) {
#if CUDA_HOST_TSAN
  __tsan_release(at);
#endif
}
CUDA_HOST_UNSEEN void acquire([[maybe_unused]] char* at) {
#if CUDA_HOST_TSAN
  __tsan_acquire(at);
#endif
}

// These accesses belong to the kernel, so sanitizers must see them.
__attribute__((noinline)) void forget(void* to, size_t bytes) { std::memset(to, 0xff, bytes); }
__attribute__((noinline)) void copy(void* to, const void* from, size_t bytes) {
  if (from)
    std::memcpy(to, from, bytes);
  else
    std::memset(to, 0, bytes);
}

class Engine {
 public:
  void launch(const char* name, dim3 grid, dim3 block, size_t shared,
              const std::function<void()>& thread) {
    const size_t count = size_t(block.x) * block.y * block.z;
    const size_t blocks = size_t(grid.x) * grid.y * grid.z;
    name_ = name;
    body_ = &thread;
    count_ = unsigned(count);
    shared_ = shared;
    set_sizes(grid, block);
    random_.seed(settings.seed);
    provide_threads();
    struct AtEnd {
      Engine& engine;
      ~AtEnd() { engine.finish(); }
    } at_end{*this};
    std::vector<size_t> order(blocks);
    std::iota(order.begin(), order.end(), size_t(0));
    put_in_order(order);
    for (const size_t i : order)
      run_block(
          {unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / grid.x / grid.y)});
  }

  // ---- Called on fibers, for the kernel --------------------------------------------------------

  CUDA_HOST_UNSEEN void wait_at_barrier(Site site) {
    Thread& t = *current_;
    // Two alternating variables suffice: no thread reaches the barrier after the next before all
    // threads have left this one.
    char* const variable = barrier_ + t.barriers % 2;
    t.site = site;
    t.state = State::at_barrier;
    release(variable);
    t.fiber.suspend();
    acquire(variable);
    ++t.barriers;
  }

  // Does not synchronize memory: passing values between lanes makes no writes visible.
  CUDA_HOST_UNSEEN uint64_t shuffle(Shuffle kind, unsigned mask, uint64_t bits, int by, int width,
                                    Site site) {
    Thread& t = *current_;
    t.site = site;
    t.kind = kind;
    t.mask = mask;
    t.by = by;
    t.width = width;
    t.given = bits;
    t.state = State::in_shuffle;
    t.fiber.suspend();
    return t.received;
  }

  CUDA_HOST_UNSEEN void copy_ahead(void* to, const void* from, size_t bytes, bool there) {
    Thread& t = *current_;
    const auto address = reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from);
    if (bytes != 4 && bytes != 8 && bytes != 16) stop(t, "a copy of not 4, 8 or 16 bytes");
    // Also without anything to copy: the documentation does not exempt that case.
    if (address % bytes) stop(t, "a copy at a misaligned address");
    if (t.end_copy - t.first_copy == Thread::kMostCopies)
      stop(t, "more copies under way than the emulation has room for");
    t.copies[t.end_copy++ % Thread::kMostCopies] = {to, from, bytes, there, t.groups};
    forget(to, bytes);
  }
  // Records an error of the running thread. The scheduler throws it, because an exception cannot
  // leave a fiber.
  CUDA_HOST_UNSEEN void stop(Thread& t, const char* error) {
    t.error = error;
    t.fiber.suspend();
  }
  CUDA_HOST_UNSEEN void end_copies() { ++current_->groups; }
  CUDA_HOST_UNSEEN void wait_for_copies(unsigned groups) {
    Thread& t = *current_;
    for (; t.first_copy != t.end_copy; ++t.first_copy) {
      const Thread::Copy& c = t.copies[t.first_copy % Thread::kMostCopies];
      if (c.group + groups >= t.groups) break;
      copy(c.to, c.there ? c.from : nullptr, c.bytes);
    }
  }

  static Engine instance;

 private:
  CUDA_HOST_UNSEEN static void entry() { instance.run_thread(); }

  CUDA_HOST_UNSEEN void run_thread() {
    Fiber::arrive();
    Thread& t = *current_;
    (*body_)();
    release(&ends_);
    t.state = State::returned;
    t.fiber.finish();
  }

  // ---- The scheduler ---------------------------------------------------------------------------

  CUDA_HOST_UNSEEN void set_sizes(dim3 grid, dim3 block) {
    now.grid_size = grid;
    now.block_size = block;
  }
  CUDA_HOST_UNSEEN void set_block(uint3 block, unsigned char* shared) {
    now.block = block;
    now.shared = shared;
  }
  CUDA_HOST_UNSEEN void set_current(Thread& t) {
    current_ = &t;
    now.thread = t.index;
  }

  template <class List>
  void put_in_order(List& list) {
    if (settings.order == Order::reverse) std::reverse(list.begin(), list.end());
    if (settings.order == Order::random) std::shuffle(list.begin(), list.end(), random_);
  }

  [[noreturn]] void fail(const std::string& what) const {
    char block[64];
    std::snprintf(block, sizeof block, ", in block (%u, %u, %u)", now.block.x, now.block.y,
                  now.block.z);
    throw Error(std::string(name_) + ": " + what + block);
  }
  static std::string said_of(const Thread& t) {
    char text[300];
    std::snprintf(text, sizeof text, "%s:%d: thread (%u, %u, %u): ", t.site.file, t.site.line,
                  t.index.x, t.index.y, t.index.z);
    return text;
  }

  void provide_threads() {
    while (threads_.size() < count_) threads_.push_back(std::make_unique<Thread>());
    if (stack_count_ >= count_) return;
    if (stacks_) free_stacks(stacks_, stack_count_);
    stacks_ = new_stacks(count_);
    stack_count_ = count_;
  }

  void run_block(uint3 block) {
    renew_stacks(stacks_, count_);
    // Allocated with exactly the launch's size, so that AddressSanitizer detects overruns, and
    // filled with NaN, so that reads before writes show in the result.
    unsigned char* const shared = static_cast<unsigned char*>(std::malloc(shared_));
    std::memset(shared, 0xff, shared_);
    memory_.emplace_back(shared);
    // Each block has separate variables, because blocks are not ordered.
    memory_.emplace_back(std::malloc(2));
    barrier_ = static_cast<char*>(memory_.back().get());
    set_block(block, shared);
    std::vector<unsigned> order(count_);
    std::iota(order.begin(), order.end(), 0u);
    const dim3& size = now.block_size;
    for (unsigned i = 0; i < count_; ++i) {
      Thread& t = *threads_[i];
      t.index = {i % size.x, i / size.x % size.y, i / size.x / size.y};
      t.number = i;
      t.state = State::ready;
      t.barriers = 0;
      t.error = nullptr;
      t.first_copy = t.end_copy = t.groups = 0;
      t.fiber.start(stacks_ + i * (Fiber::kGuardBytes + Fiber::kStackBytes), &Engine::entry);
    }
    for (unsigned returned = 0; returned < count_;) {
      put_in_order(order);
      bool moved = false;
      unsigned at_barrier = 0, in_shuffle = 0;
      for (const unsigned i : order) {
        Thread& t = *threads_[i];
        if (t.state == State::ready) {
          set_current(t);
          t.fiber.resume();
          if (t.error) fail(said_of(t) + t.error);
          moved = true;
          returned += t.state == State::returned;
        }
        at_barrier += t.state == State::at_barrier;
        in_shuffle += t.state == State::in_shuffle;
      }
      if (in_shuffle)
        for (unsigned first = 0; first < count_; first += kWarp) moved |= shuffle_warp(first);
      if (at_barrier && at_barrier + returned == count_) open_barrier(returned), moved = true;
      if (!moved) fail_of_deadlock(at_barrier, in_shuffle);
    }
    // ThreadSanitizer keeps the memory until the launch ends: reused memory would make blocks
    // appear ordered.
    if (!CUDA_HOST_TSAN) memory_.clear();
  }

  void open_barrier(unsigned returned) {
    const Thread* first = nullptr;
    for (unsigned i = 0; i < count_; ++i) {
      const Thread& t = *threads_[i];
      if (t.state != State::at_barrier) continue;
      if (!first) first = &t;
      if (!same(t.site, first->site))
        fail(said_of(*first) + "threads of one block wait at different barriers, also at line " +
             std::to_string(t.site.line));
    }
    if (returned)
      fail(said_of(*first) + std::to_string(returned) + " of " + std::to_string(count_) +
           " threads returned without reaching this barrier");
    for (unsigned i = 0; i < count_; ++i) threads_[i]->state = State::ready;
  }

  // Resumes the lanes of a warp whose shuffle is complete.
  bool shuffle_warp(unsigned first) {
    const unsigned lanes = std::min(kWarp, count_ - first);
    bool moved = false;
    for (unsigned i = 0; i < lanes; ++i) {
      const Thread& t = *threads_[first + i];
      if (t.state == State::in_shuffle && is_complete(t, i, first, lanes)) {
        exchange(first, t.mask);
        moved = true;
      }
    }
    return moved;
  }

  bool is_complete(const Thread& t, unsigned lane, unsigned first, unsigned lanes) const {
    if (!(t.mask >> lane & 1)) fail(said_of(t) + "the mask does not name the calling lane");
    for (unsigned i = 0; i < kWarp; ++i) {
      if (!(t.mask >> i & 1)) continue;
      if (i >= lanes)
        fail(said_of(t) + "the mask names lane " + std::to_string(i) + ", which does not exist");
      const Thread& other = *threads_[first + i];
      if (other.state == State::returned)
        fail(said_of(t) + "the mask names lane " + std::to_string(i) + ", which has returned");
      if (other.state != State::in_shuffle || !same(other.site, t.site)) return false;
      if (other.mask != t.mask || other.kind != t.kind)
        fail(said_of(t) + "lanes of one shuffle differ in their mask");
    }
    return true;
  }

  void exchange(unsigned first, unsigned mask) {
    uint64_t any = 0;
    for (unsigned i = 0; i < kWarp; ++i)
      if (mask >> i & 1) any |= threads_[first + i]->given;
    for (unsigned i = 0; i < kWarp; ++i) {
      if (!(mask >> i & 1)) continue;
      Thread& t = *threads_[first + i];
      const int lane = int(i), begin = lane & ~(t.width - 1), last = begin + t.width - 1;
      int from = lane;
      switch (t.kind) {
        case Shuffle::any: t.received = any; continue;
        case Shuffle::from_lane: from = begin + (t.by & (t.width - 1)); break;
        case Shuffle::up: from = lane - t.by < begin ? lane : lane - t.by; break;
        case Shuffle::down: from = lane + t.by > last ? lane : lane + t.by; break;
        case Shuffle::exclusive_or: from = (lane ^ t.by) > last ? lane : lane ^ t.by; break;
      }
      // A lane outside the mask yields NaN.
      t.received = mask >> from & 1 ? threads_[first + unsigned(from)]->given : ~uint64_t(0);
    }
    for (unsigned i = 0; i < kWarp; ++i)
      if (mask >> i & 1) threads_[first + i]->state = State::ready;
  }

  [[noreturn]] void fail_of_deadlock(unsigned at_barrier, unsigned in_shuffle) const {
    unsigned i = 0;
    while (threads_[i]->state == State::returned) ++i;
    fail(said_of(*threads_[i]) + "deadlock: " + std::to_string(at_barrier) +
         " threads wait at a barrier, " + std::to_string(in_shuffle) +
         " in a shuffle that other lanes of its mask never reach");
  }

  void finish() {
    acquire(&ends_);  // launches in one stream are ordered
    for (auto& t : threads_) t->fiber.retire();
    Fiber::forget_retired();
    if (CUDA_HOST_TSAN && std::uncaught_exceptions())
      for (auto& block : memory_) (void)block.release();  // unfinished threads may use it
    memory_.clear();
  }

  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };

  const char* name_ = "";
  const std::function<void()>* body_ = nullptr;
  unsigned count_ = 0;  // threads of a block
  size_t shared_ = 0;
  std::vector<std::unique_ptr<Thread>> threads_;
  char* stacks_ = nullptr;
  unsigned stack_count_ = 0;
  Thread* current_ = nullptr;
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<void, Free>> memory_;
  char* barrier_ = nullptr;
  char ends_ = 0;
};

Engine Engine::instance;

}  // namespace

CUDA_HOST_UNSEEN void synchronize_block(Site site) { Engine::instance.wait_at_barrier(site); }

CUDA_HOST_UNSEEN uint64_t shuffle(Shuffle kind, unsigned mask, uint64_t bits, int by, int width,
                                  Site site) {
  return Engine::instance.shuffle(kind, mask, bits, by, width, site);
}

CUDA_HOST_UNSEEN void copy_ahead(void* to, const void* from, size_t bytes, bool there) {
  Engine::instance.copy_ahead(to, from, bytes, there);
}
CUDA_HOST_UNSEEN void end_copies() { Engine::instance.end_copies(); }
CUDA_HOST_UNSEEN void wait_for_copies(unsigned groups) { Engine::instance.wait_for_copies(groups); }

void launch(const char* name, const void* kernel, dim3 grid, dim3 block, size_t shared,
            const std::function<void()>& thread) {
  if (!may_launch(kernel, grid, block, shared)) return;
  Engine::instance.launch(name, grid, block, shared, thread);
}

}  // namespace cuda_host
