// The baseline that every machine of the architecture supports: SSE2 on x86-64, NEON on aarch64.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "isa.h"

#define LAMP_VECTOR_BYTES 16
#define LAMP_ROWS 8

namespace lamp_kernels::baseline {

#include "kernel.h"

}  // namespace lamp_kernels::baseline
