"""The figures of a run by which losses are compared."""

from __future__ import annotations

import math

from uad.study.experiment import SCORES
from uad.study.statistics import Measure, Result

FIGURES = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "aupro": "AUPRO",
}


def by_score(figure: str, score: str) -> Measure:
    """The measure of a figure of merit under one of the scores."""
    return lambda result: result.get(figure, {}).get(score)


def primary(dataset: str) -> Measure:
    """The measure that counts most: image AUROC under the primary score."""
    return by_score("image_auroc", primary_score(dataset))


def primary_score(dataset: str) -> str:
    """The name of the score that was chosen before any run."""
    return next(iter(SCORES[dataset]))


def log_error(side: str, metric: str) -> Measure:
    """Logarithm of a mean error, so that differences are relative changes.

    side: "normal" or "anomalous".
    """
    return lambda result: _log(result[f"error_{side}"][metric])


def log_contrast(metric: str) -> Measure:
    """Logarithm of the ratio of the errors, anomalous over normal images."""

    def measure(result: Result) -> float | None:
        anomalous, normal = (log_error(side, metric)(result) for side in ("anomalous", "normal"))
        return None if anomalous is None or normal is None else anomalous - normal

    return measure


def _log(value: float) -> float | None:
    """The logarithm; None for 0, an error of reconstructions that are exact."""
    return math.log(value) if value > 0 else None
