"""The picture of loss landscapes: planes and lines, plain and amplified on the same axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from uad.figures import APPEARANCE, STYLES
from uad.landscape.measure import Landscape, counterparts

COLOR_MAP = "viridis"


def landscape_figure(landscapes: Mapping[str, Landscape]) -> Figure:
    """One row per metric: each network's plane, then the lines of both, on common scales."""
    metrics = list(dict.fromkeys(counterparts(trained)[0] for trained in landscapes))
    with rc_context(APPEARANCE | {"axes.grid": False}):
        figure = Figure(figsize=(11.5, 3.5 * len(metrics)), layout="constrained", dpi=100)
        panels = figure.subplots(len(metrics), 3, squeeze=False)
        for row, metric in zip(panels, metrics, strict=True):
            present = [landscapes[name] for name in counterparts(metric) if name in landscapes]
            _planes(figure, row[:2], present)
            _lines(row[2], present)
    return figure


def _planes(figure: Figure, panels: Sequence[Axes], landscapes: Sequence[Landscape]) -> None:
    low = min(each.plane.min() for each in landscapes)
    high = max(each.plane.max() for each in landscapes)
    levels = np.geomspace(low, high, 25)
    for axes, each in zip(panels, landscapes, strict=False):
        filled = axes.contourf(
            each.plane_steps, each.plane_steps, each.plane,
            levels=levels, norm=LogNorm(low, high), cmap=COLOR_MAP,
        )  # fmt: skip
        axes.contour(
            each.plane_steps, each.plane_steps, each.plane,
            levels=levels[::2], colors="white", linewidths=0.4, alpha=0.6,
        )  # fmt: skip
        axes.plot(0, 0, "+", color="white", markersize=8)
        axes.set_title(f"{each.trained} around its own network", fontweight="bold")
        axes.set(xlabel="step along direction 2", ylabel="step along direction 1", aspect="equal")
    for axes in panels[len(landscapes) :]:
        axes.set_axis_off()
    bar = figure.colorbar(filled, ax=list(panels), format="{x:.2g}")
    bar.set_label("loss")
    bar.set_ticks(list(np.geomspace(low, high, 5)))
    bar.ax.minorticks_off()


def _lines(axes: Axes, landscapes: Sequence[Landscape]) -> None:
    for each in landscapes:
        shade, dash = STYLES[each.trained]
        lines = each.lines[each.trained]
        axes.fill_between(
            each.steps, lines.min(axis=0), lines.max(axis=0), color=shade, alpha=0.2, linewidth=0
        )
        axes.plot(
            each.steps, lines.mean(axis=0), color=shade, linestyle=dash, linewidth=1.8,
            label=each.trained,
        )  # fmt: skip
    axes.grid(visible=True)
    axes.set(xlabel="step along a direction", ylabel="loss", ylim=(0, None))
    axes.set_title(f"mean and range over {len(lines)} directions", fontweight="bold")
    axes.legend(loc="upper center", frameon=True, edgecolor="none")
