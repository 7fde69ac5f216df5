"""The change of a loss at the end of a training, for losses whose change is known."""

from __future__ import annotations

import pytest
from uad.report.convergence import epochs_used, trend


@pytest.mark.parametrize("factor", [0.5, 0.97, 1.0, 1.03])
@pytest.mark.parametrize("epochs", [3, 12, 40])
def test_trend_of_a_loss_that_changes_by_the_same_factor(factor, epochs):
    assert trend([0.3 * factor**epoch for epoch in range(epochs)]) == pytest.approx(factor - 1)


def test_only_the_last_quarter_counts():
    assert trend([0.5**epoch for epoch in range(30)] + 10 * [0.5**30]) == pytest.approx(0)
    assert trend(30 * [1.0] + [0.9**epoch for epoch in range(10)]) == pytest.approx(-0.1)


def test_noise_averages_out():
    losses = [0.98**epoch * (1.05 if epoch % 2 else 0.95) for epoch in range(80)]
    assert trend(losses) == pytest.approx(-0.02, abs=0.002)


@pytest.mark.parametrize("losses", [[], [0.5], [0.5, 0.4], [0.5, 0.4, 0.0], [0.5, 0.4, 0.3, -0.1]])
def test_no_trend_of_few_epochs_or_of_a_loss_that_is_not_positive(losses):
    assert trend(losses) is None


def test_epochs_used():
    assert [epochs_used(count) for count in (1, 3, 12, 13, 40)] == [3, 3, 3, 4, 10]
