#include "variants.cuh"

namespace lamp_kernels::cuda {

#define LAMP_GENERAL(r) \
  {{}, variant<OneLaunch<float, r, 1, false>>(), variant<OneLaunch<float, r, 2, false>>()}
LAMP_TABLE(float_one, LAMP_GENERAL)

#define LAMP_COMMON(r)                              \
  {                                                 \
    {}, variant<OneLaunch<float, r, 1, true>>(), {} \
  }
LAMP_TABLE(float_one_common, LAMP_COMMON)

}  // namespace lamp_kernels::cuda
