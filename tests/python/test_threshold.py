"""Thresholds chosen from the scores of normal images."""

from __future__ import annotations

import numpy as np
import pytest
from uad.threshold import choose_threshold, normal_images


def test_the_threshold_keeps_its_false_positive_rate_on_new_images():
    rng = np.random.default_rng(0)
    wrong = []
    for _ in range(4000):
        scores = rng.exponential(size=20).astype(np.float32)
        wrong.append(scores[19] > choose_threshold(scores[:19], 0.1).value)
    # The 20 scores are exchangeable: exactly 2 of their 20 ranks are above the 18th of the 19.
    assert np.mean(wrong) == pytest.approx(0.1, abs=0.02)


def test_the_interval_contains_the_rate_of_most_thresholds():
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(2000):
        chosen = choose_threshold(rng.uniform(size=40).astype(np.float32), 0.1)
        inside.append(chosen.low <= 1 - chosen.value <= chosen.high)  # uniform scores
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


def test_the_rate_is_met_exactly_when_there_are_enough_normal_images():
    for rate in (0.5, 0.1, 0.05, 0.01):
        enough = normal_images(rate)
        chosen = choose_threshold(np.arange(enough), rate)
        assert chosen.met
        assert chosen.rate == pytest.approx(rate)
        assert chosen.value == enough - 1
        if enough > 1:
            short = choose_threshold(np.arange(enough - 1), rate)
            assert not short.met
            assert short.value == enough - 2
            assert short.rate == pytest.approx(1 / enough)
    assert choose_threshold(np.arange(100), 0.05).value == 95


@pytest.mark.parametrize(
    ("scores", "rate", "message"),
    [
        ([], 0.1, "at least one normal image"),
        ([1.0, float("nan")], 0.1, "finite"),
        ([1.0], 0.0, "between 0 and 1, got 0"),
        ([1.0], 1.0, "between 0 and 1, got 1"),
    ],
)
def test_no_threshold_without_scores_or_a_rate(scores, rate, message):
    with pytest.raises(ValueError, match=message):
        choose_threshold(scores, rate)
