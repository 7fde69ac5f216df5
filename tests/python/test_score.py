"""score.py on a folder of images: threshold, table, heat maps, errors."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image
from uad.cli import score, train
from uad.data.images import read_image


@pytest.fixture(scope="module")
def checkpoint(image_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "stripes"
    arguments = [
        *("--data", "folder", "--root", str(image_root), "--size", "32", "--lr", "0.01"),
        *("--epochs", "20", "--batch-size", "10", "--width", "4", "--latent", "2"),
        *("--loss", "mse", "--device", "cpu", "--out", str(folder)),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "write_report", lambda folder: None)  # no test looks at the figures
        assert train.main(arguments) == 0
    return folder / "mse" / "checkpoint.pt"


def rows(folder):
    with (folder / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_defects_score_above_the_threshold(checkpoint, image_root, tmp_path, capsys):
    code = score.main(
        [
            *(str(checkpoint), str(image_root / "test" / "block"), "--out", str(tmp_path)),
            *("--normal", str(image_root / "test" / "good"), "--false-positive-rate", "0.2"),
        ]
    )
    assert code == 0
    found = rows(tmp_path)
    assert [row["anomalous"] for row in found] == ["yes"] * 4
    scores = [float(row["score"]) for row in found]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > float(found[0]["threshold"]) > 0
    assert "4 images, 4 anomalous" in capsys.readouterr().out


def test_a_heat_map_is_brightest_at_the_defect(checkpoint, image_root, tmp_path):
    images = image_root / "test" / "block"
    assert score.main([str(checkpoint), str(images), "--out", str(tmp_path)]) == 0
    assert "anomalous" not in rows(tmp_path)[0]
    for path in images.iterdir():
        heat = np.asarray(read_image(tmp_path / "maps" / f"{path.name}.png").convert("L"), float)
        truth = image_root / "ground_truth" / "block" / f"{path.stem}_mask.png"
        mask = np.asarray(read_image(truth))
        assert heat.shape == mask.shape
        assert heat[mask > 0].mean() > 2 * heat[mask == 0].mean()


def test_heat_maps_have_the_size_of_the_image(checkpoint, tmp_path):
    Image.new("RGB", (40, 70), (90, 20, 20)).save(tmp_path / "tall.png")
    assert score.main([str(checkpoint), str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert read_image(tmp_path / "out" / "maps" / "tall.png.png").size == (40, 70)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint": "missing.pt"}, "missing.pt: no such file"),
        ({"images": "nowhere"}, "nowhere: no such file or folder"),
        ({"extra": ["--false-positive-rate", "0.1"]}, "requires --normal"),
        ({"extra": ["--normal", "{good}"]}, "at least 19 normal images, got 4"),
        ({"extra": ["--normal", "{good}", "--false-positive-rate", "1"]}, "must be below 1"),
    ],
)
def test_bad_arguments_are_errors_before_any_file(
    checkpoint, image_root, tmp_path, capsys, change, message
):
    good = str(image_root / "test" / "good")
    extra = [text.format(good=good) for text in change.get("extra", [])]
    arguments = [change.get("checkpoint", str(checkpoint)), change.get("images", good)]
    assert score.main([*arguments, "--out", str(tmp_path / "out"), *extra]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_path_that_is_no_checkpoint_is_named_with_what_to_pass(
    checkpoint, image_root, tmp_path, capsys
):
    loss_folder = checkpoint.parent
    run_folder = loss_folder.parent
    for path, message in [
        (run_folder, f"{run_folder}: is a folder; pass {run_folder}/<loss>/checkpoint.pt"),
        (loss_folder, f"{loss_folder}: is a folder; pass {checkpoint}"),
        (
            run_folder / "metrics.json",
            f"{run_folder}/metrics.json: not a checkpoint; pass <run folder>/<loss>/checkpoint.pt",
        ),
    ]:
        assert score.main([str(path), str(image_root), "--out", str(tmp_path / "out")]) == 2
        assert capsys.readouterr().err == f"score.py: error: {message}\n"


def test_help_says_how_many_normal_images_the_default_rate_requires():
    text = " ".join(score.build_parser().format_help().split())
    assert "(default: 0.05, which requires at least 19 normal images)" in text


def test_a_checkpoint_outside_a_run_folder_is_an_error(checkpoint, image_root, tmp_path, capsys):
    stray = tmp_path / "x" / "checkpoint.pt"
    stray.parent.mkdir()
    stray.write_bytes(checkpoint.read_bytes())
    arguments = [str(stray), str(image_root / "test" / "good"), "--out", str(tmp_path / "out")]
    assert score.main(arguments) == 2
    assert "metrics.json: cannot be read" in capsys.readouterr().err
