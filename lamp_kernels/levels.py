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
level several terms have a slope each (`per_term`).

Where a sum of weights is 0 its quotient is S, and S is 0 unless the data holds NaN or infinity:
a weight of 0 does not hide those.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from lamp_kernels.options import Level, Reduction, Terms
from lamp_kernels.tensors import numbers_beside


def per_term(amplify_over: Level, terms: Terms) -> bool:
    """Whether `finish` needs the shares of each term, (N, T), and not their sum, (N,)."""
    return amplify_over != "element" and len(terms) > 1


def factor(
    own: Tensor | float,
    total: Tensor | float,
    coefficient: float,
    amplify_over: Level,
    reduction: Reduction,
) -> Tensor | float:
    """What one term's S is multiplied by, from m of each image and of all: numbers or tensors."""
    numerator = coefficient if amplify_over == "element" else 1.0
    if amplify_over == "image" or reduction == "image":
        return numerator / own
    if amplify_over == "batch" or reduction == "mean":
        return numerator / total
    return numerator


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

    shares: (N,), or (N, T) where `per_term`.
    counted: how many images have m > 0, (T,) or one number; at least 1.
    """
    if amplify_over == "element":  # the coefficients are in the factors
        return shares if reduction == "image" else shares.sum()
    if shares.dim() == 1:
        shares = shares.unsqueeze(1)
    by_term = numbers_beside(shares, coefficients, shares.dtype)
    if amplify_over == "batch":
        return (amplify(shares.sum(0)) * by_term).sum()
    shares = amplify(shares) * by_term
    if reduction == "mean":
        shares = shares / counted
    return shares.sum(1) if reduction == "image" else shares.sum()
