"""What a study's page says, beyond the differences themselves."""

from __future__ import annotations

import numpy as np
import pytest
from study_lines import result
from uad.study import cli
from uad.study.questions import comparisons
from uad.study.results import ResultsFile
from uad.study.stuck import SAME_TASK, mark_stuck
from uad.study.tables import stuck_table

BLACK = {"mse": 0.2, "l1": 0.3, "ssim": 0.4}


def stuck(line):
    return line | {"error_normal": BLACK}


AUROC = {"mse top 1 %": 0.8}


def publish(path, lines):
    """The page of a results file with these lines."""
    with ResultsFile(path) as file:
        for line in lines:
            file.append(line)
    assert cli.main(["publish", str(path)]) == 0
    return (path.parent / "conclusions.md").read_text()


def numbers(interval):
    return [float(value) for value in interval.replace(" %", "").split(" to ")]


# --- stuck runs ---------------------------------------------------------------------------------


def test_the_share_of_stuck_runs_is_of_classes_and_so_is_its_paired_difference():
    """All five seeds of four classes in ten are traps: four pieces of evidence, not twenty."""
    lines = []
    for normal_class in range(10):
        for seed in range(5):
            plain = result("l1", normal_class, seed)
            lines.append(stuck(plain) if normal_class < 4 else plain)
            lines.append(result("amplified-l1", normal_class, seed))
            lines += [result(loss, normal_class, seed) for loss in ("mse", "amplified-mse")]
    (group,) = comparisons(lines).values()
    (loss, count, share, interval), (name, pairs, change, its_interval) = stuck_table(group).rows
    assert (loss, count, share) == ("L1", "20 of 50", "40 %")
    low, high = numbers(interval)
    assert low <= 10  # of 50 independent runs it would be 26 to 55 %
    assert high >= 70
    assert (name, pairs, change) == ("amplified L1 minus L1", "50 pairs", "-40 %")
    assert numbers(its_interval) == [-high, -low]


@pytest.mark.parametrize(
    ("name", "values"),
    [("optimizer", ("adam", "sgd")), ("epochs", (1, 9)), ("size", (32, 64)), ("width", (4, 16))],
)
def test_runs_are_stuck_in_comparison_with_their_own_setting(name, values):
    """What is usual after one epoch is no measure of what is after nine."""
    assert name in SAME_TASK
    poor, good = values
    lines = [stuck(result("mse", 0, seed, **{name: poor})) for seed in range(3)]
    lines += [result("mse", 0, seed, **{name: good}) for seed in range(9)]
    assert not np.any([line["stuck"] for line in mark_stuck(lines)])


# --- names of settings ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["width", "epochs", "batch_size", "size", "latent", "optimizer"])
def test_settings_that_differ_in_anything_have_names_of_their_own(name, tmp_path):
    values = ["adam", "sgd"] if name == "optimizer" else [16, 64]
    lines = [
        result(loss, normal_class, auroc=0.8 + 0.01 * place, **{name: value})
        for place, value in enumerate(values)
        for normal_class in range(2)
        for loss in ("mse", "amplified-mse")
    ]
    page = publish(tmp_path / "study.jsonl", lines)
    settings = list(comparisons(lines))
    assert len({setting.slug for setting in settings}) == len(set(map(str, settings))) == 2
    for setting in settings:
        assert f"## {setting}\n" in page
        assert f"study-{setting.slug}.png" in page
        assert (tmp_path / f"study-{setting.slug}.png").exists()


def test_names_are_short_where_nothing_else_differs():
    lines = [result(loss, epochs=5) for loss in ("mse", "amplified-mse")]
    lines += [
        line | {"dataset": "textures", "normal_class": "brick", "epochs": 8, "image_auroc": AUROC}
        for line in lines
    ]
    assert [str(setting) for setting in comparisons(lines)] == [
        "Fashion-MNIST, code of 16 channels, Adam", "Textures, code of 16 channels, Adam",
    ]  # fmt: skip
