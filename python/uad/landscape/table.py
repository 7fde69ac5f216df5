"""The lines of landscape.jsonl as tables, for text and pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uad.landscape.curvature import CURVATURE_STEP
from uad.landscape.measure import Options, counterparts
from uad.study.statistics import bootstrap_interval

PICTURE, LINES = "landscape.png", "landscape.jsonl"

Line = dict[str, Any]

COLUMNS = {
    "mean_slope": "mean slope",
    "max_slope": "greatest slope",
    "curvature": "curvature",
    "relative_mean_slope": "relative mean slope",
    "relative_max_slope": "relative greatest slope",
    "relative_curvature": "relative curvature",
}

STEEPNESS_HEADS = (
    "network trained with", "loss looked at", "loss at the weights", *COLUMNS.values(),
    "greatest curvature",
)  # fmt: skip
STEEPNESS_NOTE = (
    "Mean over random directions, their standard deviation in brackets. Each filter of a direction "
    "is as long as the network's own; a slope is per step as long as the weights themselves. "
    f"Curvature: second difference along the direction, over steps of {CURVATURE_STEP:g} to both "
    "sides. Greatest curvature: second derivative in any direction, of the first "
    f"{Options.curvature_images} images; of L1 none is given, for where the derivative of |x| "
    "jumps it has no second one, and these jumps are nearly all of its curvature. Relative: "
    "divided by the loss at the weights."
)

RATIO_HEADS = ("amplified over plain", *COLUMNS.values())
RATIO_NOTE = (
    "Quotient of the means over the directions, in brackets its 95 % interval from drawing the "
    "directions anew: it says how sure the figure is for these very networks, and nothing of "
    "networks trained from another seed."
)


def steepness_rows(lines: Sequence[Line]) -> list[list[str]]:
    """One row a line."""
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
    """Amplified over plain: two losses around one network, and two networks in their own losses."""
    found = {(line["loss"], line["looked_at"]): line for line in lines}
    rows = []
    for metric in dict.fromkeys(counterparts(line["loss"])[0] for line in lines):
        plain, amplified = counterparts(metric)
        for title, one, other in (
            (f"{metric}, around the network of {plain}", (plain, amplified), (plain, plain)),
            (
                f"{metric}, each around its own network",
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
    """The directions of two networks are pairs, made of the same random numbers."""
    above, below = np.array(one[name]), np.array(other[name])
    ratio = float(above.mean() / below.mean())
    low, high = bootstrap_interval([linearised(above, below)])
    return f"{ratio:.2f} ({low:.2f} to {high:.2f})"


def linearised(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values with the mean of the ratio of means, whose spread is that ratio's (delta method)."""
    ratio = above.mean() / below.mean()
    values: NDArray[np.float64] = ratio + (above - ratio * below) / below.mean()
    return values


def digits(value: float) -> str:
    """Three significant digits, never as a power of ten."""
    return np.format_float_positional(value, precision=3, fractional=False, trim="-")
