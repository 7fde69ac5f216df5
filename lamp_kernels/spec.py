"""One description of a loss, `LossSpec`: what to compute, with every default and every valid value.

The public functions turn their options into a `LossSpec`, which is checked once. Everything below
them, down to the operators, reads it. A metric or an amplification is a name here: its formulas are
in `lamp_kernels.reference`, csrc/formulas.h and lamp_kernels/backends/triton/formulas.py.
"""

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple

import torch

from lamp_kernels import windows
from lamp_kernels.checks import check_choice, check_positive, check_real, check_within, shown
from lamp_kernels.windows import Window

Metric = Literal["ssim", "mse", "l1", "charbonnier", "gms", "msgms", "cosine"]
Padding = Literal["reflect", "valid", "zeros"]
Dissimilarity = Literal["half", "full"]
Amplification = Literal["log", "power", "none"]
Level = Literal["element", "image", "batch"]
Reduction = Literal["mean", "sum", "image", "none"]
# What a kernel sums the losses over: nothing, (N, T); the terms, (N,); everything, ().
Sums = Literal["terms", "images", "batch"]

# The terms of a loss, in the order of every list of terms: SSIM, the pointwise ones, then gradient
# magnitude similarity. Each with its coefficient in `AmplifiedReconstructionLoss`.
COEFFICIENTS: dict[Metric, float] = {
    "ssim": 1.0,
    "mse": 1.0,
    "l1": 0.0,
    "charbonnier": 0.0,
    "gms": 0.0,
    "msgms": 0.0,
}
METRICS: tuple[Metric, ...] = tuple(COEFFICIENTS)
# Those that backends know. A scale of "msgms" is a "gms" of smaller images.
KERNEL_METRICS: tuple[Metric, ...] = METRICS[: METRICS.index("msgms")]
# A call of a backend combines SSIM and the pointwise terms; each of these takes a call of its own.
SEPARATE: tuple[Metric, ...] = ("gms", "msgms")
COMBINED: tuple[Metric, ...] = METRICS[: METRICS.index("gms")]
# Of features instead of images, with one loss per position for all channels: never beside a term.
ALONE: tuple[Metric, ...] = ("cosine",)
# The option that a metric's formula reads, if there is one.
METRIC_PARAMETERS: dict[Metric, str] = {
    "charbonnier": "charbonnier_epsilon",
    "gms": "gms_constant",
    "msgms": "gms_constant",
    "cosine": "cosine_epsilon",
}

PADDINGS: tuple[Padding, ...] = ("reflect", "valid", "zeros")
# The factor a in L = a (1 - SSIM).
DISSIMILARITIES: dict[Dissimilarity, float] = {"half": 0.5, "full": 1.0}
# The options that an amplification's formula reads.
AMPLIFICATIONS: dict[Amplification, tuple[str, ...]] = {
    "log": ("eps",),
    "power": ("gamma", "delta"),
    "none": (),
}

# Which reductions exist at each level of amplification. Amplifying an image's mean leaves no
# per-pixel value, and amplifying the batch's mean leaves one number only.
REDUCTIONS: dict[Level, tuple[Reduction, ...]] = {
    "element": ("mean", "sum", "image", "none"),
    "image": ("mean", "sum", "image"),
    "batch": ("mean",),
}
# Of MS-SSIM and MSGMS, whose scales have maps of different sizes: no map, no sum over elements.
MULTISCALE_REDUCTIONS: dict[Level, tuple[Reduction, ...]] = {
    "element": ("mean", "image"),
    "image": ("mean", "sum", "image"),
    "batch": ("mean",),
}

MAX_WINDOW_SIZE = 31
# Limits within which data_range, and the squares of k1 and k2, are normal float32 numbers.
DATA_RANGES = (1e-37, 1e38)
STABILIZERS = (1e-18, 1e18)
# Limits within which coefficients of terms and scales have finite gradients. Less counts as 0.
COEFFICIENT_LIMITS = (1e-18, 1e18)
EPSILONS = (1e-9, 1e9)  # of the Charbonnier loss
GMS_CONSTANTS = (1e-12, 1e6)
NORMS = (1e-15, 1e15)  # whose squares and reciprocal squares are normal float32 numbers
MAX_GMS_SCALES = 16
GMS_WINDOW_SIZE = 3  # of the Prewitt operator, in pixels
# Limits within which (L + delta)^gamma is finite in float32 for losses up to 1e4.
GAMMAS = (1e-3, 8.0)
DELTAS = (1e-3, 1e3)
MIN_EPS = 1e-6  # a slope of 1e6; closer to 1, the float32 spacing of 1 - eps itself shows

