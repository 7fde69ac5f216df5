"""The files of an evaluation: which images they show, and what they hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from run_files import make_data
from uad.evaluation_files import (
    EXAMPLES,
    EXTREMES,
    choose_examples,
    choose_extremes,
    save_evaluation,
    save_examples,
)


def test_examples_show_every_kind_and_every_part_of_the_test_set():
    kinds = ["good"] * 180 + ["scratch"] * 60 + ["spot"] * 60 + ["dent"] * 60
    chosen = choose_examples(kinds)
    assert [kinds[index] for index in chosen] == [
        kind for kind in ("good", "dent", "scratch", "spot") for _ in range(3)
    ]
    assert [index // 60 for index in chosen[:3]] == [0, 1, 2]
    assert choose_examples(kinds) == chosen


def test_categories_take_turns_in_the_examples():
    # Three categories one after another, and two examples per kind.
    kinds = 3 * (60 * ["good"] + [f"kind {number}" for number in range(5) for _ in range(20)])
    categories = [index // 160 for index in choose_examples(kinds)]
    assert all(categories.count(category) >= 3 for category in range(3))


@pytest.mark.parametrize(
    ("kinds", "count"),
    [
        (["good"], 1),
        (["dent", "good", "dent"], 3),
        ([f"kind {number}" for number in range(40)] + ["good"], EXAMPLES),
        ([f"class {number % 9}" for number in range(900)] + ["good"] * 100, 10),
        (["good"] * 50, EXAMPLES),
        (["dent"] * 50, EXAMPLES),
    ],
)
def test_number_of_examples(kinds, count):
    chosen = choose_examples(kinds)
    assert len(set(chosen)) == len(chosen) == count
    if "good" in kinds:
        assert kinds[chosen[0]] == "good"


def test_extremes_are_the_likeliest_mistakes():
    kinds = 10 * ["dent"] + 10 * ["good"]
    scores = torch.arange(20.0).roll(3)
    chosen = choose_extremes(kinds, scores)
    assert scores[chosen].tolist() == [*range(6), 16, 15, 14, 13, 12, 11]
    assert [kinds[index] for index in chosen] == EXTREMES * ["dent"] + EXTREMES * ["good"]


def test_extremes_of_few_images():
    assert choose_extremes(["good", "dent", "good"], torch.tensor([1.0, 2.0, 3.0])) == [1, 2, 0]
    assert choose_extremes(["good"], torch.tensor([1.0])) == [0]
    assert choose_extremes(["dent"], torch.tensor([1.0])) == [0]


@pytest.mark.parametrize("masks", ["all", "some", "none"])
def test_files_contain_what_the_report_needs(masks, tmp_path):
    data = make_data(masks=masks)
    maps = torch.from_numpy(np.random.default_rng(0).random((18, 32, 32), dtype=np.float32))
    scores = maps.amax(dim=(1, 2)).flip(0)
    chosen, extremes = [0, 7, 13], choose_extremes(data.kinds, scores)
    save_examples(tmp_path / "examples.npz", data, chosen)
    save_evaluation(tmp_path / "evaluation.npz", 255 - data.test, maps, scores, data, chosen)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation.npz", "examples.npz"]

    with np.load(tmp_path / "examples.npz") as file:
        examples = dict(file)
    with np.load(tmp_path / "evaluation.npz") as file:
        evaluation = dict(file)
    assert examples["kinds"].tolist() == ["good", "hole", "stain"]
    assert examples["originals"].dtype == np.uint8
    np.testing.assert_array_equal(evaluation["scores"], scores)
    assert evaluation["kinds"].tolist() == list(data.kinds)
    assert evaluation["files"].tolist() == list(data.files)
    check_pictures(data, maps, chosen, examples, evaluation)
    extreme = {name.removeprefix("extreme_"): array for name, array in evaluation.items()
               if name.startswith("extreme_")}  # fmt: skip
    check_pictures(data, maps, extremes, extreme, extreme)


def check_pictures(data, maps, indices, pictures, results):
    """pictures: the arrays about the images. results: the arrays of the network."""
    assert pictures["indices"].tolist() == indices
    np.testing.assert_array_equal(pictures["originals"], data.test[indices])
    np.testing.assert_array_equal(results["reconstructions"], 255 - data.test[indices])
    np.testing.assert_array_equal(results["maps"], maps[indices])
    known = data.masks is not None
    assert ("masks" in pictures) == ("annotated" in pictures) == known
    if known:
        np.testing.assert_array_equal(pictures["masks"], data.masks[indices])
        np.testing.assert_array_equal(pictures["annotated"], data.annotated[indices])
