"""scores.csv of a loss: the score of every test image and what the threshold makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uad.csv_text import csv_text
from uad.threshold import Threshold, decision
from uad.wording import float32_text

SCORES = "scores.csv"
HEADS = ("file", "kind", "score", "threshold", "decision")


def scores_csv(
    files: Sequence[str],
    kinds: Sequence[str],
    scores: NDArray[np.float32],
    threshold: Threshold | None,
) -> str:
    """One line per test image, the most anomalous first.

    Scores and threshold have as many digits as float32 needs, so comparing them gives the decision.
    Without a threshold, these cells and the decision are empty.
    """

    def row(index: int) -> list[Any]:
        score = scores[index]
        start = [files[index], kinds[index], float(float32_text(score))]
        if threshold is None:
            return [*start, "", ""]
        limit = threshold.value
        return [*start, float(float32_text(limit)), decision(score, limit)]

    return csv_text(HEADS, map(row, np.argsort(-scores, kind="stable").tolist()))
