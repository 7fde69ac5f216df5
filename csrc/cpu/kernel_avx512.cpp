// AVX-512: 64-byte vectors.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "isa.h"

#if defined(__x86_64__) && !defined(__clang__) && __GNUC__ >= 12
#pragma GCC target("arch=x86-64-v4")

#define LAMP_VECTOR_BYTES 64
#define LAMP_ROWS 8

namespace lamp_kernels::avx512 {

#include "kernel.h"

}  // namespace lamp_kernels::avx512

#endif
