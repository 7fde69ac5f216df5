"""The options of a run, grouped by subject.

Imports nothing from the packages of the extra "train", so that `train.py --help` works without
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from uad.losses import LossSettings

DATA_SETS = ("textures", "fashion-mnist", "mnist", "folder")
ONE_CLASS = ("fashion-mnist", "mnist")
"""Data sets of ten classes, one of which counts as normal."""

FITS = ("stretch", "pad", "crop")
"""How an image that is not square becomes square."""

BIT_DEPTHS = range(8, 17)
"""Bits per pixel that 16-bit files may use."""

ERROR_NAMES = {
    "mse": "squared error",
    "l1": "absolute error",
    "ssim": "SSIM dissimilarity",
    "gms": "dissimilarity of gradient magnitudes",
    "msgms": "dissimilarity of gradient magnitudes on four scales",
}
"""What a map may show, in words."""

SCORE_METRICS, POOLINGS = tuple(ERROR_NAMES), ("max", "mean", "topk")

INPAINT_LOSSES = ("all", "masked")

DEFAULT_RATE = 0.05
"""Default false-positive rate of a threshold."""


@dataclass(frozen=True)
class TrainingOptions:
    """Training options that apply to every loss."""

    epochs: int = 30
    batch_size: int = 32
    """Images per step, over all processes together."""
    learning_rate: float = 1e-3
    optimizer: Literal["adam", "sgd"] = "adam"
    seed: int = 0
    amp: str | None = None
    """Autocast to "bfloat16", or to "float16" with a gradient scaler; None for no autocast."""
    compile: bool = False
    """Whether to compile the network and the loss as one graph."""
    grad_clip: float | None = None
    """Maximum norm of the gradient of all parameters together; None for no clipping."""
    inpaint: int | None = None
    """Side in pixels of the squares to hide, so that the network learns to inpaint; None to show
    the whole image."""
    inpaint_loss: Literal["all", "masked"] = "all"
    """With `inpaint`: whether the loss counts all pixels, or the hidden ones only."""


@dataclass(frozen=True)
class Scoring:
    """How a reconstruction becomes a map and a score. lamp_kernels.functional gives the ranges."""

    metric: Literal["mse", "l1", "ssim", "gms", "msgms"] = "mse"
    """Difference between image and reconstruction, averaged over the channels."""
    mean_filter: int = 0
    """Side in pixels, odd, of a mean filter over the map, before the Gaussian; 0 for none. RIAD
    uses 21 with "msgms"."""
    smooth_sigma: float = 2.0
    """Standard deviation in pixels of the Gaussian that smooths the map; 0 for no smoothing."""
    pooling: Literal["mean", "max", "topk"] = "topk"
    """How the map is reduced to a score; "topk" is the mean of the greatest values."""
    topk: int | float = 0.01
    """How many pixels "topk" averages: an int is a number, a float a fraction of the image."""


@dataclass(frozen=True)
class RunOptions:
    """Everything that defines a run except its data."""

    losses: tuple[str, ...]
    width: int
    latent: int
    loss: LossSettings
    training: TrainingOptions
    scoring: Scoring
    false_positive_rate: float = DEFAULT_RATE
    """Fraction of normal images that may be called anomalous; determines the threshold."""
