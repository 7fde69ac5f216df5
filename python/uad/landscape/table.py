"""The lines of landscape.jsonl as tables, for the terminal and for pages."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uad.bootstrap import bootstrap_interval
from uad.landscape.curvature import CURVATURE_STEP
from uad.landscape.measure import Options, counterparts
from uad.table import Table

PICTURE, LINES = "landscape.png", "landscape.jsonl"

Line = dict[str, Any]

COLUMNS = {
    "mean_slope": "mean slope",
    "max_slope": "maximum slope",
    "curvature": "curvature",
    "relative_mean_slope": "relative mean slope",
    "relative_max_slope": "relative maximum slope",
    "relative_curvature": "relative curvature",
}

STEEPNESS_HEADS = (
    "network trained with", "loss measured", "loss at the weights", *COLUMNS.values(),
    "maximum curvature",
)  # fmt: skip
STEEPNESS_NOTE = (
    "Mean over random directions, with the standard deviation in brackets. Each filter of a "
    "direction is as long as the network's filter, and slopes are per step as long as the weights "
    "themselves. Curvature: second difference along the direction, over steps of "
    f"{CURVATURE_STEP:g} to both sides. Maximum curvature: largest second derivative over all "
    f"directions, for the first {Options.curvature_images} images. It is not given for L1, because "
    "|x| has no second derivative where its slope jumps, and these jumps make up nearly all of the "
    "curvature. Relative: divided by the loss at the weights."
)

RATIO_HEADS = ("amplified over plain", *COLUMNS.values())
RATIO_NOTE = (
    "Ratio of the means over the directions, with the 95% interval from resampling the directions "
    "in brackets. The interval says how certain the ratio is for these networks, and nothing about "
    "networks trained with another seed."
)


def read_tables(folder: Path) -> list[Table]:
    """The tables of what landscape.py wrote into the folder; empty if it wrote nothing."""
    path = folder / LINES
    if not path.exists() or not (folder / PICTURE).exists():
        return []
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    tables = [
        Table(RATIO_NOTE, RATIO_HEADS, ratio_rows(lines)),
        Table(STEEPNESS_NOTE, STEEPNESS_HEADS, steepness_rows(lines)),
    ]
    return [table for table in tables if table.rows]


def steepness_rows(lines: Sequence[Line]) -> list[list[str]]:
    """One row per line of the file."""
    return [
        [
            line["loss"],
            line["looked_at"],
            digits(line["loss_at_weights"]),
            *(_mean_and_sd(line[name]) for name in COLUMNS),
            "-" if line["top_curvature"] is None else digits(line["top_curvature"]),
        ]
        for line in lines
    ]


def ratio_rows(lines: Sequence[Line]) -> list[list[str]]:
    """Amplified over plain: both losses around one network, and each loss around its network."""
    found = {(line["loss"], line["looked_at"]): line for line in lines}
    rows = []
    for metric in dict.fromkeys(counterparts(line["loss"])[0] for line in lines):
        plain, amplified = counterparts(metric)
        for title, one, other in (
            (f"{metric}: both around the {plain} network", (plain, amplified), (plain, plain)),
            (
                f"{metric}: each around its own network",
                (amplified, amplified),
                (plain, plain),
            ),
        ):
            if one in found and other in found:
                rows.append([title, *(_ratio(found[one], found[other], name) for name in COLUMNS)])
    return rows


def _mean_and_sd(values: Sequence[float]) -> str:
    return f"{digits(float(np.mean(values)))} ({digits(float(np.std(values, ddof=1)))})"


def _ratio(one: Line, other: Line, name: str) -> str:
    """The ratio of the means with its interval.

    The directions of two networks form pairs, because they come from the same random numbers.
    """
    above, below = np.array(one[name]), np.array(other[name])
    ratio = float(above.mean() / below.mean())
    low, high = bootstrap_interval([linearized(above, below)])
    interval = "too few directions" if math.isnan(low) else f"{low:.2f} to {high:.2f}"
    return f"{ratio:.2f} ({interval})"


def linearized(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values whose mean and standard error are those of the ratio of means (delta method)."""
    ratio = above.mean() / below.mean()
    values: NDArray[np.float64] = ratio + (above - ratio * below) / below.mean()
    return values


def digits(value: float) -> str:
    """Three significant digits, never in scientific notation."""
    return np.format_float_positional(value, precision=3, fractional=False, trim="-")
