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

Metric = Literal["ssim", "mse", "l1", "charbonnier"]
Padding = Literal["reflect", "valid", "zeros"]
Dissimilarity = Literal["half", "full"]
Amplification = Literal["log", "power", "none"]
Level = Literal["element", "image", "batch"]
Reduction = Literal["mean", "sum", "image", "none"]
# What a kernel sums the losses over: nothing, (N, T); the terms, (N,); everything, ().
Sums = Literal["terms", "images", "batch"]

# The terms of a loss, in the order of every list of terms. SSIM, the only one with a window, comes
# first; the others are pointwise. Each with its coefficient in `AmplifiedReconstructionLoss`.
COEFFICIENTS: dict[Metric, float] = {"ssim": 1.0, "mse": 1.0, "l1": 0.0, "charbonnier": 0.0}
METRICS: tuple[Metric, ...] = tuple(COEFFICIENTS)
# The option that a pointwise metric's formula reads, if there is one.
METRIC_PARAMETERS: dict[Metric, str] = {"charbonnier": "charbonnier_epsilon"}

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
# Of MS-SSIM, whose scales have maps of different sizes: no map, and no sum over elements.
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
        existing = MULTISCALE_REDUCTIONS if self.scale_weights else REDUCTIONS
        check_reduction(self.amplify_over, self.reduction, existing)
        check_choice("padding", self.padding, PADDINGS)
        smaller_map = self.padding == "valid" and self.has_ssim
        if self.reduction == "none" and smaller_map and len(self.terms) > 1:
            raise ValueError(
                "reduction='none' with padding='valid' requires a single term: the SSIM map is "
                "smaller than the maps of the pointwise losses"
            )
        check_choice("dissimilarity", self.dissimilarity, DISSIMILARITIES)
        check_choice("amplification", self.amplification, AMPLIFICATIONS)
        if isinstance(self.spatial_dims, bool) or self.spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {self.spatial_dims!r}")
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
        """Whether a term has a window."""
        return self.terms[0].metric == "ssim"

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
        whole = [shape] * (len(self.terms) - self.has_ssim)
        if not self.has_ssim:
            return whole
        lost = self.window_size - 1 if self.padding == "valid" else 0
        spatial = [side - lost for side in shape[2:]]
        return [torch.Size((*shape[:2], *spatial)), *whole]

    def smallest_side(self) -> int:
        """The smallest side of an image, in pixels, that the window and its border rule admit."""
        if self.padding == "valid":
            side = self.window_size
        elif self.padding == "reflect":
            # Reflection does not repeat the edge pixel, so it needs one pixel more than it mirrors.
            side = self.window_size // 2 + 1
        else:
            side = 1
        halvings = max(len(self.scale_weights) - 1, 0)
        # Halving rounds up: of s pixels ceil(s / 2^halvings) are left.
        return (side - 1 << halvings) + 1


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
        raise ValueError(
            f"reduction={reduction!r} does not exist for amplify_over={amplify_over!r}; "
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
