"""What a study's page says, beyond the differences themselves."""

from __future__ import annotations

import numpy as np
import pytest
from study_lines import result
from uad.study.questions import comparisons
from uad.study.stuck import SAME_TASK, mark_stuck
from uad.study.tables import stuck_table

BLACK = {"mse": 0.2, "l1": 0.3, "ssim": 0.4}


def stuck(line):
    return line | {"error_normal": BLACK}


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
