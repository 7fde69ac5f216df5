"""Losses beyond plain SSIM of images: masks, GMS, MSGMS, cosine, volumes; beside peers if any.

Each feature has a shape of its own and is timed like the shapes of plain SSIM. Contestants of one
feature compute the same loss unless their name says otherwise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lamp_kernels import (
    AmplifiedCosineLoss,
    AmplifiedGMSLoss,
    AmplifiedMSGMSLoss,
    AmplifiedSSIMLoss,
)
from suite.cases import MAIN_SHAPE, Size, shape_name
from suite.contestants import (
    MSSSIM,
    NATIVE,
    OURS,
    REFERENCE,
    Contestant,
    Loss,
    piq_module,
    select,
    torch_setup,
)
from suite.measure import Row, interleave, progress
from suite.speed import PASSES, entries_of

FAST = "lamp_kernels"  # the backend that "auto" chooses: native where it serves the loss
MONAI = "monai"
PIQ_ONE_SCALE = "piq MS-GMSD of one scale"
PIQ = "piq MS-GMSD"
COSINE = "torch, 1 - cosine_similarity"


@dataclass(frozen=True)
class Feature:
    """What is measured for one feature.

    name: as in tables. shape: of the images in a full run; a quick run takes `small`.
    """

    name: str
    shape: tuple[int, ...]
    small: tuple[int, ...]
    contestants: tuple[Contestant, ...]

    def shape_in(self, size: Size) -> tuple[int, ...]:
        """The images' shape in a run of this size."""
        return self.shape if size.name == "full" else self.small


def features(size: Size, only: Sequence[str] | None = None) -> list[Row]:
    """Rows of all features; `only` are prefixes of contestants' names, None takes all."""
    rows: list[Row] = []
    for feature in FEATURES:
        shape = feature.shape_in(size)
        progress(f"{feature.name}, {shape_name(shape)}")
        taken, skipped = select(only, among=feature.contestants)
        entries, failed = entries_of(taken, shape, PASSES)
        measured = interleave(
            entries,
            budget=size.budget / 2,
            min_rounds=size.min_rounds,
            max_rounds=size.max_rounds,
        )
        missing = [
            {"contestant": row["contestant"], "shape": list(shape), "skipped": row["reason"]}
            for row in skipped
        ]
        rows += [{"feature": feature.name, **row} for row in (*failed, *measured, *missing)]
    return rows


