// The kernels that are proved, as shipped for window size 11 and one gradient.
#include "cuda/ssim.cuh"
#include "cuda/ssim_gradients.cuh"
#include "cuda/ssim_losses.cuh"

namespace lamp_kernels::cuda {

template __global__ void ssim_kernel<float, 5, 1, true>(
    const __grid_constant__ SsimArguments<float>);
template __global__ void ssim_losses_kernel<float, 5, 1>(
    const __grid_constant__ SsimArguments<float>);
template __global__ void ssim_gradients_kernel<float, 5, 1>(
    const __grid_constant__ SsimArguments<float>);

}  // namespace lamp_kernels::cuda
