"""The figures of a study."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from uad.data import fashion_mnist
from uad.figures import APPEARANCE, arm_color
from uad.study.measures import primary
from uad.study.questions import Comparison
from uad.study.setting import Setting
from uad.study.statistics import Difference

ZERO: dict[str, Any] = {"color": "#888888", "linewidth": 1.0, "zorder": 0}
WIDE, LINEAR = 0.05, 0.01
"""Differences above WIDE require a logarithmic axis to show small ones, linear up to LINEAR."""

OPEN_COLOR = "#777777"

LETTERS_PER_INCH = 13
"""Of a title, on average."""

TITLE_LETTERS = 62
"""A longer title of a setting reaches to the left of the axes, above the names of the losses."""


def paired_dots(comparisons: Sequence[Comparison]) -> Figure:
    """Amplified minus plain: one dot per pair, one row per class, one panel per comparison.

    The last row is the mean over the classes with its interval. comparisons: of one setting.
    """
    setting = comparisons[0].setting
    found = [_difference(comparison) for comparison in comparisons]
    classes = sorted({pair.normal_class for each in found for pair in each.pairs}, key=str)
    with rc_context(APPEARANCE | {"axes.grid.axis": "x"}):
        figure = Figure(figsize=(3.3 * len(found) + 1.2, 0.3 * len(classes) + 1.9), dpi=110)
        figure.set_layout_engine("constrained")
        panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
        for axes, comparison, each in zip(panels, comparisons, found, strict=True):
            shade = arm_color(comparison.after.loss)
            axes.axvline(0, **ZERO)
            for pair in each.pairs:
                axes.plot(
                    pair.difference, classes.index(pair.normal_class), "o", color=shade,
                    alpha=0.55, markersize=5, fillstyle="none" if pair.stuck else "full",
                )  # fmt: skip
            axes.axhline(len(classes) - 0.5, color="#cccccc", linewidth=0.8)
            _interval(axes, each, len(classes), shade)
            axes.set_title(f"{comparison.after}\nminus {comparison.before}", fontweight="bold")
            reach = 1.1 * max(0.002, *(abs(pair.difference) for pair in each.pairs))
            axes.set_xlim(-reach, reach)
            axes.xaxis.set_major_locator(MaxNLocator(4, symmetric=True))
        mean = "mean, 95% interval" if any(each.bounded for each in found) else "mean"
        names = [class_name(setting.dataset, each) for each in classes]
        panels[0].set_yticks(range(len(classes) + 1), [*names, mean])
        panels[0].set_ylim(len(classes) + 0.5, -0.6)
        scales = "; scales differ" if len(found) > 1 else ""
        figure.supxlabel(
            f"difference in image AUROC (amplified is better to the right of 0{scales})",
            fontsize=10,
        )
        hollow = any(pair.stuck for each in found for pair in each.pairs)
        lines = [str(setting), "hollow: at least one run of the pair is stuck" if hollow else ""]
        columns = int(LETTERS_PER_INCH * figure.get_figwidth())
        title = "\n".join(textwrap.fill(line, columns) for line in lines if line)
        figure.suptitle(title, fontsize=10)
    return figure


def forest(groups: dict[Setting, list[Comparison]]) -> Figure:
    """The mean difference of every comparison, with its interval if it has one, by setting."""
    rows = sum(len(group) + 1 for group in groups.values())
    with rc_context(APPEARANCE | {"axes.grid.axis": "x"}):
        figure = Figure(figsize=(9.0, 0.25 * rows + 1.0), layout="constrained", dpi=110)
        axes = figure.subplots()
        axes.axvline(0, **ZERO)
        labels, place, bounded = [], 0, False
        for setting, group in groups.items():
            fits = len(str(setting)) <= TITLE_LETTERS
            axes.text(
                0.0 if fits else 1.0, place, f" {setting}", transform=axes.get_yaxis_transform(),
                ha="left" if fits else "right", va="center", fontweight="bold", fontsize=9,
            )  # fmt: skip
            place += 1
            for comparison in group:
                each = _difference(comparison)
                bounded = bounded or each.bounded
                clear = each.verdict != "open"
                shade = arm_color(f"amplified-{comparison.metric}") if clear else OPEN_COLOR
                _interval(axes, each, place, shade)
                same = ": identical runs" if comparison.identical else ""
                labels.append((place, f"{comparison.after} minus {comparison.before}{same}"))
                place += 1
        axes.set_yticks([y for y, _ in labels], [text for _, text in labels], fontsize=8.5)
        axes.set_ylim(place - 0.4, -0.7)
        label = "difference in image AUROC"
        if bounded:
            label += ", 95% interval\n(gray: contains 0, or too few pairs)"
        limits = axes.get_xlim()
        if max(map(abs, limits)) > WIDE:
            axes.set_xscale("symlog", linthresh=LINEAR, linscale=2)
            axes.set_xticks([-0.1, -0.01, 0, 0.01, 0.1], ["-0.1", "-0.01", "0", "0.01", "0.1"])
            axes.set_xlim(1.3 * min(limits[0], -LINEAR), 1.3 * max(limits[1], LINEAR))
            label += f"\nlogarithmic beyond ±{LINEAR:g}"
        axes.set_xlabel(label)
    return figure


def _difference(comparison: Comparison) -> Difference:
    found = comparison.difference(primary(comparison.setting.dataset))
    if found is None:
        raise ValueError(f"{comparison.after} and {comparison.before} have no pair of runs")
    return found


def _interval(axes: Axes, found: Difference, y: float, shade: str) -> None:
    if found.bounded:
        axes.plot([found.low, found.high], [y, y], color=shade, linewidth=2.4)
    axes.plot(found.mean, y, "D", color=shade, markersize=6, markeredgecolor="white")


def class_name(dataset: str, normal_class: int | str) -> str:
    """The name that a person would use."""
    if dataset == fashion_mnist.NAME and isinstance(normal_class, int):
        return fashion_mnist.CLASSES[normal_class]
    return str(normal_class)
