"""The figures of a report, as matplotlib objects that use no global state."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from uad.wording import four_digits

# Each arm has the same color in every report. The hues are distinguishable for color-blind people
# (after Okabe and Ito): light and dashed for the plain loss, dark and solid for the amplified one.
STYLES: dict[str, tuple[str, str]] = {
    "mse": ("#56b4e9", "--"),
    "amplified-mse": ("#0072b2", "-"),
    "l1": ("#74c7a5", "--"),
    "amplified-l1": ("#007a5a", "-"),
    "ssim": ("#e69f00", "--"),
    "amplified-ssim": ("#d55e00", "-"),
    "gms": ("#cfc019", "--"),
    "amplified-gms": ("#867a00", "-"),
    "msgms": ("#c39b77", "--"),
    "amplified-msgms": ("#6f4420", "-"),
    "ssim+mse": ("#cc79a7", "--"),
    "amplified-ssim+mse": ("#7b3a6c", "-"),
    "ssim+msgms+mse": ("#a99be0", "--"),
    "amplified-ssim+msgms+mse": ("#45309b", "-"),
}
OTHER_STYLE = ("#555555", "-")
NORMAL_COLOR = "#9a9a9a"
THRESHOLD_COLOR = "#222222"
TRUTH_COLOR = "#00e5ff"  # visible on both dark and bright gray

APPEARANCE: dict[Any, Any] = {
    "font.size": 10.0,
    "axes.titlesize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "svg.hashsalt": "uad",  # equal figures give equal files
}

MAP_COLORS = "magma"
MAP_LIMIT = 99.5
"""Percentile of the values of all maps at which the color scale ends."""

GRID_WIDTH = 14.0  # inches, at 100 pixels per inch

Arrays = Mapping[str, NDArray[Any]]


def arm_color(arm: str) -> str:
    """The color that an arm has in every figure."""
    return STYLES.get(arm, OTHER_STYLE)[0]


def encode(figure: Figure, kind: str) -> bytes:
    """The content of a file of `kind`, "svg" or "png", that shows the figure."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"metadata": {"Date": None}} if kind == "svg" else {}
    with rc_context(APPEARANCE):
        figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()


def loss_curves(histories: Mapping[str, Any]) -> Figure:
    """Loss of each arm over the epochs, relative to its value in the first epoch."""
    with rc_context(APPEARANCE):
        figure, axes = _plot("epoch", "training loss relative to epoch 1")
        for arm, history in histories.items():
            _line(axes, arm, history["epoch"], np.divide(history["loss"], history["loss"][0]))
        _logarithmic(axes, axes.yaxis)
        _legend(axes)
    return figure


def tangent_curves(histories: Mapping[str, Any]) -> Figure:
    """Fraction of elements on the tangent of the amplification, in the last batch of each epoch."""
    with rc_context(APPEARANCE):
        figure, axes = _plot("epoch", "elements on the tangent")
        for arm, history in histories.items():
            _line(axes, arm, history["epoch"], np.array(history["tangent_share"]))
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
        axes.set_ylim(bottom=0)
        _legend(axes)
    return figure


def roc_curves(scores: Arrays, anomalous: NDArray[np.bool_]) -> Figure:
    """ROC curves of all arms. scores: (M,) for each arm. anomalous: (M,)."""
    with rc_context(APPEARANCE):
        figure, axes = _plot("false-positive rate", "true-positive rate", size=(5.0, 4.6))
        axes.plot([0, 1], [0, 1], color="#b0b0b0", linewidth=1, linestyle=":")
        for arm, values in scores.items():
            rate, recall, _ = roc_curve(anomalous, values)
            label = f"{arm}  ({four_digits(roc_auc_score(anomalous, values))})"
            _line(axes, arm, rate, recall, label=label)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.legend(
            loc="lower right", title="image AUROC", alignment="right", frameon=True,
            edgecolor="none",
        )  # fmt: skip
    return figure


