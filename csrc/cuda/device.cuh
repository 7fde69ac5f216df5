// What device code needs of its surroundings: nvcc, or the host emulation of tests/cuda_host, which
// includes its own header first and defines the same names.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <climits>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "../params.h"
#include "tiling.h"

#define LAMP_INLINE static __host__ __device__ __forceinline__
#define LAMP_DEVICE __device__ __forceinline__
#ifdef __CUDACC__
#define LAMP_UNROLL _Pragma("unroll")
#define LAMP_ROLLED _Pragma("unroll 1")
#else
#define LAMP_UNROLL _Pragma("GCC unroll 32")
#define LAMP_ROLLED _Pragma("GCC unroll 1")
#endif

#ifndef CUDA_HOST_EMULATION
// The block's dynamic shared memory, as many bytes as the launch says.
#define LAMP_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#define LAMP_LAUNCH(kernel, grid, block, shared, stream, ...) \
  kernel<<<(grid), (block), (shared), (stream)>>>(__VA_ARGS__)
#endif

// That a pointer is one to device memory, where the compiler has lost sight of it: an instruction
// that has to find out is slower.
#ifdef __CUDA_ARCH__
#define LAMP_IS_GLOBAL(pointer) __builtin_assume(__isGlobal(pointer))
#else
#define LAMP_IS_GLOBAL(pointer)
#endif

namespace lamp_kernels::cuda {

// ---- What formulas.h asks for -------------------------------------------------------------------

template <class V>
struct bits;
template <>
struct bits<float> {
  using type = int32_t;
};
template <>
struct bits<double> {
  using type = int64_t;
};

// A copy of the bytes, which costs nothing on the device and is legal on the host.
template <class To, class From>
LAMP_INLINE To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}
template <class V>
LAMP_INLINE typename bits<V>::type as_bits(V v) {
  return same_bits<typename bits<V>::type>(v);
}
template <class V>
LAMP_INLINE V as_value(typename bits<V>::type i) {
  return same_bits<V>(i);
}
template <class V>
LAMP_INLINE V to_value(typename bits<V>::type i) {
  return V(i);
}

// a/b. In float32 by the reciprocal instruction, which is good to one unit in the last place and
// takes subnormal numbers for 0, of which no formula has any. The division that IEEE 754 asks for
// is nine instructions and a branch.
LAMP_INLINE float quotient(float a, float b) {
#ifdef __CUDA_ARCH__
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(b));
  return a * inverse;
#else
  return a / b;
#endif
}
LAMP_INLINE double quotient(double a, double b) { return a / b; }

// max(v, 0) that keeps NaN: one instruction, from compute capability 8.0 on.
LAMP_INLINE float at_least_zero(float v) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  float larger;
  asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(larger) : "f"(v));
  return larger;
#else
  return v < 0 ? 0 : v;
#endif
}
LAMP_INLINE double at_least_zero(double v) { return v < 0 ? 0 : v; }

#include "../formulas.h"

// ---- Elements of tensors ------------------------------------------------------------------------

// An element as it lies in memory, in the bits of the type computed in. It is converted where it is
// used: a conversion beside each of several loads would wait for one after the other.
template <class T>
using Raw = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

template <class Bits>
LAMP_DEVICE Bits bits_at(const char* at) {
  LAMP_IS_GLOBAL(at);
  return *reinterpret_cast<const Bits*>(at);
}
// The dtype is the same for all threads. float64 is computed in float64.
template <class T>
LAMP_DEVICE Raw<T> raw_at(const char* at, Dtype dtype) {
  switch (dtype) {
    case Dtype::float32: return bits_at<uint32_t>(at);
    case Dtype::float64: return Raw<T>(bits_at<uint64_t>(at));
    default: return bits_at<uint16_t>(at);
  }
}
template <class T>
LAMP_DEVICE T value_of(Raw<T> raw, Dtype dtype) {
  switch (dtype) {
    case Dtype::float32: return T(same_bits<float>(uint32_t(raw)));
    case Dtype::float64: return T(same_bits<double>(uint64_t(raw)));
    case Dtype::float16: return T(__half2float(same_bits<__half>(uint16_t(raw))));
    default: return T(same_bits<float>(uint32_t(raw) << 16));  // bfloat16 is a float32's upper half
  }
}

// Element `at` of a source.
template <class T>
LAMP_DEVICE Raw<T> load_raw(const ConstTensorView& s, int64_t at) {
  return raw_at<T>(static_cast<const char*>(s.data) + at * size_of(s.dtype), s.dtype);
}
template <class T>
LAMP_DEVICE T load(const ConstTensorView& s, int64_t at) {
  return value_of<T>(load_raw<T>(s, at), s.dtype);
}

// Where in a tensor one plane begins.
template <class Tensor>  // ConstTensorView or TensorView
LAMP_DEVICE int64_t plane_of(const Tensor& s, int64_t image, int64_t channel) {
  return image * s.batch + channel * s.channel;
}

// `common`: elements of T whose columns lie side by side, in rows of which 32 bits count the bytes.
template <class T>
LAMP_DEVICE const char* common_place(const ConstTensorView& s, int64_t plane, int row, int column) {
  return static_cast<const char*>(s.data) + plane * int64_t(sizeof(T)) +
         int64_t(row) * (int(s.row) * int(sizeof(T))) + int64_t(column) * int64_t(sizeof(T));
}
// Where they are not common a switch parts each load from the next.
template <bool common, class T>
LAMP_DEVICE Raw<T> load_raw(const ConstTensorView& s, int64_t plane, int row, int column) {
  if constexpr (common) return bits_at<Raw<T>>(common_place<T>(s, plane, row, column));
  return load_raw<T>(s, plane + row * s.row + column * s.column);
}
template <bool common, class T>
LAMP_DEVICE T value_of(Raw<T> raw, const ConstTensorView& s) {
  return common ? same_bits<T>(raw) : value_of<T>(raw, s.dtype);
}

