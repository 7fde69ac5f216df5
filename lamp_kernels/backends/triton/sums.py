"""From the sums of tiles to those of images or of the batch, always added in the same order."""

import triton
import triton.language as tl

from lamp_kernels.backends.triton.jit import kernel
from lamp_kernels.backends.triton.memory import term_factors


@triton.jit
def sum_of_tiles(partial, tiles, term, terms: tl.constexpr, block: tl.constexpr):
    """The sum of one term over tiles, in float64. partial: (tiles, terms)."""
    lanes = tl.zeros([block], tl.float64)
    for start in range(0, tiles, block):
        tile = start + tl.arange(0, block)
        lanes += tl.load(partial + tile * terms + term, mask=tile < tiles, other=0.0)
    return tl.sum(lanes, 0)


@kernel
def image_sums(
    partial_ptr,  # (images, tiles of an image, terms), float64
    factors_ptr,  # (images, terms), or None: then all images share
    shared0: tl.float64, shared1: tl.float64, shared2: tl.float64,
    scaled_sums_ptr,  # (images, terms) if per_term, else (images,): the sum over the terms
    tiles: tl.int64,
    terms: tl.constexpr, per_term: tl.constexpr, block: tl.constexpr, compute_dtype: tl.constexpr,
):  # fmt: skip
    """factors * sums of each image; a program computes one image."""
    image = tl.program_id(0).to(tl.int64)
    partial = partial_ptr + image * tiles * terms
    factors = term_factors(
        factors_ptr, image * terms, (shared0, shared1, shared2), terms, compute_dtype
    )
    total = tl.zeros((), compute_dtype)
    for term in tl.static_range(terms):
        factor = factors[term].to(tl.float64)
        scaled_sum = (factor * sum_of_tiles(partial, tiles, term, terms, block)).to(compute_dtype)
        total += scaled_sum
        if per_term:
            tl.store(scaled_sums_ptr + image * terms + term, scaled_sum)
    if not per_term:
        tl.store(scaled_sums_ptr + image, total)


@kernel
def batch_sum(
    partial_ptr,  # (tiles of all images, terms), float64
    factors_ptr,  # (at least one image, terms), all rows alike, or None
    shared0: tl.float64, shared1: tl.float64, shared2: tl.float64,
    scaled_sum_ptr,
    tiles: tl.int64,
    terms: tl.constexpr, block: tl.constexpr, compute_dtype: tl.constexpr,
):  # fmt: skip
    """factors * sums over all images, rounded once; one program."""
    factors = term_factors(factors_ptr, 0, (shared0, shared1, shared2), terms, compute_dtype)
    total = tl.zeros((), tl.float64)
    for term in tl.static_range(terms):
        total += factors[term].to(tl.float64) * sum_of_tiles(partial_ptr, tiles, term, terms, block)
    tl.store(scaled_sum_ptr, total.to(compute_dtype))
