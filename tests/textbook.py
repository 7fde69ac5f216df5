"""SSIM by its textbook formula, in float64 with SciPy's filters: slow, simple, independent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packages import optional

if TYPE_CHECKING:
    import numpy as np
else:
    np = optional("numpy")
ndimage = optional("scipy.ndimage")

MODES = {"reflect": "mirror", "zeros": "constant", "valid": "mirror"}


def ssim_map(
    x: np.ndarray,
    y: np.ndarray,
    *,
    data_range: float = 1.0,
    window_size: int = 11,
    sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
    padding: str = "reflect",
) -> np.ndarray:
    """SSIM of two images (..., H, W), float64."""
    radius = window_size // 2
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()

    def window(plane: np.ndarray) -> np.ndarray:
        for axis in (-2, -1):
            plane = ndimage.correlate1d(plane, taps, axis=axis, mode=MODES[padding])
        if padding == "valid" and radius:
            plane = plane[..., radius:-radius, radius:-radius]
        return plane

    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    mu_x, mu_y = window(x), window(y)
    var_x = window(x * x) - mu_x**2
    var_y = window(y * y) - mu_y**2
    covariance = window(x * y) - mu_x * mu_y
    luminance = (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1)
    return luminance * (2 * covariance + c2) / (var_x + var_y + c2)
