"""From a factory's folder to a decision: train, score and export together."""

from __future__ import annotations

import csv
import json
from html import unescape

import factory
import pytest
import torch
from uad.cli import export, score, train
from uad.data.images import prepare
from uad.detector import load_detector

TINY = (
    *("--data", "folder", "--size", "32", "--loss", "mse", "--epochs", "2", "--batch-size", "8"),
    *("--width", "4", "--latent", "2", "--device", "cpu", "--threads", "1"),
)


def run_train(root, out, *options):
    return train.main([*TINY, "--root", str(root), "--out", str(out), *options])


def read_table(path):
    with path.open(newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def metrics_of(run):
    return json.loads((run / "metrics.json").read_text())


@pytest.fixture(scope="module")
def rings(tmp_path_factory):
    """A folder with every nuisance except for broken files."""
    return factory.spoil(factory.make(tmp_path_factory.mktemp("data") / "rings"))


@pytest.fixture(scope="module")
def run(rings, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "rings"
    assert run_train(rings, out, "--false-positive-rate", "0.3") == 0
    return out


@pytest.fixture
def photos(rings, tmp_path):
    """The test images, to which a broken one is added."""
    folder = tmp_path / "photos"
    for path in sorted((rings / "test").glob("[a-z]*/[0-9]*.png")):
        to = folder / path.relative_to(rings / "test")
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(path.read_bytes())
    (folder / "dent" / "cut.png").write_bytes((folder / "dent" / "000.png").read_bytes()[:100])
    return folder


def test_training_says_what_it_found(rings, tmp_path, capsys):
    assert run_train(rings, tmp_path / "run", "--epochs", "1") == 0
    first = capsys.readouterr().out.splitlines()[0]
    for part in (
        "rings: 33 normal for training, 8 normal and 12 defective (dent 6, scratch 6) for testing, "
        "11 with masks",
        "skipped 2 .txt, 4 hidden files, 4 hidden folders",
        "8-bit gray",
        "stretched to 32x32",
        "cpu, 1 thread",
        f"out {tmp_path / 'run'}",
    ):
        assert part in first
    report = unescape((tmp_path / "run/report.html").read_text(encoding="utf-8"))
    assert "Masks: 11 of 12 anomalous images" in report


def test_broken_files_are_listed_and_then_left_out(tmp_path, capsys):
    root = factory.make(tmp_path / "rings", train=12, good=4, defects=3)
    broken = factory.break_files(root)
    assert run_train(root, tmp_path / "run") == 2
    listed = capsys.readouterr().err
    assert all(path.name in listed for path in broken)
    assert "--skip-bad" in listed
    assert not (tmp_path / "run" / "metrics.json").exists()

    assert run_train(root, tmp_path / "run", "--skip-bad") == 0
    data = metrics_of(tmp_path / "run")["data"]
    assert (data["train"], data["test_normal"], data["test_anomalous"]) == (10, 3, 6)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_score_repeats_the_decisions_of_the_report(run, photos, batch_size, tmp_path, capsys):
    out = tmp_path / "scores"
    options = [str(run / "mse" / "checkpoint.pt"), str(photos), "--out", str(out)]
    options += ["--device", "cpu", "--batch-size", str(batch_size)]
    assert score.main(options) == 1
    assert "cut.png" in capsys.readouterr().err
    scored, reported = read_table(out / "scores.csv"), read_table(run / "mse" / "scores.csv")
    assert scored.pop("dent/cut.png")["decision"] == "error"
    assert scored.keys() == reported.keys()
    for name, row in scored.items():
        assert row["decision"] == reported[name]["decision"], name
        assert float(row["threshold"]) == float(reported[name]["threshold"])
        assert float(row["score"]) == pytest.approx(float(reported[name]["score"]), rel=1e-5)
    assert {row["decision"] for row in scored.values()} == {"normal", "anomalous"}


def test_the_exported_file_repeats_them_too(run, rings):
    assert export.main([str(run), "--format", "torch"]) == 0
    preparation = load_detector(run / "mse" / "checkpoint.pt").preparation
    network = torch.export.load(run / "mse" / "network.pt2").module()
    for name, row in read_table(run / "mse" / "scores.csv").items():
        image = prepare(rings / "test" / name, preparation)[None] / 255
        with torch.no_grad():
            _, value = network(image)
        assert value.item() == pytest.approx(float(row["score"]), rel=1e-5)


def test_a_12_bit_camera_is_as_good_as_an_8_bit_one(tmp_path, capsys):
    """Levels up to 4095 in 16-bit files are not sixteen shades of gray."""
    found, scores = {}, {}
    for bits in (8, 12):
        root, out = tmp_path / f"data{bits}" / "rings", tmp_path / f"run{bits}"
        factory.make(root, train=12, good=4, defects=3, bits=bits)
        # Bits from the levels alone: the brightest pixel of all is below white.
        assert run_train(root, out, "--fit", "pad") == 0
        found[bits] = capsys.readouterr().out.splitlines()[0]
        scores[bits] = read_table(out / "mse" / "scores.csv")
    assert "12-bit" in found[12]
    for name, row in scores[8].items():
        assert float(scores[12][name]["score"]) == pytest.approx(float(row["score"]), rel=0.02)

    checkpoint = tmp_path / "run12/mse/checkpoint.pt"
    photo = tmp_path / "data12/rings/test/dent/000.png"
    out = tmp_path / "scores"
    assert score.main([str(checkpoint), str(photo), "--out", str(out), "--device", "cpu"]) == 0
    (row,) = read_table(out / "scores.csv").values()
    assert float(row["score"]) == pytest.approx(
        float(scores[12]["dent/000.png"]["score"]), rel=1e-5
    )


def test_good_images_alone_give_a_threshold(tmp_path, capsys):
    root = factory.make(tmp_path / "rings", train=30, good=0, defects=0)
    assert run_train(root, tmp_path / "run") == 0
    assert "24 normal for training" in capsys.readouterr().out.splitlines()[0]
    report = unescape((tmp_path / "run/report.html").read_text(encoding="utf-8"))
    assert "This run cannot tell how well defects are detected" in report
    assert "What is needed to measure detection" in report

    parts = factory.make(tmp_path / "new", train=0, good=2, defects=1)
    out = tmp_path / "scores"
    checkpoint = tmp_path / "run/mse/checkpoint.pt"
    options = [str(checkpoint), str(parts / "test"), "--out", str(out), "--device", "cpu"]
    assert score.main(options) == 0
    rows = read_table(out / "scores.csv")
    threshold = load_detector(checkpoint).threshold()
    assert threshold is not None
    assert len(rows) == 4
    for row in rows.values():
        anomalous = float(row["score"]) > threshold.value
        assert row["decision"] == ("anomalous" if anomalous else "normal")
