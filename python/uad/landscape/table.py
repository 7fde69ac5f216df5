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
from uad.checkpoint import in_one_line
from uad.landscape.curvature import CURVATURE_STEP
from uad.landscape.measure import counterparts
from uad.run_folder import RunFolderError
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
DEFAULT_CURVATURE_IMAGES = 64
"""Of lines from before their number was an entry."""
STEEPNESS_NOTE = (
    "Mean over random directions, with the standard deviation in brackets. Each filter of a "
    "direction is as long as the network's filter, and slopes are per step as long as the weights "
    "themselves. Curvature: second difference along the direction, over steps of "
    f"{CURVATURE_STEP:g} to both sides. "
)
TOP_NOTE = (
    "Maximum curvature: largest second derivative over all directions, for the first {count} "
    "images. "
)
KINK_NOTE = (
    "It is not given for L1, because |x| has no second derivative where its slope jumps, and these "
    "jumps make up nearly all of the curvature. "
)
RELATIVE_NOTE = "Relative: divided by the loss at the weights."

RATIO_HEADS = ("amplified over plain", *COLUMNS.values())
RATIO_NOTE = "Ratio of the means over the directions"
INTERVAL_NOTE = (
    ", with the 95% interval from resampling the directions in brackets. The interval says how "
    "certain the ratio is for these networks, and nothing about networks trained with another seed"
)


def read_tables(folder: Path) -> list[Table]:
    """The tables of what landscape.py wrote into the folder; empty if it wrote nothing.

    RunFolderError if the file is damaged.
    """
    path = folder / LINES
    if not path.exists() or not (folder / PICTURE).exists():
        return []
    try:
        return _tables([json.loads(line) for line in path.read_text("utf-8").splitlines()])
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = in_one_line(error)
        raise RunFolderError(
            f"{path}: not written by landscape.py, or damaged: {reason}"
        ) from error


def _tables(lines: Sequence[Line]) -> list[Table]:
    rows = ratio_rows(lines)
    bounded = any("(" in cell for row in rows for cell in row[1:])
    tables = [
        Table(f"{RATIO_NOTE}{INTERVAL_NOTE if bounded else ''}.", RATIO_HEADS, rows),
        _steepness(lines),
    ]
    return [table for table in tables if table.rows]


def _steepness(lines: Sequence[Line]) -> Table:
    """Without the maximum curvature if no line has it."""
    rows = steepness_rows(lines)
    shown = len(STEEPNESS_HEADS) - all(line["top_curvature"] is None for line in lines)
    return Table(steepness_note(lines), STEEPNESS_HEADS[:shown], [row[:shown] for row in rows])


def steepness_note(lines: Sequence[Line]) -> str:
    """What the columns are, as far as these lines fill them."""
    counts = {line.get("curvature_images", DEFAULT_CURVATURE_IMAGES) for line in lines}
    given = {line["top_curvature"] is not None for line in lines}
    top = TOP_NOTE.format(count=" or ".join(map(str, sorted(counts)))) if True in given else ""
    top = top.replace("first 1 images", "first image")
    return STEEPNESS_NOTE + top + (KINK_NOTE if given == {True, False} else "") + RELATIVE_NOTE


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
    """The ratio of the means, with its interval unless there are too few directions.

    The directions of two networks form pairs, because they come from the same random numbers.
    """
    above, below = np.array(one[name]), np.array(other[name])
    ratio = float(above.mean() / below.mean())
    low, high = bootstrap_interval([linearized(above, below)])
    return f"{ratio:.2f}" if math.isnan(low) else f"{ratio:.2f} ({low:.2f} to {high:.2f})"


def linearized(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values whose mean and standard error are those of the ratio of means (delta method)."""
    ratio = above.mean() / below.mean()
    values: NDArray[np.float64] = ratio + (above - ratio * below) / below.mean()
    return values


def digits(value: float) -> str:
    """Three significant digits, never in scientific notation."""
    return np.format_float_positional(value, precision=3, fractional=False, trim="-")
