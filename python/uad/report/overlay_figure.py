"""One test image: the picture, its reconstruction, and its anomaly map laid over the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from uad.figures import APPEARANCE, MAP_COLORS, draw_outline, shown

PANEL = 2.4  # inches, at 100 pixels per inch
GAP = 0.03  # fraction of a panel
CONTOUR_COLOR = "#101010"  # at the threshold, the map is bright
OPACITY = 0.8


def overlay_figure(
    original: NDArray[np.uint8],
    reconstruction: NDArray[np.uint8],
    anomaly_map: NDArray[np.float32],
    mask: NDArray[np.bool_] | None,
    threshold: float,
) -> Figure:
    """Three panels, side by side, without any text.

    original, reconstruction: (C, H, W). anomaly_map: (H, W). mask: (H, W), None if it is unknown.
    The colors of the map end at the threshold; a pixel is the more opaque, the higher its value.
    """
    limit = threshold or 1.0  # any positive limit suits a threshold of 0
    _, height, width = original.shape
    total = 3 + 2 * GAP
    with rc_context(APPEARANCE | {"axes.grid": False}):
        figure = Figure(figsize=(PANEL * total, PANEL * height / width), dpi=100)
        panels = []
        for place in range(3):
            axes = figure.add_axes((place * (1 + GAP) / total, 0, 1 / total, 1))
            axes.axis("off")
            panels.append(axes)
        extent = (0.0, 1.0, 1.0, 0.0)
        picture: dict[str, Any] = {"extent": extent, "aspect": "auto"}
        panels[0].imshow(**shown(original), **picture)
        panels[1].imshow(**shown(reconstruction), **picture)
        panels[2].imshow(**shown(original), **picture)
        panels[2].imshow(
            anomaly_map, cmap=MAP_COLORS, norm=Normalize(0, limit),
            alpha=OPACITY * (anomaly_map / limit).clip(0, 1), **picture,
        )  # fmt: skip
        if mask is not None:
            draw_outline(panels[2], mask, 0.5, (0, 0, 1, 1))
        draw_outline(
            panels[2], anomaly_map, threshold, (0, 0, 1, 1),
            colors=CONTOUR_COLOR, linestyles="dashed",
        )  # fmt: skip
        panels[2].set(xlim=extent[:2], ylim=extent[2:])  # outlines reach beyond the border
    return figure
