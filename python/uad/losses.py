"""The training losses by name: what PyTorch has, and what lamp_kernels puts in its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import lamp_kernels
from lamp_kernels import functional

LOSSES = (
    "mse",
    "amplified-mse",
    "l1",
    "amplified-l1",
    "ssim",
    "amplified-ssim",
    "ssim+mse",
    "amplified-ssim+mse",
)


@dataclass(frozen=True)
class LossOptions:
    """Options of the losses; each loss takes those that it knows. See lamp_kernels for ranges."""

    amplify_over: str = "element"
    """What A is applied to: each "element", the mean of each "image", or of the "batch"."""
    eps: float = 1e-2
    """A continues as a straight line of slope 1/eps above a dissimilarity of 1 - eps."""
    padding: str = "reflect"
    window_size: int = 11
    backend: str | None = None


DEFAULTS = LossOptions()


def build_loss(name: str, options: LossOptions = DEFAULTS) -> nn.Module:
    """The loss `name`, one of LOSSES, called as loss(reconstruction, image), images in [0, 1]."""
    if name not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}; got {name!r}")
    if name == "mse":
        return nn.MSELoss()
    if name == "l1":
        return nn.L1Loss()
    amplification: dict[str, Any] = {"amplification": "none", "backend": options.backend}
    if name.startswith("amplified-"):
        amplification |= {
            "amplification": "log",
            "amplify_over": options.amplify_over,
            "eps": options.eps,
        }
    window: dict[str, Any] = {"padding": options.padding, "window_size": options.window_size}
    match name.removeprefix("amplified-"):
        case "mse":
            return lamp_kernels.AmplifiedMSELoss(**amplification)
        case "l1":
            return lamp_kernels.AmplifiedL1Loss(**amplification)
        case "ssim":
            return lamp_kernels.AmplifiedSSIMLoss(**window, **amplification)
    return lamp_kernels.AmplifiedReconstructionLoss(**window, **amplification)


@torch.no_grad()
def dissimilarities(
    name: str, reconstruction: Tensor, image: Tensor, options: LossOptions
) -> Tensor:
    """L of each element of the loss `name`, of both terms where it has two; (elements,)."""
    common: dict[str, Any] = {
        "amplification": "none",
        "reduction": "none",
        "backend": options.backend,
    }
    window: dict[str, Any] = {"padding": options.padding, "window_size": options.window_size}
    reconstruction = reconstruction.float()  # autocast leaves it in half precision
    maps = []
    if "mse" in name:
        maps.append(functional.amplified_mse_loss(reconstruction, image, **common))
    if "l1" in name:
        maps.append(functional.amplified_l1_loss(reconstruction, image, **common))
    if "ssim" in name:
        maps.append(functional.amplified_ssim_loss(reconstruction, image, **window, **common))
    # flattened, because with padding "valid" the SSIM map is smaller than the image
    return torch.cat([each.flatten() for each in maps])


def tangent_share(name: str, reconstruction: Tensor, image: Tensor, options: LossOptions) -> Tensor:
    """Share of elements whose dissimilarity exceeds 1 - eps, where A is a straight line; ().

    For a plain loss it says what would be on the tangent, for the levels "image" and "batch" which
    single elements would.
    """
    elements = dissimilarities(name, reconstruction, image, options)
    return (elements > 1.0 - options.eps).float().mean()
