"""How kernels read numbers and pixels: scalars, addresses, masked loads."""

import triton
import triton.language as tl


@triton.jit
def number(value, compute_dtype: tl.constexpr):
    """A scalar argument in the compute type."""
    return tl.full((), value, compute_dtype)


@triton.jit
def image_scale(scale, scales_ptr, image, compute_dtype: tl.constexpr):
    """1/data_range of an image: from memory, or the scalar `scale` where scales_ptr is None."""
    if scales_ptr is None:
        of_image = tl.full((), scale, compute_dtype)
    else:
        of_image = tl.load(scales_ptr + image)
    return of_image


@triton.jit
def numbers(values, compute_dtype: tl.constexpr):
    """A tuple of scalar arguments in the compute type."""
    converted = ()
    for k in tl.static_range(len(values)):
        converted = converted + (tl.full((), values[k], compute_dtype),)
    return converted


@triton.jit
def term_factors(factors_ptr, first, shared, terms: tl.constexpr, compute_dtype: tl.constexpr):
    """The factors of the terms: from memory, or the scalars `shared` where factors_ptr is None."""
    factors = ()
    for term in tl.static_range(terms):
        if factors_ptr is None:
            factor = tl.full((), shared[term], compute_dtype)
        else:
            factor = tl.load(factors_ptr + first + term)
        factors = factors + (factor,)
    return factors


@triton.jit
def read(pointer, mask, compute_dtype: tl.constexpr):
    """Elements in the compute type, 0 where `mask` is false."""
    return tl.load(pointer, mask=mask, other=0.0).to(compute_dtype)


@triton.jit
def column_offset(column, stride, dense: tl.constexpr):
    """A column's offset in its row. dense: the stride is 1, and 32 bits hold the offset."""
    if dense:
        offset = column
    else:
        offset = column.to(tl.int64) * stride
    return offset


@triton.jit
def row_pointer(plane, row, stride, dense: tl.constexpr):
    """The address of a row of an image. dense: 32 bits hold the stride, so one multiply does."""
    if dense:
        pointer = plane + tl.cast(row, tl.int64) * stride.to(tl.int32).to(tl.int64)
    else:
        pointer = plane + tl.cast(row, tl.int64) * stride
    return pointer


@triton.jit
def pixel_offset(row, column, row_stride, column_stride):
    """A pixel's offset in its plane, in elements."""
    return tl.cast(row, tl.int64) * row_stride + column.to(tl.int64) * column_stride


@triton.jit
def tuple_of(value, length: tl.constexpr):
    """The same value `length` times."""
    values = ()
    for _ in tl.static_range(length):
        values = values + (value,)
    return values
