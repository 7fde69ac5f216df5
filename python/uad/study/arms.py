"""What is compared: a plain loss, the amplified one, and a control between the two."""

from __future__ import annotations

from torch import Tensor, nn

from uad.losses import LossOptions, build_loss, dissimilarities

METRICS = ("mse", "l1", "ssim")
ARMS = tuple(prefix + metric for metric in METRICS for prefix in ("", "amplified-", "scaled-"))


class ScaledLoss(nn.Module):
    """The plain loss times the mean slope that amplification would have at this step.

    Amplification does two things: it makes the whole gradient longer, as a larger learning rate
    would, and it gives the elements that are worse a greater share of it. This loss does some of
    the first and nothing of the second. The slope A'(L) = 1 / max(1 - L, eps) is averaged over the
    elements of the batch at every step anew, on the errors that this very network makes: it falls
    during training, and one number for the whole run would be too small at its beginning and too
    large at its end.

    In the mean all elements count alike, in the gradient each by its error, and the worse ones have
    the greater slopes, so the two need not agree: with MSE and L1 the gradient by the
    reconstruction is lengthened less than amplification does.
    """

    def __init__(self, metric: str, options: LossOptions) -> None:
        super().__init__()
        self.metric, self.options = metric, options
        self.plain = build_loss(metric, options)

    def forward(self, reconstruction: Tensor, image: Tensor) -> Tensor:
        """The loss (); the slope is a constant to the derivative."""
        loss: Tensor = self.plain(reconstruction, image)
        return self.mean_slope(reconstruction.detach(), image) * loss

    def mean_slope(self, reconstruction: Tensor, image: Tensor) -> Tensor:
        """The mean of A'(L) over all elements, ()."""
        elements = dissimilarities(self.metric, reconstruction, image, self.options)
        return (1.0 - elements).clamp_min(self.options.eps).reciprocal().mean()


def build_arm(loss: str, options: LossOptions) -> nn.Module:
    """The loss of ARMS with this name."""
    if loss.startswith("scaled-"):
        return ScaledLoss(loss.removeprefix("scaled-"), options)
    return build_loss(loss, options)
