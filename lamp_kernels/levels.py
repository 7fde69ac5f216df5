"""From sums per image to the loss: levels of amplification, means, weights, several terms.

Small-tensor arithmetic, the same for every backend. For each of N images and T terms, S is the
sum over the grid of that term's loss of m A(L) (element level) or m L (image and batch level),
and m the sum of the weight there. Each term is amplified on its own, then multiplied by its
coefficient and added.

| level   | mean                              | sum              | image  |
|---------|-----------------------------------|------------------|--------|
| element | sum_n S / sum_n m                 | sum_n S          | S / m  |
| image   | mean of A(S/m) over images, m > 0 | sum_n A(S/m)     | A(S/m) |
| batch   | A(sum_n S / sum_n m)              | none             | none   |

All of it is `finish(factors * S)`: the factors are known before any pixel is read, so a
kernel can compute the gradient of sum(factors * S) in the pass that computes S. It can so where
`finish` treats the terms of an image alike, so that their sum is all it needs; at image and batch
level several terms have a slope each (`sums`). Without a weight all images have the same factors,
numbers, and the kernel may add up the batch.

Where a sum of weights is 0 its quotient is S, and S is 0 unless the data holds NaN or infinity:
a weight of 0 does not hide those.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lamp_kernels.options import Level, MeanOver, Reduction, Sums, Terms
from lamp_kernels.tensors import numbers_beside


class SharedFactors(NamedTuple):
    """The factors of every image where m = 1: numbers.

    Not divided yet, so that a compiled graph for any size has none of a size in it.
    """

    coefficients: tuple[float, ...]  # one a term
    mean_over: MeanOver  # what they are divided by: the grid's values in an image, or in all

    def of(self, term: int, grid: torch.Size) -> float:
        """What that term's S is multiplied by; grid: the shape of its losses, (N, ...)."""
        coefficient = self.coefficients[term]
        if self.mean_over == "nothing":
            return coefficient
        count = max(math.prod(grid[1:]), 1)
        if self.mean_over == "batch":
            count *= max(grid[0], 1)
        return coefficient / count


def shared_factors(terms: Terms, amplify_over: Level, reduction: Reduction) -> SharedFactors:
    """What S of every image is multiplied by, where there is no weight."""
    numerators = tuple(_numerator(value, amplify_over) for value in terms.values())
    return SharedFactors(numerators, mean_over(amplify_over, reduction))


def factor(
    own: Tensor, total: Tensor, coefficient: float, amplify_over: Level, reduction: Reduction
) -> Tensor | float:
    """What one term's S is multiplied by, from m of each image and of all."""
    numerator, over = _numerator(coefficient, amplify_over), mean_over(amplify_over, reduction)
    if over == "nothing":
        return numerator
    return numerator / (own if over == "image" else total)


def _numerator(coefficient: float, amplify_over: Level) -> float:
    return coefficient if amplify_over == "element" else 1.0


def mean_over(amplify_over: Level, reduction: Reduction) -> MeanOver:
    """What sums are divided by the number or the weights of."""
    if amplify_over == "image" or reduction == "image":
        return "image"
    return "batch" if amplify_over == "batch" or reduction == "mean" else "nothing"


def sums(amplify_over: Level, reduction: Reduction, terms: Terms, shared: bool) -> Sums:
    """What `finish` needs of the shares. shared: whether all images have the same factors."""
    if amplify_over != "element":
        return "terms" if len(terms) > 1 else "images"
    return "batch" if shared and reduction != "image" else "images"


def nonzero(weights: Tensor) -> Tensor:
    """Sums of weights to divide by."""
    return weights.masked_fill(weights == 0, 1)


def finish(
    shares: Tensor,
    coefficients: Sequence[float],
    counted: Tensor | int,
    amplify: Callable[[Tensor], Tensor],
    amplify_over: Level,
    reduction: Reduction,
) -> Tensor:
    """The loss, a scalar or (N,) for reduction="image", from shares = factors * S.

    shares: as `sums` says.
    counted: how many images have m > 0, (T,) or one number; at least 1.
    """
    if amplify_over == "element":  # the coefficients are in the factors
        return shares if reduction == "image" or shares.dim() == 0 else shares.sum()
    if shares.dim() == 1:
        shares = shares.unsqueeze(1)
    by_term = numbers_beside(shares, coefficients, shares.dtype)
    if amplify_over == "batch":
        return (amplify(shares.sum(0)) * by_term).sum()
    shares = amplify(shares) * by_term
    if reduction == "mean":
        shares = shares / counted
    return shares.sum(1) if reduction == "image" else shares.sum()