# Weights of the scales of MS-SSIM, fine to coarse, by Wang, Simoncelli and Bovik, 2003. Their sum
# is 1.0001.
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


class Term(NamedTuple):
    """One metric of a loss and the coefficient of its amplified loss, greater than 0."""

    metric: Metric
    coefficient: float = 1.0


@dataclass(frozen=True)
class LossSpec:
    """Everything that defines a loss, except the tensors. Immutable and hashable.

    Pointwise metrics read only a part of it. A spec is valid if it comes from `checked`, its terms
    from `check_terms`, and its scale weights from `check_scale_weights`.

    Not a named tuple: torch.compile of PyTorch 2.10 cannot trace the properties of one.
    """

    terms: tuple[Term, ...] = (Term("ssim"),)
    data_range: float = 1.0
    window_size: int = 11
    sigma: float = 1.5
    k1: float = 0.01
    k2: float = 0.03
    padding: Padding = "reflect"
    dissimilarity: Dissimilarity = "half"
    charbonnier_epsilon: float = 1e-3
    gms_constant: float = 0.0026  # 170 in units of 255^2, by Xue et al.
    gms_scales: int = 4
    cosine_epsilon: float = 1e-8  # the least norm, in the unit of the features, as in PyTorch
    amplification: Amplification = "log"
    eps: float = 1e-2
    gamma: float = 2.0
    delta: float = 0.5
    amplify_over: Level = "element"
    reduction: Reduction = "mean"
    scale_weights: tuple[float, ...] = ()  # of MS-SSIM, fine to coarse; () for a single scale
    window: Window = "gaussian"
    spatial_dims: Literal[2, 3] = 2  # images (N, C, H, W) or volumes (N, C, D, H, W)
    # Whether a call has a mask, and whether it has one data_range per image: a spec with the
    # tensors' part in it is all that a backend has to know to say whether it supports a call.
    masked: bool = False
    range_per_image: bool = False

    def replace(self, **changes: Any) -> "LossSpec":
        """The same spec with other values of some fields."""
        return dataclasses.replace(self, **changes)

    def checked(self) -> "LossSpec":
        """The same spec in plain floats and ints, or an error that names the invalid option."""
        multiscale = self.scale_weights or "msgms" in self.metrics
        existing = MULTISCALE_REDUCTIONS if multiscale else REDUCTIONS
        check_reduction(self.amplify_over, self.reduction, existing)
        check_choice("padding", self.padding, PADDINGS)
        smaller_map = self.padding == "valid" and self.has_window
        if self.reduction == "none" and smaller_map and len(self.terms) > 1:
            raise ValueError(
                "reduction='none' with padding='valid' requires a single term: the maps of SSIM "
                "and of GMS are smaller than those of the pointwise losses"
            )
        check_choice("dissimilarity", self.dissimilarity, DISSIMILARITIES)
        check_choice("amplification", self.amplification, AMPLIFICATIONS)
        if isinstance(self.spatial_dims, bool) or self.spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {self.spatial_dims!r}")
        if self.spatial_dims != 2 and self.has_gms:
            raise ValueError("spatial_dims must be 2 for GMS, which has no 3-D operator; got 3")
        window = windows.check_window(self.window, MAX_WINDOW_SIZE)
        window_size = check_window_size(self.window_size)
        if not isinstance(window, str):
            if window_size not in (DEFAULTS.window_size, len(window)):
                raise ValueError(
                    f"window_size must be left out, or the number of taps of window, {len(window)};"
                    f" got {window_size}"
                )
            window_size = len(window)
        return self.replace(
            data_range=check_data_range(self.data_range),
            window=window,
            window_size=window_size,
            sigma=check_positive("sigma", self.sigma),
            k1=check_within("k1", self.k1, STABILIZERS),
            k2=check_within("k2", self.k2, STABILIZERS),
            charbonnier_epsilon=check_within(
                "charbonnier_epsilon", self.charbonnier_epsilon, EPSILONS
            ),
            gms_constant=check_within("gms_constant", self.gms_constant, GMS_CONSTANTS),
            gms_scales=check_gms_scales(self.gms_scales),
            cosine_epsilon=check_within("cosine_epsilon", self.cosine_epsilon, NORMS),
            eps=check_eps(self.eps),
            gamma=check_within("gamma", self.gamma, GAMMAS),
            delta=check_within("delta", self.delta, DELTAS),
        )

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of the terms, in the order of `METRICS`."""
        return tuple(term.metric for term in self.terms)

    @property
    def coefficients(self) -> tuple[float, ...]:
        """The coefficients of the terms."""
        return tuple(term.coefficient for term in self.terms)

    @property
    def has_ssim(self) -> bool:
        """Whether SSIM is a term."""
        return self.terms[0].metric == "ssim"

    @property
    def has_gms(self) -> bool:
        """Whether GMS or MSGMS is a term."""
        return self.terms[-1].metric in SEPARATE

    @property
    def has_cosine(self) -> bool:
        """Whether the loss is that of features (N, C, ...): cosine, always the only term."""
        return self.terms[0].metric in ALONE

    @property
    def has_window(self) -> bool:
        """Whether a term sees more than one pixel, so that images must be (N, C, H, W)."""
        return self.has_ssim or self.has_gms

    @property
    def of_volumes(self) -> bool:
        """Whether its images are volumes (N, C, D, H, W), with a window in three dimensions."""
        return self.has_ssim and self.spatial_dims == 3

    @property
    def taps(self) -> tuple[float, ...]:
        """The window's taps along one axis, by their distance from the center; () without SSIM."""
        return self.window_taps[self.window_size // 2 :] if self.has_ssim else ()

    @property
    def window_taps(self) -> tuple[float, ...]:
        """The window's taps along one axis, all of them; their sum is 1."""
        if self.window == "gaussian":
            return tuple(windows.gaussian(self.window_size, self.sigma))
        if self.window == "uniform":
            return tuple(windows.uniform(self.window_size))
        return tuple(self.window)

    @property
    def ssim_scale(self) -> float:
        """The factor a in L = a (1 - SSIM)."""
        return DISSIMILARITIES[self.dissimilarity]

    @property
    def metric_parameters(self) -> tuple[float, ...]:
        """For each term the option that its formula reads, or 0."""
        return tuple(
            getattr(self, METRIC_PARAMETERS[metric]) if metric in METRIC_PARAMETERS else 0.0
            for metric in self.metrics
        )

    @property
    def amplification_parameters(self) -> tuple[float, ...]:
        """The options that the amplification reads."""
        return tuple(getattr(self, name) for name in AMPLIFICATIONS[self.amplification])

    @property
    def of_elements(self) -> "LossSpec":
        """What is computed for each element: without amplification if a mean is amplified."""
        return self if self.amplify_over == "element" else self.plain

    @property
    def plain(self) -> "LossSpec":
        """The same loss without amplification."""
        return self.replace(amplification="none")

    def grids(self, shape: torch.Size) -> list[torch.Size]:
        """The shapes of the terms' loss maps for images of this shape, (N, ...)."""
        return [self._grid(term.metric, shape) for term in self.terms]

    def _grid(self, metric: Metric, shape: torch.Size) -> torch.Size:
        if metric in ALONE:
            return torch.Size((shape[0], 1, *shape[2:]))
        lost = self.window_of(metric) - 1 if self.padding == "valid" else 0
        return torch.Size((*shape[:2], *[side - lost for side in shape[2:]])) if lost else shape

    def window_of(self, metric: Metric) -> int:
        """The side in pixels of what one element of the metric's loss sees."""
        if metric == "ssim":
            return self.window_size
        return GMS_WINDOW_SIZE if metric in SEPARATE else 1

    def smallest_side(self, metric: Metric = "ssim") -> int:
        """The smallest side of an image, in pixels, that the metric and its border rule admit."""
        window = self.window_of(metric)
        if self.padding == "valid":
            side = window
        elif self.padding == "reflect":
            # Reflection does not repeat the edge pixel, so it needs one pixel more than it mirrors.
            side = window // 2 + 1
        else:
            side = 1
        # Halving rounds up: of s pixels ceil(s / 2^halvings) are left.
        return (side - 1 << self.scales_of(metric) - 1) + 1

    def scales_of(self, metric: Metric) -> int:
        """The number of scales on which the metric is computed."""
        if metric == "msgms":
            return self.gms_scales
        return max(len(self.scale_weights), 1) if metric == "ssim" else 1

    def separated(self) -> "list[LossSpec]":
        """The same loss as specs that a backend computes in one call each, to be added."""
        if len(self.terms) == 1 or not self.has_gms:
            return [self]
        together = tuple(term for term in self.terms if term.metric not in SEPARATE)
        groups = [together, *((term,) for term in self.terms if term.metric in SEPARATE)]
        return [self.replace(terms=group) for group in groups if group]


DEFAULTS = LossSpec()
FIELDS = tuple(field.name for field in dataclasses.fields(LossSpec))
# SSIM itself and MS-SSIM itself, as scikit-image, pytorch-msssim and kornia define them.
SIMILARITY = LossSpec(padding="valid", dissimilarity="full", amplification="none")


def check_terms(coefficients: Mapping[Metric, float]) -> tuple[Term, ...]:
    """The terms that count, or an error that names the invalid coefficient."""
    terms = tuple(
        Term(metric, coefficient)
        for metric in METRICS
        if (coefficient := check_coefficient(metric, coefficients[metric])) > 0.0
    )
    if not terms:
        given = ", ".join(f"{metric}={value}" for metric, value in coefficients.items())
        names = " and ".join((", ".join(METRICS[:-1]), METRICS[-1]))
        raise ValueError(f"one of {names} must be positive, got {given}")
    return terms


def check_data_range(value: object, name: str = "data_range") -> float:
    """`value` as a float if it is a valid range, else an error that says what to do."""
    if not isinstance(value, Real) and hasattr(value, "shape"):
        raise TypeError(
            f"{name} must be one real number, got {shown(value)}. For one range per image pass a "
            f"tensor (N,) in the call, loss(input, target, {name}=ranges), or divide the images by "
            "their ranges; for a tensor with one number pass .item(), which synchronizes with its "
            "device"
        )
    return check_within(name, value, DATA_RANGES)


def check_window_size(value: object, name: str = "window_size") -> int:
    """`value` as an int if it is odd and from 1 to `MAX_WINDOW_SIZE`, else an error."""
    wanted = f"an odd integer from 1 to {MAX_WINDOW_SIZE}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be {wanted}, got {shown(value)}")
    size = operator.index(value)  # torch.compile makes a constant of it; int() would keep a symbol
    if size % 2 == 0 or not 1 <= size <= MAX_WINDOW_SIZE:
        raise ValueError(f"{name} must be {wanted}, got {size}")
    return size


