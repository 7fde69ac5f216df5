"""Synthetic defects, drawn into gray texture crops, each with its exact mask.

A defect blends the crop with another picture of the same size:
`(1 - alpha) * crop + alpha * other`. Alpha is 0 outside the defect, so the mask is `alpha > 0`.
All lengths are fractions of the crop's side, all contrasts are gray levels out of 255.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Plane = NDArray[np.float64]
Painter = Callable[[Plane, Plane, np.random.Generator], tuple[Plane, Plane]]

# Contrasts: read "Calibration" in textures.py before changing one. Spots and scratches are mostly
# black or white, like specks and glints, because a network trained on textures copies anything
# milder.
SCRATCH_CONTRAST = (160.0, 230.0)
SPOT_CONTRAST = (140.0, 200.0)
STAIN_CONTRAST = (90.0, 130.0)
GRAIN_SIGMA = (45.0, 65.0)

FAINTEST = 0.1  # a person would not mark a defect with a smaller alpha


def _either_sign(contrast: tuple[float, float], rng: np.random.Generator) -> float:
    return float(rng.uniform(*contrast) * rng.choice((-1.0, 1.0)))


def _rotated(size: int, spread: float, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Coordinates along and across a random direction, from a center within `spread` of 1/2."""
    centers = (np.arange(size) + 0.5) / size  # pixel centers
    rows, columns = np.meshgrid(centers, centers, indexing="ij")
    y0, x0 = rng.uniform(0.5 - spread, 0.5 + spread, size=2)
    angle = rng.uniform(0.0, np.pi)
    y, x = rows - y0, columns - x0
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


def _ellipse(
    size: int, radius: tuple[float, float], softness: float, rng: np.random.Generator
) -> Plane:
    """Alpha of a random ellipse: 1 inside, 1/2 on the rim, falling to 0 over `softness` radii."""
    along, across = _rotated(size, 0.25, rng)
    radii = rng.uniform(*radius, size=2)
    distance = np.hypot(along / radii[0], across / radii[1])  # 1 on the rim
    alpha: Plane = np.clip(0.5 + (1.0 - distance) / softness, 0.0, 1.0)
    return alpha


def _scratch(crop: Plane, other: Plane, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """A thin anti-aliased arc, brighter or darker than the pixels it crosses."""
    size = crop.shape[0]
    along, across = _rotated(size, 0.2, rng)
    half_length, half_width = rng.uniform(0.2, 0.4), rng.uniform(0.010, 0.017)
    across = across - rng.uniform(-0.8, 0.8) * (along**2 - half_length**2)
    outside = np.maximum(np.abs(across) - half_width, np.abs(along) - half_length)
    alpha = np.clip(0.5 - outside * size, 0.0, 1.0)  # the fraction of the pixel that it covers
    return crop + _either_sign(SCRATCH_CONTRAST, rng), alpha


def _spot(crop: Plane, other: Plane, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """A small speck, brighter or darker."""
    alpha = _ellipse(crop.shape[0], (0.05, 0.08), 0.2, rng)
    return crop + _either_sign(SPOT_CONTRAST, rng), alpha


def _stain(crop: Plane, other: Plane, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """A large patch with a soft rim, brighter or darker; the texture remains visible in it."""
    alpha = _ellipse(crop.shape[0], (0.15, 0.30), 0.3, rng)
    return crop + _either_sign(STAIN_CONTRAST, rng), alpha


def _grain(crop: Plane, other: Plane, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """A region of fine noise, like a roughened surface."""
    alpha = _ellipse(crop.shape[0], (0.10, 0.22), 0.4, rng)
    noise = gaussian_filter(rng.standard_normal(crop.shape), 0.6)
    return crop + rng.uniform(*GRAIN_SIGMA) * noise / noise.std(), alpha


def _swap(crop: Plane, other: Plane, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """A patch of another texture, as if seen from twice the distance."""
    size = crop.shape[0]
    far = np.tile(other[::2, ::2], (2, 2))[:size, :size]
    return far, _ellipse(size, (0.15, 0.30), 0.1, rng)


PAINTERS: dict[str, Painter] = {
    "scratch": _scratch,
    "spot": _spot,
    "stain": _stain,
    "grain": _grain,
    "swap": _swap,
}
KINDS = tuple(PAINTERS)


def paint(
    kind: str, crop: NDArray[np.uint8], other: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw a defect of `kind` into a copy of `crop`; return the copy and the defect's mask.

    crop, other: gray (S, S); `other` is a crop of another texture, which only "swap" uses.
    """
    clean = crop.astype(np.float64)
    picture, alpha = PAINTERS[kind](clean, other.astype(np.float64), rng)
    mask = alpha >= FAINTEST
    alpha = np.where(mask, alpha, 0.0)
    blended = clean + alpha * (picture - clean)
    return np.clip(np.rint(blended), 0, 255).astype(np.uint8), mask
