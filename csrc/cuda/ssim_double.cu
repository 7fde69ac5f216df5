#include "variants.cuh"

namespace lamp_kernels::cuda {

#define LAMP_VARIANTS(r)                                                                 \
  {variant<OneLaunch<double, r, 0, false>>(), variant<OneLaunch<double, r, 1, false>>(), \
   variant<OneLaunch<double, r, 2, false>>()}
LAMP_TABLE(double_one, LAMP_VARIANTS)

}  // namespace lamp_kernels::cuda
