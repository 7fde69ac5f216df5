"""The results of a run as plain text for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from uad.table import align

FIGURES = {
    "image AUROC": ("image_auroc", ".4f"),
    "pixel AUROC": ("pixel_auroc", ".4f"),
    "AUPRO": ("aupro", ".4f"),
    "AP": ("image_ap", ".4f"),
    "PSNR normal": ("psnr_normal", ".2f"),
}
"""The figures of an evaluation: their keys and formats by the heads of their columns."""

TIMES = {"s/step": ("seconds_per_step", ".4f"), "loss time / step time": ("loss_share", ".1%")}
"""The same for the timings of a training."""


def results_table(metrics: dict[str, Any]) -> str:
    """A table with a row per loss and per baseline, then one with a row per defect kind.

    metrics: the content of metrics.json. Figures that are defined for no row are left out.
    """
    arms: dict[str, Any] = metrics["arms"]
    evaluations = {name: arm["evaluation"] for name, arm in arms.items()}
    baselines: dict[str, Any] = metrics.get("baselines") or {}
    shown = {
        head: figure
        for head, figure in FIGURES.items()
        if any(each[figure[0]] is not None for each in (evaluations | baselines).values())
    }

    def cells(evaluation: dict[str, Any], arm: dict[str, Any]) -> list[str]:
        return [number(evaluation[key], form) for key, form in shown.values()] + [
            number(arm.get(key), form) for key, form in TIMES.values()
        ]

    rows = [[name, *cells(evaluations[name], arm)] for name, arm in arms.items()]
    others = [[f"baseline: {name}", *cells(each, {})] for name, each in baselines.items()]
    text = _apart(align(("loss", *shown, *TIMES), [*rows, *others]), len(rows) + 1)
    return "\n\n".join(filter(None, (text, _kind_table(evaluations | baselines))))


def _apart(text: str, line: int) -> str:
    """The text with a rule before this line, if there is such a line."""
    lines = text.splitlines()
    rule = ["-" * max(map(len, lines))] if line < len(lines) else []
    return "\n".join([*lines[:line], *rule, *lines[line:]])


def _kind_table(evaluations: dict[str, Any]) -> str:
    """The image AUROC of each kind of defect; empty if it is undefined."""
    rows: list[Sequence[str]] = []
    for kind in next(iter(evaluations.values()))["per_kind"]:
        values = [each["per_kind"][kind]["image_auroc"] for each in evaluations.values()]
        if any(value is not None for value in values):
            rows.append([kind, *(number(value, ".4f") for value in values)])
    return f"image AUROC by kind of defect\n{align(('kind', *evaluations), rows)}" if rows else ""


def number(value: float | None, form: str) -> str:
    """`value` formatted, a dash for None and whatever is not finite."""
    return "-" if value is None or not math.isfinite(value) else format(value, form)