template <class T>
LAMP_DEVICE Raw<T> load_raw_at(const ConstTensorView& s, const Tile& tile, int row, int column) {
  return load_raw<T>(s, plane_of(s, tile.image, tile.channel) + row * s.row + column * s.column);
}
template <class T>
LAMP_DEVICE T load_at(const ConstTensorView& s, const Tile& tile, int row, int column) {
  return value_of<T>(load_raw_at<T>(s, tile, row, column), s.dtype);
}

// ---- Copies to shared memory ---------------------------------------------------------------------

// A copy of 4, 8 or 16 bytes from device to shared memory, for which no register waits.
template <class Element>
struct Copy {
  Element* to;
  const char* from;
  bool asked;  // else `to` stays as it is
  bool there;  // else `to` becomes 0
};
// Predicated, not branched: a branch would part what can run beside the copies. Compute capability
// 7.5 has no cp.async: all are loaded before the first is stored, so that the thread waits once.
LAMP_DEVICE void copy_ahead() {}
template <class Element, class... Others>
LAMP_DEVICE void copy_ahead(const Copy<Element>& copy, const Others&... others) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile(
      "{ .reg .pred asked, absent;\n"
      "setp.ne.b32 asked, %0, 0;\n"
      "setp.eq.b32 absent, %1, 0;\n"
      "@asked cp.async.ca.shared.global [%2], [%3], %4, absent; }" ::"r"(int(copy.asked)),
      "r"(int(copy.there)), "r"(uint32_t(__cvta_generic_to_shared(copy.to))), "l"(copy.from),
      "n"(sizeof(Element)));
  copy_ahead(others...);
#elif defined(CUDA_HOST_EMULATION)
  if (copy.asked) ::cuda_host::copy_ahead(copy.to, copy.from, sizeof(Element), copy.there);
  copy_ahead(others...);
#else
  Element value{};
  if (copy.asked && copy.there) value = *reinterpret_cast<const Element*>(copy.from);
  copy_ahead(others...);
  if (copy.asked) *copy.to = value;
#endif
}
// Ends a group of copies, of which there may be none.
LAMP_DEVICE void end_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#elif defined(CUDA_HOST_EMULATION)
  ::cuda_host::end_copies();
#endif
}
// Until this thread's copies are there, but for those of the last `groups`.
template <int groups>
LAMP_DEVICE void wait_for_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
#elif defined(CUDA_HOST_EMULATION)
  ::cuda_host::wait_for_copies(groups);
#endif
}

// The factors of the terms of one image, by metric; a map has those of its terms for all images.
// `only_ssim`: SSIM is the only term.
template <class T, bool only_ssim = false>
struct Factors {
  T of[kMetrics];

  LAMP_DEVICE Factors(const Params& p, int64_t image) {
    LAMP_UNROLL
    for (int m = 0; m < kMetrics; ++m) {
      const bool has = only_ssim ? m == 0 : p.terms.has(Metric(m));
      of[m] = has ? at(p, image, only_ssim ? 0 : p.terms.position(Metric(m))) : T(0);
    }
  }

 private:
  static LAMP_DEVICE T at(const Params& p, int64_t image, int position) {
    if (!p.factors) return T(p.shared_factors[position]);
    const int64_t first = p.map.data ? 0 : image * p.terms.count();
    return static_cast<const T*>(p.factors)[first + position];
  }
};

// ---- Sums ---------------------------------------------------------------------------------------

// A sum of many numbers: in T over a partial of them, in double from there on, because float64 is a
// 32nd or a 64th as fast on most devices.
template <class T>
struct Sum {
  static constexpr int kFlushEvery = 32;
  T partial = 0;
  double total = 0;

  LAMP_DEVICE void flush() {
    total += double(partial);
    partial = 0;
  }
};

// The sums of all threads' values, to all of them, always in the same order. `scratch` holds `count`
// numbers for each warp, and nothing else uses it between two barriers from here.
template <class T, int count>
LAMP_DEVICE void sums_of_block(T (&values)[count], T* scratch) {
  LAMP_UNROLL
  for (int k = 0; k < count; ++k)
    for (int by = kWarp / 2; by > 0; by /= 2)
      values[k] += __shfl_down_sync(0xffffffffu, values[k], by);
  const int warps = blockDim.x / kWarp, warp = threadIdx.x / kWarp;
  if (threadIdx.x % kWarp == 0)
    for (int k = 0; k < count; ++k) scratch[warp * count + k] = values[k];
  __syncthreads();
  LAMP_UNROLL
  for (int k = 0; k < count; ++k) values[k] = scratch[k];
  LAMP_ROLLED  // warps are partial
  for (int i = 1; i < warps; ++i) {
    LAMP_UNROLL
    for (int k = 0; k < count; ++k) values[k] += scratch[i * count + k];
  }
  __syncthreads();
}
template <class T>
LAMP_DEVICE T sum_of_block(T value, T* scratch) {
  T values[] = {value};
  sums_of_block(values, scratch);
  return values[0];
}

}  // namespace lamp_kernels::cuda