def rectangle(shape: Sequence[int]) -> Tensor:
    """A mask (N, 1, H, W) that hides a centered rectangle of a quarter of each image."""
    mask = torch.ones((shape[0], 1, *shape[2:]), dtype=torch.bool)
    height, width = shape[2:]
    mask[..., height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = False
    return mask


def holes(shape: Sequence[int]) -> Tensor:
    """A mask (N, 1, H, W) that hides every tenth pixel, at random places."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand((shape[0], 1, *shape[2:]), generator=generator) >= 0.1


def _ours(
    name: str,
    module: Callable[..., torch.nn.Module],
    *,
    backend: str | None = None,
    mask: Callable[[Sequence[int]], Tensor] | None = None,
    **options: Any,
) -> Contestant:
    """One of this library's losses, with the same mask in every call."""

    def make(backend: str | None) -> Loss:
        loss = module(backend=backend, **options)
        masks: dict[tuple[int, ...], Tensor] = {}

        def call(input: Tensor, target: Tensor) -> Tensor:
            if mask is None:
                return loss(input, target)
            shape = tuple(input.shape)
            if shape not in masks:
                masks[shape] = mask(shape)
            return loss(input, target, mask=masks[shape])

        return call

    border = options.get("padding", "reflect")
    return Contestant(name, OURS, border, torch_setup(lambda: make(backend)), make("reference"))


def _piq(scales: Sequence[float]) -> Callable[[], Loss]:
    """MS-GMSD: the deviation, not the mean, of GMS over an image, per scale.

    piq turns three channels into their luminance, so channels become images: the same work as ours.
    """

    def make() -> Loss:
        loss = piq_module("gmsd").MultiScaleGMSDLoss(
            scale_weights=torch.tensor(scales), data_range=1.0
        )

        def call(input: Tensor, target: Tensor) -> Tensor:
            planes = (v.reshape(-1, 1, *v.shape[2:]) for v in (input, target))
            value: Tensor = loss(*planes)
            return value

        return call

    return make


def _piq_exact(scales: int) -> Loss:
    """piq's definition in plain PyTorch, of its constants alpha = 0.5 and t = 170."""

    def gms(x: Tensor, y: Tensor) -> Tensor:
        column = torch.tensor([-1.0, 0.0, 1.0], dtype=x.dtype) / 3
        operator = torch.stack([column.expand(3, 3), column.expand(3, 3).T])[:, None]
        a, b = (
            torch.nn.functional.conv2d(v, operator, padding=1).square().sum(1).sqrt()
            for v in (x, y)
        )
        return ((2 - 0.5) * a * b + 170) / (a * a + b * b - 0.5 * a * b + 170)

    def call(input: Tensor, target: Tensor) -> Tensor:
        x, y = (255 * v.reshape(-1, 1, *v.shape[2:]) for v in (input, target))
        total: Tensor | float = 0.0
        for scale in range(scales):
            if scale > 0:
                x, y = (torch.nn.functional.avg_pool2d(v, 2) for v in (x, y))
            total = total + gms(x, y).var((1, 2), correction=0) / scales
        return torch.as_tensor(total).sqrt().mean()

    return call


def _msssim_3d() -> Loss:
    from pytorch_msssim import SSIM

    ssim = SSIM(data_range=1.0, channel=1, spatial_dims=3)
    return lambda input, target: 1.0 - ssim(input, target)


def _cosine(input: Tensor, target: Tensor) -> Tensor:
    return (1.0 - torch.nn.functional.cosine_similarity(input, target)).mean()


def _monai(spatial_dims: int) -> Callable[[], Loss]:
    def make() -> Loss:
        from monai.losses import SSIMLoss

        loss: Loss = SSIMLoss(spatial_dims)
        return loss

    return make


_PLAIN: dict[str, Any] = {"padding": "valid", "dissimilarity": "full", "amplification": "none"}
_VOLUME: dict[str, Any] = {**_PLAIN, "spatial_dims": 3}
_plain_volume = AmplifiedSSIMLoss(backend="reference", **_VOLUME)
_plain_image = AmplifiedSSIMLoss(backend="reference", **_PLAIN)
_SMALL = (2, 3, 64, 64)

FEATURES = (
    Feature(
        "SSIM with a mask",
        MAIN_SHAPE,
        _SMALL,
        (
            _ours(f"{FAST}, no mask", AmplifiedSSIMLoss),
            _ours(f"{FAST}, a rectangle hidden", AmplifiedSSIMLoss, mask=rectangle),
            _ours(f"{FAST}, every tenth pixel hidden", AmplifiedSSIMLoss, mask=holes),
            _ours(
                f"{REFERENCE}, a rectangle hidden",
                AmplifiedSSIMLoss,
                mask=rectangle,
                backend="reference",
            ),
        ),
    ),
    Feature(
        "GMS",
        MAIN_SHAPE,
        _SMALL,
        (
            _ours(NATIVE, AmplifiedGMSLoss, backend="native"),
            _ours(f"{NATIVE}, every tenth pixel hidden", AmplifiedGMSLoss, mask=holes),
            _ours(REFERENCE, AmplifiedGMSLoss, backend="reference"),
            Contestant(PIQ_ONE_SCALE, "piq", "zeros", torch_setup(_piq([1.0])), _piq_exact(1)),
        ),
    ),
    Feature(
        "MSGMS",
        MAIN_SHAPE,
        _SMALL,
        (
            _ours(NATIVE, AmplifiedMSGMSLoss, backend="native"),
            _ours(f"{NATIVE}, every tenth pixel hidden", AmplifiedMSGMSLoss, mask=holes),
            _ours(REFERENCE, AmplifiedMSGMSLoss, backend="reference"),
            Contestant(PIQ, "piq", "zeros", torch_setup(_piq([1.0] * 4)), _piq_exact(4)),
        ),
    ),
    Feature(
        "cosine",
        (8, 64, 64, 64),  # features of a layer of ResNet-18
        (2, 16, 8, 8),
        (
            _ours(NATIVE, AmplifiedCosineLoss, backend="native"),
            _ours(REFERENCE, AmplifiedCosineLoss, backend="reference"),
            Contestant(COSINE, "torch", "-", torch_setup(lambda: _cosine), _cosine),
        ),
    ),
    Feature(
        "SSIM of volumes",
        (1, 1, 64, 128, 128),
        (1, 1, 16, 24, 24),
        (
            _ours(FAST, AmplifiedSSIMLoss, spatial_dims=3),
            _ours(f"{FAST}, valid, not amplified", AmplifiedSSIMLoss, **_VOLUME),
            _ours(REFERENCE, AmplifiedSSIMLoss, spatial_dims=3, backend="reference"),
            Contestant(MSSSIM, MSSSIM, "valid", torch_setup(_msssim_3d), _plain_volume),
            Contestant(MONAI, MONAI, "valid", torch_setup(_monai(3)), _plain_volume),
        ),
    ),
    Feature(
        "SSIM of images, beside MONAI",
        MAIN_SHAPE,
        _SMALL,
        (
            _ours(f"{FAST}, valid, not amplified", AmplifiedSSIMLoss, **_PLAIN),
            Contestant(MONAI, MONAI, "valid", torch_setup(_monai(2)), _plain_image),
        ),
    ),
)
