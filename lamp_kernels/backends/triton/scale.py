"""Backward's multiplication of a stored gradient by the upstream factor, a value on the device.

Where the factor is 1, as under loss.backward(), the gradient is not even read.
"""

import triton.language as tl

from lamp_kernels.backends.triton.jit import kernel


@kernel
def scale_gradient(
    gradient_ptr,  # (images, size), dense
    factor_ptr,  # (images,)
    factor_stride: tl.int64, size: tl.int64, runs: tl.int64,
    block: tl.constexpr, pieces: tl.constexpr,
):  # fmt: skip
    """gradient * factor of each image, in place. runs: per image, of `pieces * block` elements."""
    program = tl.program_id(0).to(tl.int64)
    image = program // runs
    factor = tl.load(factor_ptr + image * factor_stride)
    if factor != 1.0:
        gradient = gradient_ptr + image * size
        first = program % runs * (pieces * block)
        end = tl.minimum(first + pieces * block, size)
        for start in range(first, end, block):
            element = start + tl.arange(0, block)
            mask = element < end
            value = tl.load(gradient + element, mask=mask, other=0.0)
            tl.store(gradient + element, value * factor, mask=mask)
