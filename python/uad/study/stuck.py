"""Trainings that have learnt nothing, such as networks that paint every image black.

The median of a pixel that is mostly dark is dark: under an absolute error a black picture is a
trap that a network may never leave. One such run changes an AUROC by more than all else, so a study
counts them, and says what is left of a difference without them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from uad.study.statistics import Difference, Pair, Result, compare

FACTOR = 3.0
"""Of the usual error of normal images. Between the trainings that learn and those that do not lies
a gap much wider than their own spread, so the number hardly matters."""

SAME_TASK = (
    "dataset", "normal_class", "optimizer", "epochs", "size", "width", "latent",
)  # fmt: skip
"""Without the learning rate: where most runs of a rate break, their own median is no measure."""


def mark_stuck(results: Sequence[Result]) -> list[Result]:
    """The results, each with "stuck": whether its training has learnt nothing.

    That is so if the mean squared error of normal test images is more than `FACTOR` times its
    median over all runs of the same task.
    """
    errors: dict[tuple[object, ...], list[float]] = {}
    for result in results:
        if "failed" not in result:
            errors.setdefault(_task(result), []).append(result["error_normal"]["mse"])
    usual = {task: float(np.median(values)) for task, values in errors.items()}
    return [
        result
        if "failed" in result
        else result | {"stuck": result["error_normal"]["mse"] > FACTOR * usual[_task(result)]}
        for result in results
    ]


def _task(result: Result) -> tuple[object, ...]:
    return tuple(result[name] for name in SAME_TASK)


def is_stuck(result: Result) -> float:
    """1 for a run that is stuck, 0 for another: a figure whose mean is a share."""
    return float(result["stuck"])


def stuck_share(results: Sequence[Result]) -> Difference:
    """The share of stuck runs, from 0, with its interval: of whole classes or of seeds, as ever.

    Runs of a class are alike: some classes are traps and others are not, so an interval for
    independent runs would be too narrow.
    """
    return compare(
        [Pair(each["normal_class"], each["seed"], 0.0, is_stuck(each)) for each in results]
    )
