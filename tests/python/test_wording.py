"""Figures in words: what rounding may do to them, and what it may not."""

from __future__ import annotations

import numpy as np
import pytest
from uad.wording import (
    asked_percent,
    bold,
    counted,
    float32_text,
    four_digits,
    listing,
    percent,
    rounded,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.1235"), (1, "1.0000"), (-0.00001, "0.0000"), (-0.1, "-0.1000")],
)
def test_four_digits(value, text):
    assert four_digits(value) == text


def test_rounded_figures_compare_like_their_texts():
    values = np.random.default_rng(0).uniform(0.9, 0.9004, 200)
    for one, other in zip(values, values[::-1], strict=True):
        assert (rounded(one) == rounded(other)) == (four_digits(one) == four_digits(other))
        assert (rounded(one) > rounded(other)) == (four_digits(one) > four_digits(other))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0%"), (1, "100%"), (0.123, "12.3%"), (0.04, "4.0%"), (0.00084, "0.08%"),
        (0.00001, "0.001%"), (1e-9, "< 0.0001%"), (0.9996, "> 99.9%"), (0.9984, "99.8%"),
    ],
)  # fmt: skip
def test_no_percentage_is_rounded_to_none_or_all(value, text):
    assert percent(value) == text


def test_a_chosen_rate_keeps_its_digits():
    assert [asked_percent(rate) for rate in (0.05, 0.0025, 0.07, 1 / 3)] == [
        "5%", "0.25%", "7%", "33.3333%",
    ]  # fmt: skip


def test_a_score_as_text_is_the_same_float32():
    scores = np.random.default_rng(0).random(1000, dtype=np.float32)
    assert (np.array([float32_text(score) for score in scores]).astype(np.float32) == scores).all()
    assert float32_text(float(np.float32(0.1))) == "0.1"


def test_counts_lists_and_names():
    assert [counted(count, "image") for count in (0, 1, 1200)] == [
        "0 images", "1 image", "1,200 images",
    ]  # fmt: skip
    assert [listing("abc"[:count]) for count in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert bold("<l1>") == "<b>&lt;l1&gt;</b>"
