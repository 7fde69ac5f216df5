"""Thresholds in a report: who is above them, and the pictures of the mistakes."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from run_files import Reader, make_data, make_run, plain
from uad.data import GOOD
from uad.report.decision import confusion_table, decision, mistakes
from uad.report.page import write_scores
from uad.report.run import read_run
from uad.report.text import summary
from uad.threshold import MARGIN
from uad.wording import float32_text

# Of 20 images each. A rate of 10% allows one normal image above the threshold, which is then 19.
SCORES = [
    *range(1, 21),  # good
    *range(10, 30),  # hole: 10 of them are missed, and one of these has a score of 19
    *range(0, 40, 2),  # stain: 10 are missed
]


@pytest.fixture(scope="module")
def data():
    return make_data(each=20, masks="some")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("decision") / "run"
    return read_run(make_run(folder, ["mse"], data, scores=SCORES, false_positive_rate=0.1))


def cards(html):
    """Name, kind and score of each picture, in order."""
    pattern = r"<figcaption><b>(.*?)</b><br>(.*?), score (\S+) (\S+) (\S+)</figcaption>"
    return re.findall(pattern, html)


def test_the_confusion_table_adds_up(run):
    assert plain(confusion_table(run, "mse")).endswith(
        "kind images above threshold at or below mistakes "
        "hole 20 10 10 10 missed "
        "stain 20 10 10 10 missed "
        "all defects 40 20 20 20 missed "
        "good 20 1 19 1 false alarm"
    )


def shown(run):
    """The threshold, just above 19, as the page shows it."""
    return float32_text(run.thresholds["mse"].value)


def test_a_score_equal_to_the_threshold_is_normal(run):
    assert run.thresholds["mse"].value == pytest.approx(19, rel=2 * MARGIN)
    equal = run.scores["mse"] == 19
    assert sorted(run.kinds[equal]) == [GOOD, "hole"]
    assert not run.detected("mse")[equal].any()
    assert run.detected("mse")[run.scores["mse"] > 19].all()


def test_the_threshold_and_what_it_promises(run):
    text = plain(decision(run))
    assert (
        "a false-positive rate of 10% (--false-positive-rate) from the scores of 20 normal" in text
    )
    assert (
        "Expect 9.5% of new normal images, taken under the same conditions, to exceed it." in text
    )
    assert "anywhere from 1.2% to 24.9% (95% interval)" in text
    assert f"mse {shown(run)} 20 of 40 (50.0%) 1 of 20 (5.0%)" in text
    assert "requires at least" not in text
    assert "decision: mse/scores.csv ." in text


def test_the_worst_mistakes_by_name(run):
    html = mistakes(run, "mse")
    text = plain(html)
    assert "The worst 6 of 20 missed images: the lowest scores of all anomalous images" in text
    assert "1 false alarm: the highest scores of all normal images" in text
    found = cards(html)
    assert [name for name, *_ in found] == [
        *(f"stain/{place:03}.png" for place in range(5)), "hole/000.png", "good/019.png",
    ]  # fmt: skip
    assert found[0][1:] == ("stain", "0.0", "\u2264", shown(run))
    assert found[1][1:] == ("stain, no mask", "2.0", "\u2264", shown(run))
    assert found[-1][1:] == (GOOD, "20.0", ">", shown(run))


def test_each_picture_shows_the_image_with_its_name(run, data):
    html = mistakes(run, "mse")
    pictures = Reader(html).files("jpeg")
    names = [name for name, *_ in cards(html)]
    assert len(pictures) == len(names) == 7
    originals = data.test[:, 0].numpy().astype(float)
    for name, content in zip(names, pictures, strict=True):
        with Image.open(io.BytesIO(content)) as image:
            side = image.height
            left = image.convert("L").crop((0, 0, side, side)).resize((32, 32))
        distances = np.abs(originals - np.asarray(left)).mean(axis=(1, 2))
        assert data.files[distances.argmin()] == name
        assert distances.min() < 5


def test_no_mistake_at_all(tmp_path):
    scores = [*range(6), *range(10, 22)]
    run = read_run(make_run(tmp_path / "run", ["mse"], scores=scores))
    html = mistakes(run, "mse")
    assert "No anomalous image is missed; these have the lowest scores" in html
    assert "No normal image is a false alarm; these have the highest scores" in html
    names = [name for name, *_ in cards(html)]
    assert names == [f"hole/{place:03}.png" for place in range(6)] + [
        f"good/{place:03}.png" for place in (5, 4, 3, 2, 1, 0)
    ]
    assert "0 false alarms" in plain(confusion_table(run, "mse"))


def test_the_best_loss_is_shown_first_and_open(tmp_path):
    run = read_run(make_run(tmp_path / "run"))
    for values, auroc in zip(run.arms.values(), (0.5, 0.9), strict=True):
        values["evaluation"]["image_auroc"] = auroc
    summaries = re.findall(r"<details(.*?)><summary><b>(.*?)</b>: (.*?)</summary>", decision(run))
    assert [(opened, arm) for opened, arm, _ in summaries] == [
        (" open", "amplified-mse"), ("", "mse"),
    ]  # fmt: skip
    for _, arm, text in summaries:
        found = run.detected(arm)
        assert (
            text == f"{found[run.anomalous].sum()} of 12 anomalous images detected, 0 false alarms"
        )


def test_normal_images_alone(tmp_path):
    data = make_data(kinds=[GOOD], each=20, held_out=20)
    run = read_run(make_run(tmp_path / "run", ["mse"], data, false_positive_rate=0.1))
    text = plain(decision(run))
    assert "good 20 1 19 1 false alarm 1 false alarm:" in text
    assert "normal test images (all of them held out from the training images)" in text
    assert "All of the normal ones were held out" in plain(summary(run.metrics))
    for absent in ("detected", "missed", "all defects", "ground truth", "anomalous images"):
        assert absent not in text


def test_anomalous_images_alone_have_no_threshold(tmp_path):
    run = read_run(make_run(tmp_path / "run", ["mse"], make_data(kinds=["hole"])))
    assert decision(run) == ""


def test_too_few_normal_images_are_said_at_the_threshold(tmp_path):
    text = plain(decision(read_run(make_run(tmp_path / "run", ["mse"]))))
    assert "are too few for a false-positive rate of 5%, which requires at least 19: the" in text


def test_scores_of_an_older_version_have_no_names_and_no_pictures(run):
    arrays = dict(run.evaluations["mse"])
    older = replace(run, evaluations={"mse": arrays})
    del arrays["files"]
    assert cards(mistakes(older, "mse"))[0][0] == "test image 40"
    assert "scores.csv" not in decision(older)
    del arrays["extreme_indices"]
    assert mistakes(older, "mse") == ""
    assert "all defects 40 20 20" in plain(decision(older))


def test_the_csv_file_agrees_with_the_table(run, data, tmp_path):
    (tmp_path / "mse").mkdir()
    write_scores(run, tmp_path)
    text = (tmp_path / "mse" / "scores.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["file"]: float(row["score"]) for row in rows} == dict(
        zip(data.files, SCORES, strict=True)
    )
    counts = {
        kind: sum(row["decision"] == "anomalous" for row in rows if row["kind"] == kind)
        for kind in (GOOD, "hole", "stain")
    }
    assert counts == {GOOD: 1, "hole": 10, "stain": 10}