def score_histograms(
    scores: Arrays, anomalous: NDArray[np.bool_], thresholds: Mapping[str, float]
) -> Figure:
    """Scores of normal and anomalous images, one panel per arm, all with the same bins.

    thresholds: of each arm, drawn as a line; may be empty. The nearest edge between two bins moves
    there, so no bar has images of both sides.
    """
    everything = np.concatenate(list(scores.values()))
    low, high = float(everything.min()), float(everything.max())
    spread = low > 0 and high > 10 * low
    if low == high:
        low, high = low - 0.5, high + 0.5
    bins = (np.geomspace if spread else np.linspace)(low, high, 33)
    with rc_context(APPEARANCE):
        figure = Figure(figsize=(5.0, 1.1 * len(scores) + 0.6), layout="constrained")
        panels = figure.subplots(len(scores), sharex=True, sharey=True, squeeze=False).flatten()
        for axes, (arm, values) in zip(panels, scores.items(), strict=True):
            edges = _with_edge(bins, thresholds.get(arm))
            for name, chosen, shade in (
                ("normal", ~anomalous, NORMAL_COLOR),
                ("anomalous", anomalous, arm_color(arm)),
            ):
                if chosen.any():
                    style = {"bins": edges, "weights": np.full(chosen.sum(), 1 / chosen.sum())}
                    axes.hist(values[chosen], color=shade, alpha=0.45, label=name, **style)
                    axes.hist(values[chosen], color=shade, histtype="step", **style)
            if arm in thresholds:
                axes.axvline(
                    thresholds[arm], color=THRESHOLD_COLOR, linewidth=1.4, linestyle="--",
                    label="threshold",
                )  # fmt: skip
            axes.set_title(arm, loc="left", fontweight="bold")
            axes.legend(
                loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderpad=0.1,
                borderaxespad=0.2, fontsize=8, handlelength=1.1, handletextpad=0.4,
                columnspacing=0.8,
            )  # fmt: skip
            axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
            axes.grid(visible=False, axis="x")
        if spread:
            _logarithmic(panels[-1], panels[-1].xaxis)
        panels[-1].set_xlabel("anomaly score" + (" (logarithmic)" if spread else ""))
        figure.supylabel("fraction of images", fontsize=10)
    return figure


def _with_edge(bins: NDArray[np.float64], threshold: float | None) -> NDArray[np.float64]:
    """The edges of the bins with the nearest inner one at the threshold, if that is among them."""
    edges: NDArray[np.float64] = bins.copy()
    if threshold is not None and bins[0] < threshold < bins[-1]:
        edges[1 + np.abs(bins[1:-1] - threshold).argmin()] = threshold
    return edges


