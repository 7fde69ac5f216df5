"""Figures of the report: what bars and lines show."""

from __future__ import annotations

import numpy as np
import pytest
from uad.figures import score_histograms


@pytest.mark.parametrize("scale", [1.0, 100.0])  # bins of equal width, and of equal ratio
def test_no_bar_of_the_histogram_crosses_the_threshold(scale):
    scores = np.geomspace(1, 5 * scale, 60)
    threshold = float(scores[40]) * 1.00001
    figure = score_histograms({"mse": scores}, np.arange(60) >= 30, {"mse": threshold})
    (axes,) = figure.axes
    bars = [bar for bars in axes.containers for bar in bars if bar.get_height()]
    ends = np.array([(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars])
    assert ((ends[:, 1] <= threshold * (1 + 1e-9)) | (ends[:, 0] >= threshold * (1 - 1e-9))).all()
    share = sum(bar.get_height() for bar, (left, _) in zip(bars, ends, strict=True)
                if left >= threshold * (1 - 1e-9))  # fmt: skip
    assert share == pytest.approx(19 / 30)
