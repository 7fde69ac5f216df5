"""Random cases of GMS, MSGMS, cosine, MS-SSIM and SSIM of volumes, with masks, weights and ranges.

The CPU kernels against the reference in float64. tests/test_fuzz.py has the other metrics.

Runs 400 cases; LAMP_KERNELS_FUZZ_CASES sets their number as in tests/test_fuzz.py.
"""

import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

from lamp_kernels import backends, functional
from lamp_kernels.spec import MULTISCALE_REDUCTIONS, PADDINGS, REDUCTIONS

if missing := backends.BACKENDS["native"].unavailable_reason():
    pytest.skip(f"no kernels: {missing}", allow_module_level=True)

CASES = os.environ.get("LAMP_KERNELS_FUZZ_CASES")
LOSSES: dict[str, Callable[..., Tensor]] = {
    "gms": functional.amplified_gms_loss,
    "msgms": functional.amplified_msgms_loss,
    "cosine": functional.amplified_cosine_loss,
    "ms_ssim": functional.amplified_ms_ssim_loss,
    "volumes": functional.amplified_ssim_loss,
}
ACROSS_SCALES = ("msgms", "ms_ssim")


MASKS = (None, "bool", "fractions", "pixel", "rectangle", "nothing")


class Case(NamedTuple):
    """Everything a call depends on except the backend and the dtype."""

    metric: str
    seed: int
    shape: tuple[int, ...]
    apart: float
    mask: str | None
    weighted: bool
    ranges: bool
    options: dict[str, Any]


@st.composite
def cases(draw: Any) -> Case:
    metric = draw(st.sampled_from(list(LOSSES)))
    level = draw(st.sampled_from(list(REDUCTIONS)))
    existing = MULTISCALE_REDUCTIONS if metric in ACROSS_SCALES else REDUCTIONS
    options: dict[str, Any] = {
        "amplify_over": level,
        "reduction": draw(st.sampled_from(existing[level])),
        "amplification": draw(st.sampled_from(["log", "power", "none"])),
    }
    least = 1
    if metric != "cosine":
        options["padding"] = draw(st.sampled_from(PADDINGS))
        least = {"zeros": 1, "reflect": 2, "valid": 3}[options["padding"]]
    if metric in ("ms_ssim", "volumes"):
        size = draw(st.sampled_from([3, 5, 7, 11]))
        options |= {"window_size": size, "window": draw(st.sampled_from(["gaussian", "uniform"]))}
        least = {"zeros": 1, "reflect": size // 2 + 1, "valid": size}[options["padding"]]
    if metric == "ms_ssim":
        options["scale_weights"] = draw(st.sampled_from([(0.5, 0.5), (0.3, 0.3, 0.4)]))
        least *= 4
    if metric == "msgms":
        options["gms_scales"] = draw(st.integers(1, 3))
        least *= 4
    if metric == "volumes":
        options["spatial_dims"] = 3
    side = st.integers(least, least + 20)
    sides: tuple[int, ...] = (draw(side), draw(st.one_of(side, st.integers(least, max(least, 80)))))
    if metric == "volumes":
        sides = (draw(st.integers(least, least + 6)), *sides)
    channels = draw(st.integers(2 if metric == "cosine" else 1, 4))  # of one channel, cos is +-1
    return Case(
        metric,
        seed=draw(st.integers(0, 2**32 - 1)),
        shape=(draw(st.integers(1, 3)), channels, *sides),
        apart=draw(st.sampled_from([0.1, 1e-3])),
        mask=None if metric == "volumes" else draw(st.sampled_from(MASKS)),  # no kernel has both
        weighted=draw(st.sampled_from([False, False, True])),
        ranges=metric != "cosine" and draw(st.sampled_from([False, False, True])),
        options=options,
    )


def mask_of(kind: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    share = torch.rand((shape[0], 1, *shape[2:]), generator=generator, dtype=torch.float64)
    if kind == "fractions":
        return share * (share > 0.4)
    if kind == "bool":
        return share > 0.3
    if kind == "nothing":
        return share > 2.0
    if kind == "pixel":
        return share == share.amax()
    mask = torch.ones_like(share, dtype=torch.bool)
    mask[..., : shape[-2] // 2, shape[-1] // 3 :] = False
    return mask


def results(
    case: Case, images: list[Tensor], weight: Tensor | None, mask: Tensor | None, backend: str
) -> list[Tensor]:
    """The loss and the gradients of both images."""
    images = [image.detach().requires_grad_() for image in images]
    options = dict(case.options)
    if case.ranges:
        options["data_range"] = 1.0 + torch.arange(case.shape[0], dtype=torch.float64) / 4.0
    loss = LOSSES[case.metric](*images, weight, mask, **options, backend=backend)
    generator = torch.Generator().manual_seed(case.seed)
    upstream = torch.rand(loss.shape, generator=generator, dtype=torch.float64)
    return [loss.detach(), *torch.autograd.grad((loss * upstream).sum(), images)]


def check(case: Case, dtype: torch.dtype, limit: float) -> None:
    generator = torch.Generator().manual_seed(case.seed)

    def noise() -> Tensor:
        return torch.randn(case.shape, generator=generator, dtype=torch.float64)

    target = torch.rand(case.shape, generator=generator, dtype=torch.float64)
    images = [image.to(dtype) for image in (target + case.apart * noise(), target)]
    weight = torch.rand((case.shape[0], 1, *case.shape[2:]), generator=generator)
    mask = None if case.mask is None else mask_of(case.mask, case.shape, generator)
    if mask is not None:
        images = [image.masked_fill(mask == 0, math.nan) for image in images]
    given_weight = weight if case.weighted else None
    exact = results(case, [image.double() for image in images], given_weight, mask, "reference")
    found = results(case, images, given_weight, mask, "native")
    for got, want in zip(found, exact, strict=True):
        assert got.isfinite().all()
        assert want.isfinite().all()
        error = (got.double() - want).norm()
        floor = 0.1 * torch.finfo(dtype).eps  # of losses that cancel to 0
        assert error <= limit * want.norm() + floor, f"{error / want.norm():.2e}"


def settings_for(share: float) -> settings:
    return settings(
        max_examples=math.ceil(share * int(CASES or 2000)),
        derandomize=not CASES and bool(os.environ.get("CI")),
        print_blob=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@settings_for(0.1)
@given(cases())
def test_float64(case):
    """Both lose digits where 3 x 3 pixels are nearly flat, and windows see few pixels."""
    check(case, torch.float64, 1e-9)


@settings_for(0.1)
@given(cases())
def test_float32(case):
    check(case, torch.float32, 2e-4)
