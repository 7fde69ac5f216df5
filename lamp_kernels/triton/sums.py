"""From the sums of tiles to those of images, always added in the same order."""

import triton.language as tl

from lamp_kernels.triton.jit import kernel


@kernel
def image_sums(
    partial_ptr,  # (images, tiles of an image, terms), float64
    factors_ptr,  # (images, terms)
    shares_ptr,  # (images, terms) per term, else (images,), their sum over the terms
    tiles: tl.int64,
    terms: tl.constexpr, per_term: tl.constexpr, block: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    """factors * sums of each image; a program takes one."""
    image = tl.program_id(0).to(tl.int64)
    partial = partial_ptr + image * tiles * terms
    whole = tl.zeros((), real)
    for term in tl.static_range(terms):
        lanes = tl.zeros([block], tl.float64)
        for start in range(0, tiles, block):
            tile = start + tl.arange(0, block)
            lanes += tl.load(partial + tile * terms + term, mask=tile < tiles, other=0.0)
        factor = tl.load(factors_ptr + image * terms + term).to(tl.float64)
        share = (factor * tl.sum(lanes, 0)).to(real)
        whole += share
        if per_term:
            tl.store(shares_ptr + image * terms + term, share)
    if not per_term:
        tl.store(shares_ptr + image, whole)
