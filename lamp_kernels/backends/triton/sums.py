"""From the sums of tiles to those of images or of the batch, always added in the same order."""

import triton
import triton.language as tl

from lamp_kernels.backends.triton.jit import kernel


@triton.jit
def factor_of(factors_ptr, place, shared, real: tl.constexpr):
    """From memory, or where there is none (None) the number that all images share."""
    if factors_ptr is None:
        factor = tl.full((), shared, real)
    else:
        factor = tl.load(factors_ptr + place)
    return factor


@kernel
def image_sums(
    partial_ptr,  # (images, tiles of an image, terms), float64
    factors_ptr,  # (images, terms), or None
    shared0: tl.float64, shared1: tl.float64, shared2: tl.float64,  # else
    shares_ptr,  # (images, terms) per term, else (images,), their sum over the terms
    tiles: tl.int64,
    terms: tl.constexpr, per_term: tl.constexpr, block: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    """factors * sums of each image; a program takes one."""
    image = tl.program_id(0).to(tl.int64)
    partial = partial_ptr + image * tiles * terms
    shared = (shared0, shared1, shared2)
    whole = tl.zeros((), real)
    for term in tl.static_range(terms):
        lanes = tl.zeros([block], tl.float64)
        for start in range(0, tiles, block):
            tile = start + tl.arange(0, block)
            lanes += tl.load(partial + tile * terms + term, mask=tile < tiles, other=0.0)
        factor = factor_of(factors_ptr, image * terms + term, shared[term], real).to(tl.float64)
        share = (factor * tl.sum(lanes, 0)).to(real)
        whole += share
        if per_term:
            tl.store(shares_ptr + image * terms + term, share)
    if not per_term:
        tl.store(shares_ptr + image, whole)


@kernel
def batch_sum(
    partial_ptr,  # (tiles of all images, terms), float64
    shared0: tl.float64, shared1: tl.float64, shared2: tl.float64,  # the factors of every image
    share_ptr,
    tiles: tl.int64,
    terms: tl.constexpr, block: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    """factors * sums over all images, rounded once; one program."""
    shared = (shared0, shared1, shared2)
    whole = tl.zeros((), tl.float64)
    for term in tl.static_range(terms):
        lanes = tl.zeros([block], tl.float64)
        for start in range(0, tiles, block):
            tile = start + tl.arange(0, block)
            lanes += tl.load(partial_ptr + tile * terms + term, mask=tile < tiles, other=0.0)
        factor = tl.full((), shared[term], real).to(tl.float64)
        whole += factor * tl.sum(lanes, 0)
    tl.store(share_ptr, whole.to(real))
