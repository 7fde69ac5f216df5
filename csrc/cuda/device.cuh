// Basics that all device code builds on. It compiles with nvcc, or with the host emulation of
// tests/cuda_host, which includes its own header first and defines the same names.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <math.h>  // pow and sqrt for formulas.h, overloaded in the global namespace

#include <climits>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "../params.h"
#include "tiling.h"

#define LAMP_INLINE static __host__ __device__ __forceinline__
#define LAMP_INLINE_LAMBDA
#define LAMP_DEVICE __device__ __forceinline__
#ifdef __CUDACC__
#define LAMP_UNROLL _Pragma("unroll")
#define LAMP_ROLLED _Pragma("unroll 1")
#else
#define LAMP_UNROLL _Pragma("GCC unroll 32")
#define LAMP_ROLLED _Pragma("GCC unroll 1")
#endif

#ifndef CUDA_HOST_EMULATION
// The block's dynamic shared memory; the launch sets its size.
#define LAMP_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#define LAMP_LAUNCH(kernel, grid, block, shared, stream, ...) \
  kernel<<<(grid), (block), (shared), (stream)>>>(__VA_ARGS__)
#endif

// Tells the compiler that a pointer is to global memory where it can no longer infer that. Generic
// loads and stores, which determine the address space at run time, are slower.
#ifdef __CUDA_ARCH__
#define LAMP_IS_GLOBAL(pointer) __builtin_assume(__isGlobal(pointer))
#else
#define LAMP_IS_GLOBAL(pointer)
#endif

namespace lamp_kernels::cuda {

// ---- What formulas.h requires ------------------------------------------------------------------

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

// A bit cast: free on the device, and legal on the host.
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

// a/b. In float32 it multiplies by the result of the reciprocal instruction, which is accurate to
// one unit in the last place and treats subnormal numbers as 0; no formula divides by any. An IEEE
// 754 division takes nine instructions and a branch.
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

// max(v, 0), but NaN stays NaN. One instruction on compute capability 8.0 and later.
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

// ---- Elements of tensors -----------------------------------------------------------------------

// The raw bits of an element, in an integer as wide as the compute type. Elements are converted
// where they are used: converting right after each of several loads would wait for them one by one.
template <class T>
using Raw = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

template <class Bits>
LAMP_DEVICE Bits bits_at(const char* at) {
  LAMP_IS_GLOBAL(at);
  return *reinterpret_cast<const Bits*>(at);
}
// The dtype is the same for all threads, so the switch does not diverge. float64 images are always
// computed in float64.
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
    default: return T(same_bits<float>(uint32_t(raw) << 16));  // bfloat16: upper half of a float32
  }
}

// Element `at` of a tensor.
template <class T>
LAMP_DEVICE Raw<T> load_raw(const ConstTensorView& s, int64_t at) {
  return raw_at<T>(static_cast<const char*>(s.data) + at * size_of(s.dtype), s.dtype);
}
template <class T>
LAMP_DEVICE T load(const ConstTensorView& s, int64_t at) {
  return value_of<T>(load_raw<T>(s, at), s.dtype);
}

// Index of the first element of a plane.
template <class Tensor>  // ConstTensorView or TensorView
LAMP_DEVICE int64_t plane_of(const Tensor& s, int64_t image, int64_t channel) {
  return image * s.batch + channel * s.channel;
}

// The address of an element of a `common` tensor: of dtype T, with a column stride of 1 and a row
// stride in bytes that fits 32 bits.
template <class T>
LAMP_DEVICE const char* common_place(const ConstTensorView& s, int64_t plane, int row, int column) {
  return static_cast<const char*>(s.data) + plane * int64_t(sizeof(T)) +
         int64_t(row) * (int(s.row) * int(sizeof(T))) + int64_t(column) * int64_t(sizeof(T));
}
// If the tensor is not common, the switch on the dtype keeps the compiler from overlapping loads.
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

// ---- Copies to shared memory -------------------------------------------------------------------

// An asynchronous copy of 4, 8 or 16 bytes from global to shared memory, without a register in
// between.
template <class Element>
struct Copy {
  Element* to;
  const char* from;
  bool wanted;     // if not, `to` is left unchanged
  bool in_bounds;  // if not, `to` is set to 0
};
// Predicated, because a branch would keep the compiler from overlapping the copies with other work.
// Compute capability 7.5 has no cp.async: there, all values are loaded before the first is stored,
// so that the thread waits only once.
LAMP_DEVICE void copy_ahead() {}
template <class Element, class... Others>
LAMP_DEVICE void copy_ahead(const Copy<Element>& copy, const Others&... others) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile(
      "{ .reg .pred wanted, absent;\n"
      "setp.ne.b32 wanted, %0, 0;\n"
      "setp.eq.b32 absent, %1, 0;\n"
      "@wanted cp.async.ca.shared.global [%2], [%3], %4, absent; }" ::"r"(int(copy.wanted)),
      "r"(int(copy.in_bounds)), "r"(uint32_t(__cvta_generic_to_shared(copy.to))), "l"(copy.from),
      "n"(sizeof(Element)));
  copy_ahead(others...);
#elif defined(CUDA_HOST_EMULATION)
  if (copy.wanted) ::cuda_host::copy_ahead(copy.to, copy.from, sizeof(Element), copy.in_bounds);
  copy_ahead(others...);
#else
  Element value{};
  if (copy.wanted && copy.in_bounds) value = *reinterpret_cast<const Element*>(copy.from);
  copy_ahead(others...);
  if (copy.wanted) *copy.to = value;
#endif
}
// Closes a group of copies, which may be empty.
LAMP_DEVICE void end_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#elif defined(CUDA_HOST_EMULATION)
  ::cuda_host::end_copies();
#endif
}
// Waits until this thread's copies have arrived, except those of the last `groups` groups.
template <int groups>
LAMP_DEVICE void wait_for_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
#elif defined(CUDA_HOST_EMULATION)
  ::cuda_host::wait_for_copies(groups);
#endif
}

// One image's factors of the terms, by metric. For a map, all images share the factors.
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

// ---- Sums --------------------------------------------------------------------------------------

// A sum of many numbers: a few at a time are added in T, and these partial sums in double, because
// float64 runs at 1/32 or 1/64 of the speed on most devices.
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

// Sums values over all threads of the block, and returns the sums to all of them. The order of the
// additions is always the same. `scratch` has room for `count` numbers per warp, and must not be
// used for anything else between the barriers before and after this call.
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
  LAMP_ROLLED  // there are few warps
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
