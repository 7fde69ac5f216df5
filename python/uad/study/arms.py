"""The losses that a study compares: plain, amplified, and a control between the two."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uad.losses import LOSSES, LossSettings, build_loss, plain_loss

CONTROLLED = ("mse", "l1", "ssim", "gms")
"""Metrics that have a control: those of one term with a map of it."""
ARMS = (*LOSSES, *(f"scaled-{metric}" for metric in CONTROLLED))


class ScaledLoss(nn.Module):
    """The plain loss times the mean slope that amplification would have at this step.

    Amplification does two things: it makes the whole gradient longer, as a larger learning rate
    would, and it gives elements with larger errors a larger share of the gradient. This loss does
    some of the first and none of the second. The slope A'(L) = 1 / max(1 - L, eps) is averaged over
    the elements of the batch, again at every step, with the errors that this network makes. The
    mean falls during training, so one constant for the whole run would be too small at the
    beginning and too large at the end.

    All elements count the same in that mean, but each counts by its error in the gradient, and
    elements with larger errors have larger slopes. So the two need not agree: with MSE and L1 this
    loss lengthens the gradient with respect to the reconstruction less than amplification does.
    """

    def __init__(self, metric: str, settings: LossSettings, weighted: bool = False) -> None:
        super().__init__()
        self.eps = settings.eps
        self.plain = build_loss(metric, settings, weighted=weighted)
        self.elements = plain_loss(metric, settings, reduction="none")

    def forward(self, reconstruction: Tensor, image: Tensor, *weight: Tensor) -> Tensor:
        """The loss (); the backward pass treats the slope as a constant.

        weight: if the loss is weighted, (N, 1, H, W) or any shape that broadcasts.
        """
        loss: Tensor = self.plain(reconstruction, image, *weight)
        return self.mean_slope(reconstruction, image, *weight) * loss

    @torch.no_grad()
    def mean_slope(self, reconstruction: Tensor, image: Tensor, *weight: Tensor) -> Tensor:
        """The mean of A'(L) over all elements, or over those that the weight counts, ()."""
        dissimilarity: Tensor = self.elements(reconstruction, image)
        slope = (1.0 - dissimilarity).clamp_min(self.eps).reciprocal()
        if not weight:
            return slope.mean()
        counted = weight[0].expand_as(slope)
        return (counted * slope).sum() / counted.sum()


def build_arm(loss: str, settings: LossSettings, *, weighted: bool = False) -> nn.Module:
    """The loss with this name, one of ARMS. weighted: as for `uad.losses.build_loss`."""
    if loss.startswith("scaled-"):
        return ScaledLoss(loss.removeprefix("scaled-"), settings, weighted)
    return build_loss(loss, settings, weighted=weighted)
