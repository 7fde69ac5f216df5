// The kernel whose PTX is proved.
#include "cuda/ssim.cuh"

template __global__ void lamp_kernels::cuda::ssim_kernel<float, 5, 1>(
    const __grid_constant__ lamp_kernels::cuda::SsimArguments<float>);
