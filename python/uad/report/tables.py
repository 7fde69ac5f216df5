"""The tables of a report as HTML. `arms` is always the entry "arms" of metrics.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from uad.baselines import BLUR_SIGMA, BLURRED_COPY, MEAN_IMAGE
from uad.figures import arm_color
from uad.html import cell, row_head, table
from uad.wording import four_digits, percent

Arms = Mapping[str, Any]

BASELINES = (
    "Baselines are evaluated like a network, and a network has to beat them. "
    f"{MEAN_IMAGE.capitalize()}: every image is “reconstructed” as the mean training image. "
    f"{BLURRED_COPY.capitalize()}: each image is “reconstructed” as a copy of itself, blurred with "
    f"a Gaussian of sigma {BLUR_SIGMA:g} pixels."
)
"""Explanation of the rows of the baselines, as HTML."""


@dataclass(frozen=True)
class Column:
    """A figure of an arm or a baseline."""

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


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def _last_tangent_share(arm: dict[str, Any]) -> float | None:
    return arm["history"]["tangent_share"][-1] if "history" in arm else None


MERITS = (
    Column(
        "image AUROC", _merit("image_auroc"), four_digits, 1,
        "how often an anomalous image scores higher than a normal one; 0.5 is guessing",
    ),
    Column(
        "image AP", _merit("image_ap"), four_digits, 1,
        "average precision of the image scores; guessing gives the fraction of anomalous images",
    ),
    Column(
        "pixel AUROC", _merit("pixel_auroc"), four_digits, 1,
        "how often a defective pixel is higher than a normal one in the anomaly maps; 0.5 is "
        "guessing",
    ),
    Column(
        "AUPRO", _merit("aupro"), four_digits, 1,
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
        "time per step", lambda arm: arm.get("seconds_per_step"), _milliseconds, -1,
        "median over the training steps; the losses are trained one after another, so on a busy "
        "machine other load may explain the differences",
    ),
    Column(
        "loss in step", lambda arm: arm.get("loss_share"), percent, -1,
        "fraction of a step's time spent in the loss, forward and backward",
    ),
    Column(
        "on tangent", _last_tangent_share, percent, 0,
        "fraction of elements in the last batch of the last epoch with an error above 1 - eps, "
        "where the amplification continues as a straight line; for a plain loss, the elements "
        "that would be there if it were amplified",
    ),
)  # fmt: skip


def result_table(arms: Arms, baselines: Mapping[str, Any]) -> str:
    """One row per arm, then one per baseline, with an explanation of the columns.

    baselines: the evaluation of each, as in metrics.json.
    """
    columns = [column for column in COLUMNS if column.values(arms)]
    arrows = {1: "\u00a0↑", -1: "\u00a0↓", 0: ""}
    heads = [column.title + arrows[column.better] for column in columns]
    rows = [row_head(arm, _swatch(arm)) + _cells(columns, each) for arm, each in arms.items()]
    apart = [
        row_head(f"baseline: {name}") + _cells(columns, {"evaluation": each})
        for name, each in baselines.items()
    ]
    meanings = "".join(
        f"<dt>{column.title}</dt><dd>{escape(column.meaning)}</dd>" for column in columns
    )
    return (
        table(["training loss", *heads], rows, apart=apart)
        + '<p class="note">↑ higher is better, ↓ lower is better</p>\n'
        + (f'<p class="note">{BASELINES}</p>\n' if baselines else "")
        + f"<dl>{meanings}</dl>\n"
    )


def _cells(columns: Sequence[Column], each: dict[str, Any]) -> str:
    values = [(column, column.value(each)) for column in columns]
    return "".join(cell(None if value is None else column.show(value)) for column, value in values)


def kind_table(arms: Arms, baselines: Mapping[str, Any], key: str, title: str, count: str) -> str:
    """A figure of merit by defect kind, for each arm and baseline; empty if it is undefined.

    count: key of the number of images that the figure is about.
    """
    evaluations = {arm: content["evaluation"] for arm, content in arms.items()} | dict(baselines)
    first = next(iter(evaluations.values()))["per_kind"]
    rows = []
    for kind, content in first.items():
        values = [each["per_kind"][kind][key] for each in evaluations.values()]
        if any(value is not None for value in values):
            images = content.get(count, content["count"])  # older runs have masks for all or none
            cells = [cell(None if value is None else four_digits(value)) for value in values]
            rows.append(row_head(kind) + cell(f"{images:,}") + "".join(cells))
    caption = f"{title}: each kind of defect against all normal test images"
    return table(["defect", "images", *evaluations], rows, caption) if rows else ""


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
