"""Thresholds chosen from the scores of normal images."""

from __future__ import annotations

import numpy as np
import pytest
from uad.threshold import MARGIN, choose_threshold, normal_images


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
        assert chosen.value == pytest.approx(enough - 1, rel=2 * MARGIN)
        if enough > 1:
            short = choose_threshold(np.arange(enough - 1), rate)
            assert not short.met
            assert short.value == pytest.approx(enough - 2, rel=2 * MARGIN)
            assert short.rate == pytest.approx(1 / enough)
    assert choose_threshold(np.arange(100), 0.05).value == pytest.approx(95, rel=2 * MARGIN)
    assert 940 <= choose_threshold(np.arange(999), 0.059).value < 941


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


@pytest.mark.parametrize("scale", [1e-6, 1.0, -3.0, 1e5])
def test_the_score_at_the_threshold_stays_below_it_despite_rounding(scale):
    scores = np.sort(scale * np.linspace(1, 2, 19)).astype(np.float32)
    for count in (19, 18):  # the highest score, and one with others above it
        chosen = choose_threshold(scores, 1 - count / 20)
        admitted = scores[count - 1]
        assert admitted + 2e-6 * abs(admitted) < chosen.value
        assert (scores > chosen.value).sum() == 19 - count
        assert np.float32(chosen.value) == chosen.value


def test_neighboring_scores_stay_apart():
    low = np.float32(0.1)
    high = np.nextafter(low, np.float32(1))
    chosen = choose_threshold([low, high], 0.7)
    assert low <= chosen.value < high
    assert choose_threshold([0.0, 0.0, 0.0], 0.5).value == 0.0
