// The sanitizers' interfaces for programs that switch stacks.
#pragma once

#if defined(__has_feature)
#define CUDA_HOST_FEATURE(name) __has_feature(name)
#else
#define CUDA_HOST_FEATURE(name) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || CUDA_HOST_FEATURE(address_sanitizer)
#define CUDA_HOST_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define CUDA_HOST_ASAN 0
#endif

#if defined(__SANITIZE_THREAD__) || CUDA_HOST_FEATURE(thread_sanitizer)
#define CUDA_HOST_TSAN 1
#include <sanitizer/tsan_interface.h>
#else
#define CUDA_HOST_TSAN 0
#endif

// Marks a function of the emulation whose memory accesses ThreadSanitizer must ignore: they happen
// on a CUDA thread, but are not the kernel's.
#if !CUDA_HOST_TSAN
#define CUDA_HOST_UNSEEN
#elif defined(__clang__)
#define CUDA_HOST_UNSEEN __attribute__((no_sanitize("thread"), noinline))
#else
#define CUDA_HOST_UNSEEN __attribute__((no_sanitize_thread, noinline))
#endif
