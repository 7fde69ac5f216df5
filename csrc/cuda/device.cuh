// What device code needs of its surroundings: nvcc, or the host emulation of tests/cuda_host, which
// includes its own header first and defines the same names.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <climits>
#include <cstdint>

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

#include "../formulas.h"

// ---- Elements of tensors ------------------------------------------------------------------------

// The half types, as they lie in memory.
struct Float16 {
  uint16_t bits;
};
struct Bfloat16 {
  uint16_t bits;
};

// An element in the type computed in.
template <class T>
LAMP_DEVICE T value_of(float v) { return T(v); }
template <class T>
LAMP_DEVICE T value_of(double v) { return T(v); }
template <class T>
LAMP_DEVICE T value_of(Float16 v) { return T(__half2float(same_bits<__half>(v))); }
template <class T>
LAMP_DEVICE T value_of(Bfloat16 v) {
  return T(same_bits<float>(uint32_t(v.bits) << 16));  // the upper half of a float32
}

// The element of a tensor of `dtype` at an address, in the type computed in. The dtype is the same
// for all threads.
template <class T>
LAMP_DEVICE T load_as(const char* at, Dtype dtype) {
  switch (dtype) {
    case Dtype::float32: return value_of<T>(*reinterpret_cast<const float*>(at));
    case Dtype::float64: return value_of<T>(*reinterpret_cast<const double*>(at));
    case Dtype::float16: return value_of<T>(*reinterpret_cast<const Float16*>(at));
    default: return value_of<T>(*reinterpret_cast<const Bfloat16*>(at));
  }
}
// Element `at` of a source.
template <class T>
LAMP_DEVICE T load(const Source& s, int64_t at) {
  return load_as<T>(static_cast<const char*>(s.data) + at * size_of(s.dtype), s.dtype);
}

// Where in a tensor one plane begins.
template <class Tensor>  // Source or Sink
LAMP_DEVICE int64_t plane_of(const Tensor& s, int64_t image, int64_t channel) {
  return image * s.batch + channel * s.channel;
}

template <class T>
LAMP_DEVICE T load_at(const Source& s, const Tile& tile, int row, int column) {
  return load<T>(s, plane_of(s, tile.image, tile.channel) + row * s.row + column * s.column);
}

// The factor of term k of an image; a map has those of its terms for all images.
template <class T>
LAMP_DEVICE T factor_of(const Params& p, int64_t image, int k) {
  if (!p.factors) return T(p.shared_factors[k]);
  return static_cast<const T*>(p.factors)[(p.map.data ? 0 : image * p.terms()) + k];
}

// ---- Sums ---------------------------------------------------------------------------------------

// A sum of many numbers: in T over a few of them, in double from there on, because float64 is a
// 32nd or a 64th as fast on most devices.
template <class T>
struct Sum {
  static constexpr int kFew = 32;
  T few = 0;
  double total = 0;

  LAMP_DEVICE void flush() {
    total += double(few);
    few = 0;
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
  for (int k = 0; k < count; ++k) {
    values[k] = 0;
    for (int i = 0; i < warps; ++i) values[k] += scratch[i * count + k];
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
