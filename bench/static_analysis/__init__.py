"""Static analysis of the GPU kernels, without a GPU: instruction counts and a time model."""
