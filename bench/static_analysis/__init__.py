"""What can be said of the CUDA kernels without a GPU: counts of the compiled code, and a model."""
