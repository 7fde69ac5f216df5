"""The tables that the terminal shows."""

from __future__ import annotations

import json

import pytest
from run_files import make_data, make_run
from uad.data import GOOD
from uad.results_table import number, results_table


def lines_of(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    return metrics, results_table(metrics).splitlines()


def test_losses_then_baselines_then_kinds(tmp_path):
    metrics, lines = lines_of(make_run(tmp_path / "run"))
    assert lines[0].split("  ")[0] == "loss"
    assert [line.split("  ")[0] for line in lines[1:6] if set(line) != {"-"}] == [
        "mse", "amplified-mse", "baseline: mean image", "baseline: blurred copy",
    ]  # fmt: skip
    assert set(lines[3]) == {"-"}
    evaluation = metrics["baselines"]["mean image"]
    assert lines[4].split()[3:] == [
        *(f"{evaluation[key]:.4f}" for key in ("image_auroc", "pixel_auroc", "aupro", "image_ap")),
        f"{evaluation['psnr_normal']:.2f}", "-", "-",
    ]  # fmt: skip
    assert lines[7] == "image AUROC by kind of defect"
    hole = [metrics["arms"][loss]["evaluation"] for loss in metrics["arms"]]
    hole += metrics["baselines"].values()
    assert lines[9].split() == [
        "hole", *(f"{each['per_kind']['hole']['image_auroc']:.4f}" for each in hole),
    ]  # fmt: skip


def test_a_run_of_an_older_version_has_no_baselines(tmp_path):
    metrics, _ = lines_of(make_run(tmp_path / "run"))
    del metrics["baselines"]
    shorter = results_table(metrics).splitlines()
    assert "baseline" not in "".join(shorter)
    assert not any(set(line) == {"-"} for line in shorter)


def test_normal_images_alone_have_no_columns_of_detection(tmp_path):
    _, lines = lines_of(make_run(tmp_path / "run", ["mse"], make_data(kinds=[GOOD])))
    assert lines[0].split() == [
        "loss",
        "PSNR",
        "normal",
        "s/step",
        "loss",
        "time",
        "/",
        "step",
        "time",
    ]
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (float("nan"), "-"), (float("inf"), "-"), (0.5, "0.50")]
)
def test_a_figure_that_is_not_a_number_is_a_dash(value, text):
    assert number(value, ".2f") == text
