"""Image pairs on which a careless SSIM loses digits, in float64, of shape (2, 1, 96, 96).

A scene is a base image. In a pair, the target is the base plus a little noise; the input is the
target plus `apart` times normal noise, plus `offset` (only in the first `columns`, if given). The
noise may push values out of [0, 1].
"""

from collections.abc import Callable

import torch
from torch import Tensor

SIDE = 96
SHAPE = (2, 1, SIDE, SIDE)


def _generator() -> torch.Generator:
    return torch.Generator(torch.get_default_device()).manual_seed(20230814)


def _uniform() -> Tensor:
    return torch.rand(SHAPE, generator=_generator(), dtype=torch.float64)


def _halves(dim: int) -> Tensor:
    """0.05 in the first half along `dim`, 0.95 in the second."""
    ramp = torch.arange(SIDE).view(-1, 1) if dim == -2 else torch.arange(SIDE)
    return torch.where(ramp < SIDE // 2, 0.05, 0.95).double().expand(SHAPE)


def _texture_beside_white() -> Tensor:
    return torch.where(_halves(-1) < 0.5, 0.05 + 0.02 * _uniform(), 0.95)


def _stripes(period: int) -> Tensor:
    """Every n-th row black, the others white: a level sampled every n rows sees only one tone."""
    row = torch.arange(SIDE).view(-1, 1)
    return torch.where(row % period == 0, 0.0, 0.95).double().expand(SHAPE)


def _tones() -> Tensor:
    """Patches of 16 rows and 24 columns, no two adjacent ones equally bright."""
    row, column = torch.arange(SIDE).view(-1, 1) // 16, torch.arange(SIDE) // 24
    return ((7 * row + 3 * column) % 11 / 11).double().expand(SHAPE)


EVEN: dict[str, Callable[[], Tensor]] = {
    "texture": _uniform,
    "dark": lambda: 0.02 * _uniform(),
    "flat": lambda: torch.full(SHAPE, 0.95, dtype=torch.float64),
}
UNEVEN: dict[str, Callable[[], Tensor]] = {
    "dark beside bright": lambda: _halves(-1),
    "dark rows above bright ones": lambda: _halves(-2),
    "dark texture beside white": _texture_beside_white,
    "stripes of four rows": lambda: _stripes(4),
    "stripes of eight rows": lambda: _stripes(8),
}
SCENES = EVEN | UNEVEN
TONES: dict[str, Callable[[], Tensor]] = {"tones": _tones}  # more than two tones per image


def pair(
    scene: str, apart: float, offset: float = 0.0, columns: int | None = None
) -> tuple[Tensor, Tensor]:
    """Input and target of a scene, rounded to float32 so both precisions see the same image."""
    generator = _generator()
    target = (SCENES | TONES)[scene]() + 0.1 * apart * torch.randn(
        SHAPE, generator=generator, dtype=torch.float64
    )
    noise = apart * torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    return shifted(target + noise, offset, columns).float().double(), target.float().double()


def shifted(image: Tensor, offset: float, columns: int | None = None) -> Tensor:
    """The image with `offset` added to the first `columns`, or to all of them."""
    return image + offset * (torch.arange(image.shape[-1]) < (columns or image.shape[-1]))
