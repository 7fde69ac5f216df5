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

All of it is `finish(factors(...) * S)`: the factors are known before any pixel is read, so a
kernel can compute the gradient of sum(factors * S) in the pass that computes S. It can so where
`finish` treats the terms of an image alike, so that their sum is all it needs; at image and batch
level several terms have a slope each (`per_term`).

Where a sum of weights is 0 its quotient is S, and S is 0 unless the data holds NaN or infinity:
a weight of 0 does not hide those.
"""

from collections.abc import Callable

from torch import Tensor

from lamp_kernels.options import Level, Reduction, Terms


def per_term(amplify_over: Level, terms: Terms) -> bool:
    """Whether `finish` needs the shares of each term, (N, T), and not their sum, (N,)."""
    return amplify_over != "element" and len(terms) > 1


def factors(
    weights: Tensor, coefficients: Tensor, amplify_over: Level, reduction: Reduction
) -> Tensor:
    """What each S is multiplied by, (N, T), from m (N, T) and coefficients (T,)."""
    if amplify_over == "image":
        return 1.0 / _nonzero(weights)
    if amplify_over == "batch":
        return (1.0 / _nonzero(weights.sum(0))).expand_as(weights)
    if reduction == "mean":
        return (coefficients / _nonzero(weights.sum(0))).expand_as(weights)
    if reduction == "image":
        return coefficients / _nonzero(weights)
    return coefficients.expand_as(weights)


def finish(
    shares: Tensor,
    weights: Tensor,
    coefficients: Tensor,
    amplify: Callable[[Tensor], Tensor],
    amplify_over: Level,
    reduction: Reduction,
) -> Tensor:
    """The loss, a scalar or (N,) for reduction="image", from shares = factors * S."""
    if amplify_over == "element":  # the coefficients are in the factors
        return shares if reduction == "image" else shares.sum()
    shares = shares.view(weights.shape)
    if amplify_over == "batch":
        return (amplify(shares.sum(0)) * coefficients).sum()
    shares = amplify(shares) * coefficients
    if reduction == "mean":
        shares = shares / _nonzero((weights > 0).sum(0))
    return shares.sum(1) if reduction == "image" else shares.sum()


def _nonzero(weights: Tensor) -> Tensor:
    return weights.masked_fill(weights == 0, 1)
