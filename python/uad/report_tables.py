"""The tables of a report as HTML. `arms` is always the entry "arms" of metrics.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from uad.figures import arm_color
from uad.html import cell, row_head, table

Arms = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A figure that every arm has."""

    title: str
    value: Callable[[dict[str, Any]], float | None]
    """Extracts the figure from an arm; None if it is undefined."""
    show: Callable[[float], str]
    better: int
    """1 if higher is better, -1 if lower is better, 0 for neither."""
    meaning: str

    def values(self, arms: Arms) -> dict[str, float]:
        """The figure of each arm for which it is defined."""
        found = {arm: self.value(content) for arm, content in arms.items()}
        return {arm: value for arm, value in found.items() if value is not None}


def _merit(key: str) -> Callable[[dict[str, Any]], float | None]:
    return lambda arm: arm["evaluation"][key]


def three_digits(value: float) -> str:
    """Like 0.123."""
    return f"{value:.3f}"


def percent(value: float) -> str:
    """Like 12.3%, with zero distinguished from small values."""
    if value == 0:
        return "0"
    return "< 0.1%" if value < 0.001 else f"{value:.1%}"


MERITS = (
    Column(
        "image AUROC", _merit("image_auroc"), three_digits, 1,
        "how often an anomalous image scores higher than a normal one; 0.5 is guessing",
    ),
    Column(
        "image AP", _merit("image_ap"), three_digits, 1,
        "average precision of the image scores; guessing gives the fraction of anomalous images",
    ),
    Column(
        "pixel AUROC", _merit("pixel_auroc"), three_digits, 1,
        "how often a defective pixel is higher than a normal one in the anomaly maps; 0.5 is "
        "guessing",
    ),
    Column(
        "AUPRO", _merit("aupro"), three_digits, 1,
        "fraction of a defective region that is detected, averaged over all regions and over "
        "false-positive rates of pixels from 0 to 0.3; 0.15 is guessing",
    ),
)  # fmt: skip
"""How well anomalies are detected."""

COLUMNS = (
    *MERITS,
    Column(
        "PSNR normal", _merit("psnr_normal"), "{:.1f} dB".format, 1,
        "how well normal test images are reconstructed; a higher value need not mean a better "
        "detector",
    ),
    Column(
        "time per step", lambda arm: arm["seconds_per_step"], lambda s: f"{1000 * s:.1f} ms", -1,
        "median over the training steps; the losses are trained one after another, so on a busy "
        "machine other load may explain the differences",
    ),
    Column(
        "loss in step", lambda arm: arm["loss_share"], percent, -1,
        "fraction of a step's time spent in the loss, forward and backward",
    ),
    Column(
        "on tangent", lambda arm: arm["history"]["tangent_share"][-1], percent, 0,
        "fraction of elements in the last batch of the last epoch with an error above 1 - eps, "
        "where the amplification continues as a straight line; for a plain loss, the elements "
        "that would be there if it were amplified",
    ),
)  # fmt: skip


def result_table(arms: Arms) -> str:
    """One row per arm, with an explanation of the columns."""
    columns = [column for column in COLUMNS if column.values(arms)]
    cells: dict[str, list[str]] = {arm: [] for arm in arms}
    for column in columns:
        values = column.values(arms)
        for arm, row in cells.items():
            row.append(cell(column.show(values[arm]) if arm in values else None))
    arrows = {1: "\u00a0↑", -1: "\u00a0↓", 0: ""}
    heads = [column.title + arrows[column.better] for column in columns]
    rows = [row_head(arm, _swatch(arm)) + "".join(row) for arm, row in cells.items()]
    meanings = "".join(
        f"<dt>{column.title}</dt><dd>{escape(column.meaning)}</dd>" for column in columns
    )
    return (
        table(["training loss", *heads], rows)
        + f'<p class="note">↑ higher is better, ↓ lower is better</p>\n<dl>{meanings}</dl>\n'
    )


def kind_table(arms: Arms, key: str, title: str) -> str:
    """A figure of merit by defect kind and arm; empty if it is defined for no kind."""
    per_kind = {arm: content["evaluation"]["per_kind"] for arm, content in arms.items()}
    rows = []
    for kind, first in next(iter(per_kind.values())).items():
        found = {arm: kinds[kind][key] for arm, kinds in per_kind.items()}
        values = {arm: value for arm, value in found.items() if value is not None}
        cells = [cell(three_digits(values[arm]) if arm in values else None) for arm in arms]
        if values:
            rows.append(row_head(kind) + cell(str(first["count"])) + "".join(cells))
    caption = f"{title}: each kind of defect against all normal test images"
    return table(["defect", "images", *arms], rows, caption) if rows else ""


def definitions(title: str, entries: Mapping[str, Any]) -> str:
    """The names and values of settings."""
    items = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(_plain(value))}</dd>"
        for name, value in entries.items()
    )
    return f"<h3>{title}</h3>\n<dl>{items}</dl>\n"


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _swatch(arm: str) -> str:
    return f'<i class="swatch" style="background:{arm_color(arm)}"></i>'