def example_grid(examples: Arrays, evaluations: Mapping[str, Arrays]) -> Figure:
    """Originals, ground truth, and each arm's reconstructions and maps, one row per image.

    examples: as in examples.npz. evaluations: as in each evaluation.npz.
    """
    originals = examples["originals"]
    masks = examples.get("masks")
    count, _, height, width = originals.shape
    known = examples.get("annotated", np.ones(count, dtype=bool))
    aspect = height / width
    norm = Normalize(vmin=0, vmax=map_limit(evaluations))

    # Columns have width 1: the original, the truth if there is one, then two for each arm, with a
    # gap before each arm.
    gap, side = 0.12, 0.97
    lead = 1 if masks is None else 2
    starts = {arm: lead + gap + index * (2 + gap) for index, arm in enumerate(evaluations)}
    left = 0.15 + 0.075 * max(map(len, examples["kinds"]))  # room for the longest name
    right, bottom = max(starts.values()) + 2, count * aspect
    header, footer = 0.62, 0.75
    inch = min(GRID_WIDTH / (left + right), 1.6)
    total_width, total_height = (left + right) * inch, (header + bottom + footer) * inch
    font = min(11.0, 8.8 * inch)
    with rc_context(APPEARANCE | {"axes.grid": False, "font.size": font}):
        figure = Figure(figsize=(total_width, total_height), dpi=100)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axis("off")

        def show(x: float, row: int, **image: Any) -> None:
            axes.imshow(extent=(x, x + side, (row + side) * aspect, row * aspect), **image)

        def head(x: float, text: str) -> None:
            axes.text(x + side / 2, -0.07, text, ha="center", va="bottom", color="#444444")

        head(0, "original")
        if masks is not None:
            head(1, "ground truth")
        for arm, start in starts.items():
            middle = start + (1 + side) / 2
            axes.text(middle, -0.37, arm, ha="center", va="bottom", weight="bold")
            axes.plot(
                [start, start + 1 + side], [-0.31, -0.31], color=arm_color(arm), linewidth=2.5
            )
            head(start, "reconstruction")
            head(start + 1, "anomaly map")
        for row in range(count):
            kind = examples["kinds"][row]
            axes.text(-0.08, (row + side / 2) * aspect, kind, ha="right", va="center")
            show(0, row, **shown(originals[row]))
            if masks is not None and known[row]:
                show(1, row, **shown(originals[row]))
                draw_outline(axes, masks[row], (1, row * aspect, side, side * aspect))
            elif masks is not None:
                axes.text(1 + side / 2, (row + side / 2) * aspect, "no mask", ha="center")
            for arm, start in starts.items():
                show(start, row, **shown(evaluations[arm]["reconstructions"][row]))
                show(start + 1, row, X=evaluations[arm]["maps"][row], cmap=MAP_COLORS, norm=norm)
        axes.set(xlim=(-left, right), ylim=(bottom + footer, -header), aspect="equal")

        bar = axes.inset_axes((right - 2.1, bottom + 0.3, 1.9, 0.12), transform=axes.transData)
        colors = ScalarMappable(norm, MAP_COLORS)
        figure.colorbar(colors, bar, orientation="horizontal", extend="max")
        bar.xaxis.set_major_locator(MaxNLocator(4))
        bar.set_title("anomaly map", pad=4, fontsize=font)
    return figure


def map_limit(evaluations: Mapping[str, Arrays]) -> float:
    """The value at which the color scale of all maps ends."""
    values = np.concatenate([arrays["maps"].ravel() for arrays in evaluations.values()])
    return float(np.percentile(values, MAP_LIMIT)) or 1.0  # any positive limit suits zero maps


def _plot(x: str, y: str, size: tuple[float, float] = (5.0, 3.6)) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y)
    return figure, axes


def _line(
    axes: Axes, arm: str, x: Sequence[float], y: NDArray[Any], label: str | None = None
) -> None:
    shade, dash = STYLES.get(arm, OTHER_STYLE)
    marker = "o" if len(x) == 1 else None  # a line through a single point is invisible
    axes.plot(x, y, color=shade, linestyle=dash, marker=marker, linewidth=1.8, label=label or arm)


def _legend(axes: Axes) -> None:
    """Add the legend of a figure over epochs above the axes, where it hides no curve."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, handlelength=2.4
    )


def _logarithmic(axes: Axes, axis: Axis) -> None:
    """Make an axis logarithmic, with readable tick labels even if it spans a small range."""
    (axes.set_yscale if axis is axes.yaxis else axes.set_xscale)("log")
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 10 * low else MaxNLocator(5))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def shown(image: NDArray[np.uint8]) -> dict[str, Any]:
    """The arguments with which imshow shows an image (C, H, W)."""
    if len(image) == 1:
        return {"X": image[0], "cmap": "gray", "vmin": 0, "vmax": 255}
    return {"X": image.transpose(1, 2, 0)}


def draw_outline(
    axes: Axes, mask: NDArray[np.bool_], place: tuple[float, float, float, float]
) -> None:
    """Outline where a mask (H, W) is True, over the picture at left, top, width, height."""
    if not mask.any():
        return
    left, top, width, height = place
    # The frame makes the outline close at the picture's border.
    framed = np.pad(mask.astype(float), 1)
    rows, columns = (np.arange(side) - 0.5 for side in framed.shape)
    axes.contour(
        left + columns * width / mask.shape[1], top + rows * height / mask.shape[0], framed,
        levels=[0.5], linewidths=1.2, colors=TRUTH_COLOR,
    )  # fmt: skip
