#include "variants.cuh"

namespace lamp_kernels::cuda {

#define LAMP_LOSSES(r) {variant<Losses<r, 0>>(), variant<Losses<r, 1>>(), variant<Losses<r, 2>>()}
LAMP_TABLE(float_losses, LAMP_LOSSES)

#define LAMP_GRADIENTS(r) {{}, variant<Gradients<r, 1>>(), variant<Gradients<r, 2>>()}
LAMP_TABLE(float_gradients, LAMP_GRADIENTS)

}  // namespace lamp_kernels::cuda
