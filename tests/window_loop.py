"""Weighted SSIM by a loop over windows, in float64 with NumPy, in two or three dimensions."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from packages import optional

if TYPE_CHECKING:
    import numpy as np
else:
    np = optional("numpy")

MODES: dict[str, Any] = {"reflect": "reflect", "zeros": "constant"}


def dissimilarity(
    x: np.ndarray,
    y: np.ndarray,
    taps: list[float],
    *,
    padding: str = "reflect",
    mask: np.ndarray | None = None,
    data_range: float = 1.0,
    k1: float = 0.01,
    k2: float = 0.03,
) -> np.ndarray:
    """1 - SSIM of two planes or volumes without channels, at each window position.

    Each window's pixels count by the product of the taps along the axes, times the mask. With a
    mask and "zeros", pixels outside of the image are masked.
    """
    weights = np.ones(())
    for _ in range(x.ndim):
        weights = np.multiply.outer(weights, np.asarray(taps) / np.sum(taps))
    shown = np.ones(x.shape) if mask is None else mask
    x, y = np.where(shown == 0, 0.0, x), np.where(shown == 0, 0.0, y)
    if padding != "valid":
        radius = len(taps) // 2
        x, y = (np.pad(image, radius, mode=MODES[padding]) for image in (x, y))
        outside: dict[str, Any] = {}
        if padding == "zeros":
            outside["constant_values"] = float(mask is None)
        shown = np.pad(shown, radius, mode=MODES[padding], **outside)
    result = np.zeros([side - len(taps) + 1 for side in x.shape])
    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    for position in itertools.product(*map(range, result.shape)):
        window = tuple(slice(start, start + len(taps)) for start in position)
        w = weights * shown[window]
        if w.sum() == 0:
            continue
        w = w / w.sum()
        a, b = x[window], y[window]
        mu_a, mu_b = (w * a).sum(), (w * b).sum()
        var_a, var_b = (w * (a - mu_a) ** 2).sum(), (w * (b - mu_b) ** 2).sum()
        covariance = (w * (a - mu_a) * (b - mu_b)).sum()
        luminance = (2 * mu_a * mu_b + c1) / (mu_a**2 + mu_b**2 + c1)
        result[position] = 1 - luminance * (2 * covariance + c2) / (var_a + var_b + c2)
    return result
