"""The contents of a run folder, as the parts of a report need them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from uad.data import GOOD
from uad.run_folder import EVALUATION, EXAMPLES, RunFolderError, read_metrics
from uad.threshold import DEFAULT_RATE, Threshold, choose_threshold
from uad.wording import rounded

Arrays = dict[str, NDArray[Any]]

EXAMPLE_ARRAYS = ("kinds", "originals")
EVALUATION_ARRAYS = ("kinds", "scores", "reconstructions", "maps")
"""What the files of a run have had since the first version."""


@dataclass(frozen=True)
class Run:
    """The contents of a run folder."""

    metrics: dict[str, Any]
    examples: Arrays
    evaluations: dict[str, Arrays]

    @property
    def arms(self) -> dict[str, Any]:
        """The results of each training loss."""
        arms: dict[str, Any] = self.metrics["arms"]
        return arms

    @property
    def baselines(self) -> dict[str, Any]:
        """The evaluation of each baseline; empty for a run of an older version."""
        found: dict[str, Any] = self.metrics.get("baselines") or {}
        return found

    @property
    def scores(self) -> Arrays:
        """The scores of the test images, (M,) for each arm."""
        return {arm: arrays["scores"] for arm, arrays in self.evaluations.items()}

    @property
    def kinds(self) -> NDArray[np.str_]:
        """The kind of each test image, (M,)."""
        return next(iter(self.evaluations.values()))["kinds"]

    @property
    def anomalous(self) -> NDArray[np.bool_]:
        """Which of the test images are anomalous, (M,)."""
        marks: NDArray[np.bool_] = self.kinds != GOOD
        return marks

    @property
    def good_only(self) -> bool:
        """Whether all test images are normal."""
        return not self.anomalous.any()

    @property
    def rate(self) -> float:
        """The false-positive rate asked for."""
        return float(self.metrics["config"].get("false_positive_rate") or DEFAULT_RATE)

    @property
    def thresholds(self) -> dict[str, Threshold]:
        """The threshold of each arm; empty without a normal test image."""
        if self.anomalous.all():
            return {}
        return {
            arm: choose_threshold(scores[~self.anomalous], self.rate)
            for arm, scores in self.scores.items()
        }

    @property
    def aurocs(self) -> dict[str, float]:
        """The image AUROC of each arm, rounded as it is shown; empty if it is undefined."""
        return image_aurocs({arm: each["evaluation"] for arm, each in self.arms.items()})

    @property
    def leaders(self) -> list[str]:
        """The arms with the highest image AUROC, more than one if they are equal as shown."""
        aurocs = self.aurocs
        return [arm for arm, value in aurocs.items() if value == max(aurocs.values())]

    def detected(self, arm: str) -> NDArray[np.bool_]:
        """Which test images score above the threshold, (M,)."""
        above: NDArray[np.bool_] = self.scores[arm] > self.thresholds[arm].value
        return above


def image_aurocs(evaluations: Mapping[str, Any]) -> dict[str, float]:
    """The image AUROC of each evaluation for which it is defined, rounded as it is shown."""
    return {
        name: rounded(each["image_auroc"])
        for name, each in evaluations.items()
        if each["image_auroc"] is not None
    }


def read_run(folder: Path) -> Run:
    """All files in the run folder that a report needs; RunFolderError naming a bad one."""
    metrics = read_metrics(folder)
    return Run(
        metrics,
        _read_arrays(folder / EXAMPLES, EXAMPLE_ARRAYS),
        {
            arm: _read_arrays(folder / arm / EVALUATION, EVALUATION_ARRAYS)
            for arm in metrics["arms"]
        },
    )


def _read_arrays(path: Path, needed: Sequence[str]) -> Arrays:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            arrays = dict(found)
    except (OSError, ValueError, TypeError, BadZipFile, zlib.error) as error:
        raise RunFolderError(f"{path}: cannot be read: {error}") from error
    for name in needed:
        if name not in arrays:
            raise RunFolderError(f"{path}: not written by train.py: it has no array {name}")
    return arrays
