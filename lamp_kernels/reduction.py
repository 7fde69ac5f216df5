"""From sums per image to the loss: levels of amplification, means, weights, several terms.

This is arithmetic on small tensors, the same for every backend. For each of N images and T terms,
S is the sum of the term over its grid: of m A(L) at element level, of m L at image and batch level.
In the table, m stands for the sum of the weight over that grid. Each term is amplified separately
and multiplied by its coefficient; the terms are then added.

| level   | mean                              | sum              | image  |
|---------|-----------------------------------|------------------|--------|
| element | sum_n S / sum_n m                 | sum_n S          | S / m  |
| image   | mean of A(S/m) over images, m > 0 | sum_n A(S/m)     | A(S/m) |
| batch   | A(sum_n S / sum_n m)              | none             | none   |

Every entry is `finish(factors * S)`. The factors are known before any pixel is read, so a kernel
can compute the gradient of sum(factors * S) in the pass that computes S. The backward pass needs
nothing else as long as `finish` has the same slope for all terms of an image. With several terms
at image or batch level the slopes differ, and the kernel returns S term by term (see `sums`).
Without a weight the factors are plain numbers. Where all images share their factors, the kernel may
sum over the whole batch.

If a sum of weights is 0, S is divided by 1 instead. S is 0 then, unless the data contain NaN or
infinity, which a weight of 0 does not hide.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lamp_kernels import reference
from lamp_kernels.spec import LossSpec, Sums
from lamp_kernels.tensors import numbers_beside, widest_dtype

# Sums are divided by the number of elements, or the total weight, of this.
MeanOver = Literal["nothing", "image", "batch"]


class SharedFactors(NamedTuple):
    """The factors that all images share if there is no weight, as plain numbers.

    They are not yet divided by sizes, so a compiled graph for any size contains no size as a
    constant.
    """

    coefficients: tuple[float, ...]  # one per term
    mean_over: MeanOver  # divides them by the elements of the grid, in one image or in the batch

    def of(self, term: int, grid: torch.Size) -> float:
        """The factor of this term's S. grid: the shape of the term's losses, (N, ...)."""
        coefficient = self.coefficients[term]
        if self.mean_over == "nothing":
            return coefficient
        count = max(math.prod(grid[1:]), 1)
        if self.mean_over == "batch":
            count *= max(grid[0], 1)
        return coefficient / count

    def divided(self, grids: list[torch.Size]) -> list[float]:
        """The factors of all terms. grids: the shapes of their losses."""
        return [self.of(term, grid) for term, grid in enumerate(grids)]


Factors = Tensor | SharedFactors  # (N, T), or shared


def shared_factors(spec: LossSpec) -> SharedFactors:
    """The factors of S if there is no weight."""
    return SharedFactors(_numerators(spec), mean_over(spec))


def term_factor(
    spec: LossSpec, term: int, image_weight: Tensor, total_weight: Tensor
) -> Tensor | float:
    """The factor of one term's S, given the sum of the weight per image (N,) and in total ()."""
    numerator, over = _numerators(spec)[term], mean_over(spec)
    if over == "nothing":
        return numerator
    divisor = image_weight if over == "image" else total_weight
    # Rounded once, as the quotient of two Python numbers is where there is no weight.
    wide = widest_dtype(divisor)
    return (divisor.new_full((), numerator, dtype=wide) / divisor.to(wide)).to(divisor.dtype)


def _numerators(spec: LossSpec) -> tuple[float, ...]:
    return spec.coefficients if spec.amplify_over == "element" else (1.0,) * len(spec.terms)


def mean_over(spec: LossSpec) -> MeanOver:
    """Whether the loss divides sums by the size or weight of an image, the batch, or neither."""
    if spec.amplify_over == "image" or spec.reduction == "image":
        return "image"
    return "batch" if spec.amplify_over == "batch" or spec.reduction == "mean" else "nothing"


def sums(spec: LossSpec) -> Sums:
    """How far the kernel may sum what `finish` needs: over the batch if images share factors."""
    if spec.amplify_over != "element":
        return "terms" if len(spec.terms) > 1 else "images"
    return "images" if spec.reduction == "image" else "batch"


def nonzero(weights: Tensor) -> Tensor:
    """Sums of weights as divisors: 1 instead of 0."""
    return weights.masked_fill(weights == 0, 1)


def finish(spec: LossSpec, scaled_sums: Tensor, nonempty_images: Tensor | int) -> Tensor:
    """The loss, a scalar or (N,) for reduction="image", from scaled_sums = factors * S.

    scaled_sums: summed as far as `sums` says.
    nonempty_images: how many images have m > 0, (T,) or one number; at least 1.
    """
    if spec.amplify_over == "element":  # the coefficients are in the factors
        whole = spec.reduction == "image" or scaled_sums.dim() == 0
        return scaled_sums if whole else scaled_sums.sum()
    if scaled_sums.dim() == 1:
        scaled_sums = scaled_sums.unsqueeze(1)
    coefficients = numbers_beside(scaled_sums, spec.coefficients, scaled_sums.dtype)
    if spec.amplify_over == "batch":
        return (reference.amplify(scaled_sums.sum(0), spec) * coefficients).sum()
    losses = reference.amplify(scaled_sums, spec) * coefficients
    if spec.reduction == "mean":
        losses = losses / nonempty_images
    return losses.sum(1) if spec.reduction == "image" else losses.sum()