def check_gms_scales(value: object, name: str = "gms_scales") -> int:
    """`value` as an int if it is from 1 to `MAX_GMS_SCALES`, else an error that names it."""
    wanted = f"an integer from 1 to {MAX_GMS_SCALES}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be {wanted}, got {shown(value)}")
    scales = operator.index(value)
    if not 1 <= scales <= MAX_GMS_SCALES:
        raise ValueError(f"{name} must be {wanted}, got {scales}")
    return scales


def check_eps(value: object) -> float:
    """`value` as a float if 1e-6 <= value < 1, else an error."""
    eps = check_real("eps", value)
    if not MIN_EPS <= eps < 1.0:
        raise ValueError(f"eps must satisfy {MIN_EPS:g} <= eps < 1, got {value!r}")
    return eps


def check_reduction(
    amplify_over: Level,
    reduction: Reduction,
    existing: Mapping[Level, tuple[Reduction, ...]] = REDUCTIONS,
) -> None:
    """Raise a ValueError unless the reduction exists at this level of amplification."""
    check_choice("amplify_over", amplify_over, REDUCTIONS)
    if reduction not in REDUCTIONS["element"]:
        choices = tuple(dict.fromkeys(sum(existing.values(), ())))
        check_choice("reduction", reduction, choices)
    if reduction not in existing[amplify_over]:
        of = "" if existing is REDUCTIONS else " of a loss over several scales"
        raise ValueError(
            f"reduction={reduction!r} does not exist for amplify_over={amplify_over!r}{of}; "
            f"choose from {', '.join(existing[amplify_over])}"
        )


def check_scale_weights(value: object, name: str = "scale_weights") -> tuple[float, ...]:
    """`value` as floats if it is a sequence of numbers >= 0, not all of them 0, else an error."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        hint = ", use .tolist()" if hasattr(value, "tolist") else ""
        raise TypeError(
            f"{name} must be a sequence of numbers, one per scale; got {shown(value)}{hint}"
        )
    weights = tuple(check_coefficient(f"{name}[{i}]", each) for i, each in enumerate(value))
    if not any(weights):
        raise ValueError(f"one of {name} must be positive, got {value!r}")
    return weights


def check_coefficient(name: str, value: object) -> float:
    """`value` as a float if it is a number from 0 to 1e18, else an error that names it.

    A value below 1e-18 counts as 0: a coefficient that decays in training may become that small.
    """
    number = check_real(name, value)
    low, high = COEFFICIENT_LIMITS
    if not 0.0 <= number <= high:
        raise ValueError(f"{name} must be between 0 and {high:g}, got {value!r}")
    return number if number >= low else 0.0
