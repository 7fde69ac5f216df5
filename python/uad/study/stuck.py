"""Stuck runs: runs that learned nothing, such as networks that paint every image black.

The median of a pixel that is usually dark is dark, so under an absolute error a black picture is a
trap that a network may never leave. One such run changes an AUROC more than anything else does, so
a study counts stuck runs and also reports every difference without them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from uad.study.results import spec_of
from uad.study.statistics import Difference, Pair, Result, compare

FACTOR = 3.0
"""A run is stuck if its error on normal images exceeds the usual error by this factor. The exact
value hardly matters: the gap between runs that learn and runs that do not is much wider
than the spread of either."""

SAME_TASK = (
    "dataset", "normal_class", "optimizer", "epochs", "size", "width", "latent", "fit",
    "bit_depth", "inpaint", "inpaint_loss",
)  # fmt: skip
"""Fields that runs of the same task share. The learning rate is not among them: where most runs of
one rate fail, their median is no reference."""


BRIGHTNESS_BLIND = ("gms", "msgms")
"""Metrics of gradients alone. A network that learned from them may have the wrong brightness
everywhere, so its squared error says nothing, neither about itself nor as a reference."""


def mark_stuck(results: Sequence[Result]) -> list[Result]:
    """The results, each with an added "stuck": whether the run learned nothing.

    It did if its mean squared error on normal test images is more than `FACTOR` times the median of
    all runs of the same task, or more than that of the mean training image. The second holds even
    where most runs of a task are stuck; lines of earlier versions lack the figure. Runs with a
    BRIGHTNESS_BLIND metric are never marked.
    """
    errors: dict[tuple[object, ...], list[float]] = {}
    for result in results:
        if "failed" not in result and not _blind(result):
            errors.setdefault(_task(result), []).append(result["error_normal"]["mse"])
    usual = {task: float(np.median(values)) for task, values in errors.items()}

    def stuck(result: Result) -> bool:
        if _blind(result):
            return False
        limit = min(FACTOR * usual[_task(result)], result.get("error_mean_image", np.inf))
        return bool(result["error_normal"]["mse"] > limit)

    return [
        result if "failed" in result else result | {"stuck": stuck(result)} for result in results
    ]


def _blind(result: Result) -> bool:
    return spec_of(result).metric in BRIGHTNESS_BLIND


def _task(result: Result) -> tuple[object, ...]:
    return tuple(result[name] for name in SAME_TASK)


def is_stuck(result: Result) -> float:
    """1 for a stuck run, 0 for any other; the mean of this figure is the fraction of stuck runs."""
    return float(result["stuck"])


def stuck_share(results: Sequence[Result]) -> Difference:
    """The fraction of stuck runs with its interval, as the difference of each run from 0.

    Like any other difference it resamples whole classes or seeds. Runs of the same class are
    similar, because some classes are traps and others are not, so an interval for independent runs
    would be too narrow.
    """
    pairs = [Pair(each["normal_class"], each["seed"], 0.0, is_stuck(each)) for each in results]
    return compare(sorted(pairs, key=lambda pair: (str(pair.normal_class), pair.seed)))
