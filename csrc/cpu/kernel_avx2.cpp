// AVX2 and FMA: 32-byte vectors.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "isa.h"

#if defined(__x86_64__) && !defined(__clang__) && __GNUC__ >= 12
#pragma GCC target("arch=x86-64-v3")

#define LAMP_VECTOR_BYTES 32
#define LAMP_ROWS 8

namespace lamp_kernels::avx2 {

#include "kernel.h"

}  // namespace lamp_kernels::avx2

#endif
