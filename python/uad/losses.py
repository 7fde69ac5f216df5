"""The training losses by name: those of PyTorch, and their replacements in lamp_kernels."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

import lamp_kernels

MODULES: dict[str, type[nn.Module]] = {
    "mse": lamp_kernels.AmplifiedMSELoss,
    "l1": lamp_kernels.AmplifiedL1Loss,
    "ssim": lamp_kernels.AmplifiedSSIMLoss,
    "gms": lamp_kernels.AmplifiedGMSLoss,
    "msgms": lamp_kernels.AmplifiedMSGMSLoss,
}
SUMS = ("ssim+mse", "ssim+msgms+mse")
"""Sums of these metrics with coefficients of 1; the second is what RIAD trains with."""

METRICS = (*MODULES, *SUMS)
LOSSES = tuple(prefix + metric for metric in METRICS for prefix in ("", "amplified-"))

LIBRARY_DEFAULTS: dict[str, Any] = {
    name: parameter.default
    for name, parameter in inspect.signature(lamp_kernels.AmplifiedSSIMLoss).parameters.items()
}


@dataclass(frozen=True)
class LossSettings:
    """Options of the training losses; each loss uses those that it has.

    Names, meanings, valid values and defaults are those of `lamp_kernels.AmplifiedSSIMLoss`.
    """

    amplify_over: str = LIBRARY_DEFAULTS["amplify_over"]
    eps: float = LIBRARY_DEFAULTS["eps"]
    padding: str = LIBRARY_DEFAULTS["padding"]
    window_size: int = LIBRARY_DEFAULTS["window_size"]
    backend: str | None = LIBRARY_DEFAULTS["backend"]


DEFAULTS = LossSettings()


def build_loss(
    name: str, settings: LossSettings = DEFAULTS, *, weighted: bool = False
) -> nn.Module:
    """The loss `name`, one of LOSSES, called as loss(reconstruction, image), images in [0, 1].

    weighted: whether a weight is passed as a third argument, which PyTorch's losses do not accept.

    ValueError for another name, and from lamp_kernels for a setting out of range.
    """
    if name not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}; got {name!r}")
    metric = metric_of(name)
    if name != metric:
        return amplified_loss(metric, settings)
    if metric == "mse" and not weighted:
        return nn.MSELoss()
    if metric == "l1" and not weighted:
        return nn.L1Loss()
    return plain_loss(metric, settings)


def metric_of(name: str) -> str:
    """The reconstruction metric of a loss, such as "ssim" for "amplified-ssim"."""
    return name.removeprefix("amplified-")


def amplified_loss(metric: str, settings: LossSettings) -> nn.Module:
    """lamp_kernels' module for `metric`, one of METRICS, with amplification.

    Each term of a sum is amplified on its own.
    """
    return _module(
        metric,
        settings,
        amplification="log",
        amplify_over=settings.amplify_over,
        eps=settings.eps,
    )


def plain_loss(metric: str, settings: LossSettings, reduction: str = "mean") -> nn.Module:
    """lamp_kernels' module for `metric`, one of METRICS, without amplification.

    With reduction="none" it returns the dissimilarity L of each element, which metrics with
    "msgms" do not have.
    """
    return _module(metric, settings, amplification="none", reduction=reduction)


def _module(metric: str, settings: LossSettings, **options: Any) -> nn.Module:
    """The module of `metric` with these options and the settings that it has in any case."""
    options["backend"] = settings.backend
    if "ssim" in metric or "gms" in metric:
        options["padding"] = settings.padding
    if "ssim" in metric:
        options["window_size"] = settings.window_size
    if metric in MODULES:
        return MODULES[metric](**options)
    options |= {"ssim": 0.0, "mse": 0.0} | dict.fromkeys(metric.split("+"), 1.0)
    return lamp_kernels.AmplifiedReconstructionLoss(**options)


def tangent_share(
    name: str, reconstruction: Tensor, image: Tensor, settings: LossSettings
) -> Tensor:
    """Fraction of elements with a dissimilarity above 1 - eps, where A is a straight line; ().

    For a plain loss, the elements that would be on the tangent if it were amplified. Single
    elements are counted even where `amplify_over` amplifies means.
    """
    amplified: Any = amplified_loss(metric_of(name), settings)
    # Autocast leaves the reconstruction in half precision, and mixed dtypes are an error.
    share: Tensor = amplified.tangent_share(reconstruction.float(), image)
    return share
