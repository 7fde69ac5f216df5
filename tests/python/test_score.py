"""score.py: threshold, table, overlays, report, warnings, and what it refuses."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from uad import threshold_words
from uad.cli import score
from uad.csv_text import escaped, unescaped
from uad.detector import load_detector
from uad.distributed import Processes
from uad.lock import only_writer
from uad.overlay import full_scale, overlay_name
from uad.scoring.arrivals import Arrivals
from uad.scoring.judge import TABLE, Judge
from uad.scoring.page import Session, page, tally
from uad.scoring.run import Run, ScoreOptions, by_first, find
from uad.scoring.stamp import Stamp, stamp_of
from uad.scoring.state import STATE, read_state
from uad.scoring.table import (
    COLUMNS,
    Row,
    Table,
    TableError,
    latest,
    printable,
    read_table,
)
from uad.scoring.watching import describe_row, finished
from uad.threshold import MARGIN, Threshold

PROGRAM = Path(score.__file__).parents[2] / "score.py"


@pytest.fixture(scope="module")
def checkpoint(trained_run):
    return trained_run / "mse" / "checkpoint.pt"


@pytest.fixture
def photos(image_root, tmp_path):
    """Six images in two subfolders, two of them defective."""
    folder = tmp_path / "photos"
    for line in ("line 1", "line 2"):
        (folder / line).mkdir(parents=True)
        for index in range(2):
            shutil.copy(image_root / "test/good" / f"0{index}.png", folder / line)
        shutil.copy(image_root / "test/block" / "00.png", folder / line / "bad.png")
    return folder


def edit_checkpoint(checkpoint, path, **entries):
    """A copy of the checkpoint with other entries in its description."""
    state = torch.load(checkpoint, weights_only=True)
    state["detector"] |= entries
    torch.save(state, path)
    return path


def run(*arguments):
    return score.main([str(argument) for argument in arguments])


def rows(folder):
    with (folder / TABLE).open(newline="") as file:
        return list(csv.DictReader(file))


def report(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


# --- decisions ----------------------------------------------------------------------------------


def test_defects_score_above_the_threshold_of_the_checkpoint(checkpoint, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(checkpoint, photos, "--out", out) == 0
    found = rows(out)
    assert [row["file"] for row in found] == [
        *(f"line {line}/{name}" for line in (1, 2) for name in ("00.png", "01.png", "bad.png"))
    ]
    for row in found:
        anomalous = float(row["score"]) > float(row["threshold"])
        assert row["decision"] == ("anomalous" if anomalous else "normal")
        assert anomalous == row["file"].endswith("bad.png")
        assert row["reason"] == ""
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"6 images in 2 folders; cpu, \d+ threads?; out {out}", lines[0])
    assert "the loss mse" in lines[1]
    assert "gray images stretched to 32x32" in lines[1]
    assert "from 4 normal images (test images of the training run)" in lines[2]
    assert lines[-1] == f"6 images: 2 anomalous, 4 normal, 0 errors; report: {out}/report.html"


def test_a_folder_of_normal_images_gives_the_threshold(checkpoint, image_root, photos, tmp_path):
    normal = image_root / "test" / "dot"
    out, other = tmp_path / "out", tmp_path / "other"
    arguments = [photos, "--normal", normal, "--false-positive-rate", "0.5", "--out", out]
    assert run(checkpoint, *arguments) == 0
    assert run(checkpoint, normal, "--out", other) == 0
    scores = sorted(float(row["score"]) for row in rows(other))
    (threshold,) = {float(row["threshold"]) for row in rows(out)}
    assert threshold == pytest.approx(scores[2], rel=2 * MARGIN)  # ceil(5 * 0.5) = 3rd
    assert "may be anywhere from 6.8% to 80.6% (95% interval)" in report(out)


def test_too_few_normal_images_are_used_with_a_warning(checkpoint, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(checkpoint, photos, "--out", out, "--false-positive-rate", "0.01") == 0
    warning = (
        "4 normal images are too few for a false-positive rate of 1%, which requires at least 99: "
        "the threshold is their highest score, and the rate to expect is 20.0%"
    )
    assert f"score.py: WARNING: {warning}\n" in capsys.readouterr().err
    assert f"<p>{warning[0].upper()}{warning[1:]}.</p>" in report(out)
    assert {row["decision"] for row in rows(out)} == {"normal", "anomalous"}


def test_without_normal_scores_there_are_scores_and_no_decisions(
    checkpoint, photos, tmp_path, capsys
):
    unfinished = edit_checkpoint(checkpoint, tmp_path / "unfinished.pt", normal_scores=[])
    out = tmp_path / "out"
    assert run(unfinished, photos, "--out", out) == 0
    assert {(row["threshold"], row["decision"]) for row in rows(out)} == {("", "")}
    assert all(float(row["score"]) > 0 for row in rows(out))
    printed = capsys.readouterr()
    assert "WARNING: no threshold: the checkpoint holds no scores of normal images" in printed.err
    assert printed.out.splitlines()[-1].startswith("6 images: 6 scored without a threshold, 0 err")
    assert "the value that 0.5% of the pixels of the first batch exceed" in report(out)


def test_training_images_are_a_warning(checkpoint, image_root, photos, tmp_path, capsys):
    out, train = tmp_path / "out", image_root / "train" / "good"
    shutil.copy(train / "00.png", photos)
    assert run(checkpoint, photos, "--normal", train, "--out", out) == 0
    printed = capsys.readouterr().err
    assert "20 of 20 normal images behind the threshold are training images" in printed
    assert "00.png, 01.png, 02.png, 03.png, 04.png and 15 more" in printed
    assert "1 of 7 scored images are training images" in printed
    assert "1 of 7 scored images are training images" in report(out)


# --- broken files -------------------------------------------------------------------------------


def test_a_broken_file_is_a_row_and_exit_status_1(checkpoint, photos, tmp_path, capsys):
    (photos / "line 1" / "0 broken.png").write_bytes(b"\x89PNG")
    (photos / "notes.txt").write_text("not an image")
    out = tmp_path / "out"
    assert run(checkpoint, photos, "--out", out) == 1
    broken, *others = rows(out)
    assert (broken["file"], broken["score"], broken["decision"]) == (
        *("line 1/0 broken.png", ""),
        "error",
    )
    assert broken["reason"].startswith("not a readable image")
    assert [row["decision"] for row in others].count("normal") == 4
    printed = capsys.readouterr()
    assert "7 images: 2 anomalous, 4 normal, 1 error" in printed.out
    assert printed.err.startswith("score.py: error: line 1/0 broken.png: not a readable image: ")
    assert printed.err.count("\n") == 1
    text = report(out)
    assert "Images that could not be scored (1)" in text
    assert text.index("0 broken.png") < text.index("bad.png")


def test_the_first_of_many_broken_files_are_named(checkpoint, photos, tmp_path, capsys):
    for index in range(7):
        (photos / f"{index}.png").write_bytes(b"")
    out = tmp_path / "out"
    assert run(checkpoint, photos, "--out", out) == 1
    lines = capsys.readouterr().err.splitlines()
    for index, line in enumerate(lines[:5]):
        assert line.startswith(f"score.py: error: {index}.png: ")
    assert lines[5:] == [f"score.py: error: 2 more images, listed in {out}/scores.csv"]


def test_a_broken_normal_image_is_left_out_of_the_threshold(
    checkpoint, image_root, photos, tmp_path, capsys
):
    normal = tmp_path / "normal"
    shutil.copytree(image_root / "test" / "good", normal)
    (normal / "broken.png").write_bytes(b"")
    out = tmp_path / "out"
    assert run(checkpoint, photos, "--normal", normal, "--out", out) == 0
    assert "--normal: broken.png is left out of the threshold" in capsys.readouterr().err
    assert "scores of 4 normal images" in report(out)

    for path in normal.iterdir():
        path.write_bytes(b"")
    assert run(checkpoint, photos, "--normal", normal, "--out", tmp_path / "two") == 2
    assert "none of the images can be scored" in capsys.readouterr().err


# --- names --------------------------------------------------------------------------------------


def test_equal_names_from_two_places_are_told_apart(checkpoint, photos, tmp_path):
    out = tmp_path / "out"
    one, two = photos / "line 1", photos / "line 2"
    assert run(checkpoint, one, two, one / "bad.png", "--out", out) == 0
    names = [row["file"] for row in rows(out)]
    assert len(set(names)) == len(names) == 6
    assert len(list((out / "overlays").iterdir())) == 6
    for name in names:
        assert (out / "overlays" / overlay_name(name)).is_file()


def test_links_are_followed_and_each_link_is_an_image(checkpoint, photos, image_root, tmp_path):
    """Data sets of DVC and git-annex consist of links."""
    store, data = tmp_path / "store", tmp_path / "data"
    (store / "line 3").mkdir(parents=True)
    shutil.copy(photos / "line 1" / "bad.png", store / "bad.png")
    shutil.copy(photos / "line 1" / "00.png", store / "line 3")
    data.mkdir()
    for name in ("a.png", "b.png"):
        (data / name).symlink_to(store / "bad.png")
    (data / "c.png").symlink_to(store / "missing.png")
    (data / "line 3").symlink_to(store / "line 3")
    (data / "line 3 again").symlink_to(store / "line 3")
    (store / "line 3" / "around").symlink_to(data)  # a loop
    out = tmp_path / "out"
    assert run(checkpoint, data, "--out", out) == 1
    assert [(row["file"], row["decision"]) for row in rows(out)] == [
        ("a.png", "anomalous"),
        ("b.png", "anomalous"),
        ("c.png", "error"),
        ("line 3/00.png", "normal"),
        ("line 3 again/00.png", "normal"),
    ]


def test_a_place_given_twice_counts_once(checkpoint, photos, tmp_path):
    out = tmp_path / "out"
    assert run(checkpoint, photos, photos, photos / "line 1" / "bad.png", "--out", out) == 0
    assert len(rows(out)) == 6


def test_overlay_names_cannot_collide():
    names = ["a.png", "a.jpg", "A.png", "a/b.png", "a_b.png", "a/b.png/c.png", "ü.png", "ö.png"]
    found = [overlay_name(name).lower() for name in names]
    assert len(set(found)) == len(names)
    assert all(re.fullmatch(r"[\w.-]+\.jpg", name, flags=re.ASCII) for name in found)
    assert overlay_name("dent/003.png").startswith("dent_003-")
    assert len(overlay_name("x" * 250 + ".png")) < 120


@pytest.mark.parametrize("name", ["=1+1.png", "+a", "-a", "@a", "\ta", "\ra", "'=a", "''@a"])
def test_a_cell_that_could_be_a_formula_is_escaped(name):
    assert escaped(name) == f"'{name}"
    assert unescaped(escaped(name)) == name


@pytest.mark.parametrize("name", ["a=b.png", "'a", "0.5", ""])
def test_other_cells_stay_as_they_are(name):
    assert escaped(name) == unescaped(name) == name


def test_a_table_holds_formulas_commas_and_quotes(tmp_path):
    written = [
        Row("=cmd|'x'!A1.png", 1.5e-7, 0.25, "normal"),
        Row('a, "b".png', None, 0.25, "error", "-1 is no level"),
        Row("ü.png", 0.1 + 0.2, None, "", stamp=Stamp(12, 1772286310123456789)),
    ]
    table = Table(tmp_path / TABLE)
    table.append(written)
    table.close()
    text = (tmp_path / TABLE).read_text("utf-8").splitlines()
    assert text[0] == "file,score,threshold,decision,reason,size,modified"
    assert text[1] == "'=cmd|'x'!A1.png,1.5e-07,0.25,normal,,,"
    assert text[2] == '"a, ""b"".png",,0.25,error,\'-1 is no level,,'
    assert text[3] == "ü.png,0.3,,,,12,2026-02-28T13:45:10.123456789"
    found = read_table(tmp_path / TABLE)
    assert [row.file for row in found] == [row.file for row in written]
    assert [row.reason for row in found] == ["", "-1 is no level", ""]
    assert found[2].score == pytest.approx(0.3)
    assert [row.stamp for row in found] == [row.stamp for row in written]


def test_control_characters_in_names_are_shown():
    assert printable("a\nb\x1b[1m.png") == r"a\nb\x1b[1m.png"
    assert printable(os.fsdecode(b"caf\xe9.png")) == r"caf\udce9.png"
    assert printable("straße 1.png") == "straße 1.png"
    assert printable("a\x01.png") != printable(r"a\x01.png")  # two files, two rows


def test_the_last_row_of_a_file_counts():
    first, second = Row("a", None, 1.0, "error"), Row("a", 0.5, 1.0, "normal")
    assert latest([first, Row("b", 2.0, 1.0, "anomalous"), second])[0] == second
    assert tally([second]) == "1 image: 0 anomalous, 1 normal, 0 errors"


# --- the folder for the results -----------------------------------------------------------------


def test_a_used_out_folder_is_refused_unless_told(checkpoint, photos, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    assert run(checkpoint, photos, "--out", out) == 2
    assert "is not empty: choose another folder, or add --overwrite" in capsys.readouterr().err
    assert os.listdir(out) == ["mine.txt"]

    assert run(checkpoint, photos, "--out", out, "--overwrite") == 0
    (out / "overlays" / "mine.jpg").write_text("keep")
    assert run(checkpoint, photos / "line 1", "--out", out, "--overwrite") == 0
    assert len(rows(out)) == 3
    assert len(list((out / "overlays").iterdir())) == 3 + 1
    assert (out / "mine.txt").read_text() == (out / "overlays" / "mine.jpg").read_text() == "keep"


def test_a_folder_in_use_is_refused(checkpoint, photos, tmp_path, capsys):
    out = tmp_path / "out"
    with only_writer(out):
        for arguments in ([photos], ["--watch", photos], [photos, "--overwrite"]):
            assert run(checkpoint, *arguments, "--out", out) == 2
            printed = capsys.readouterr().err
            assert printed.startswith(f"score.py: error: {out} is in use by process {os.getpid()}")
            assert printed.count("\n") == 1
    assert run(checkpoint, photos, "--out", out) == 0


def test_nothing_is_removed_before_there_is_something_to_score(checkpoint, photos, tmp_path):
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    assert run(checkpoint, photos, "--out", out) == 0
    assert run(checkpoint, empty, "--out", out, "--overwrite") == 2
    assert len(rows(out)) == 6
    assert (out / "report.html").is_file()


def test_results_inside_the_scored_folder_are_not_scored(checkpoint, photos, tmp_path):
    out = photos / "out"
    for _ in range(2):
        assert run(checkpoint, photos, "--out", out, "--overwrite") == 0
        assert len(rows(out)) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.pt", "{good}"], "missing.pt: no such file"),
        (["{checkpoint}", "nowhere"], "nowhere: no such file or folder"),
        (["{checkpoint}"], "nothing to score: pass images or folders, or --watch FOLDER"),
        (["{checkpoint}", "{good}", "--watch", "{good}"], "pass no other images or folders"),
        (["{checkpoint}", "--watch", "nowhere"], "--watch nowhere: no such folder"),
        (["{checkpoint}", "{good}", "--poll", "2"], "--poll requires --watch"),
        (
            ["{checkpoint}", "{good}", "--false-positive-rate", "1"],
            "--false-positive-rate must be between 0 and 1, got 1",
        ),
        (["{checkpoint}", "{good}", "--normal", "nowhere"], "nowhere: no such file or folder"),
        (["{checkpoint}", "{good}", "--device", "tpu"], "--device must be cpu, cuda"),
        (["{metrics}", "{good}"], "metrics.json: damaged, or not a checkpoint of train.py"),
    ],
)
def test_bad_arguments_are_errors_before_any_file(
    checkpoint, image_root, tmp_path, capsys, arguments, message
):
    names = {
        "checkpoint": checkpoint,
        "good": image_root / "test" / "good",
        "metrics": checkpoint.parents[1] / "metrics.json",
    }
    out = tmp_path / "out"
    assert run(*(text.format(**names) for text in arguments), "--out", out) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("score.py: error: ")
    assert message in printed
    assert printed.count("\n") == 1
    assert not out.exists()


# --- report -------------------------------------------------------------------------------------


def test_the_report_shows_the_most_anomalous_first(checkpoint, photos, tmp_path):
    out = tmp_path / "out"
    assert run(checkpoint, photos, "--out", out) == 0
    text = report(out)
    figures = re.findall(r'<figure class="(\w+)"><a href="([^"]+)"><img src="([^"]+)"', text)
    assert [kind for kind, _, _ in figures] == ["anomalous"] * 2 + ["normal"] * 4
    for _, link, source in figures:
        assert link == source
        assert (out / link).is_file()
    names = re.findall(r'<b class="file">([^<]+)</b>', text)
    scores = {row["file"]: float(row["score"]) for row in rows(out)}
    assert [scores[name] for name in names] == sorted(scores.values(), reverse=True)
    assert "6 images: 2 anomalous, 4 normal, 0 errors." in text
    assert "Expect 20.0% of new normal images, taken under the same conditions," in text
    assert "may be anywhere from 0.6% to 60.2% (95% interval)" in text


def test_most_pictures_load_lazily_and_a_large_page_is_cut(checkpoint, photos, tmp_path):
    detector = Judge(load_detector(checkpoint), None, 1.0, tmp_path)
    many = [Row(f"{index}.png", 1.0 / index, None, "") for index in range(1, 1101)]
    text = page(many, detector, Session("x", "1,100 images", "", ()))
    assert text.count("<img") == 1000
    assert text.count('loading="eager"') <= 200
    assert "The other 100 images with lower scores are in" in text


def test_rounding_does_not_contradict_the_decision(checkpoint, tmp_path):
    judge = Judge(load_detector(checkpoint), None, 1.0, tmp_path)
    session = Session("x", "1 image", "", ())
    row = Row("a.png", 0.1000004, 0.1, "anomalous")
    text = page([row], judge, session)
    assert ", 1.000004&times;\u00a0threshold<br>score 0.1000004" in text
    text = page([Row("a.png", 0.07071, 0.07069, "anomalous")], judge, session)
    assert ", 1.0003&times;\u00a0threshold<br>score 0.07071" in text
    text = page([Row("a.png", 0.25, 0.25, "normal")], judge, session)
    assert ", 1&times;\u00a0threshold<br>score 0.25<" in text


def test_scores_and_thresholds_have_the_digits_that_decide(checkpoint, tmp_path):
    high = float(np.float32(0.12348))
    limit = Threshold(float(np.float32(0.123479)), 0.1, 0.0, 0.3, 9, 0.1)
    judge = Judge(load_detector(checkpoint), limit, full_scale(limit.value), tmp_path)
    row = Row("a.png", high, limit.value, "anomalous")
    text = page([row], judge, Session("x", "1 image", "", ()))
    assert "exceeds the threshold, 0.123479. " in text
    assert "<span>threshold 0.123479</span>" in text
    assert "score 0.12348<" in text
    assert describe_row(row) == "a.png: 0.12348 anomalous"
    assert threshold_words.one_line(limit).startswith("0.123479, from 9 normal images")


def test_many_errors_are_folded_away(checkpoint, tmp_path):
    judge = Judge(load_detector(checkpoint), None, 1.0, tmp_path)
    made = [Row(f"{index}.png", None, None, "error", "broken") for index in range(12)]
    text = page(made, judge, Session("x", "12 images", "", ()))
    assert "Images that could not be scored (12)" in text
    assert text.index(">9.png<") < text.index("<summary>2 more images</summary>")
    assert text.index("<summary>2 more images</summary>") < text.index(">10.png<")
    assert "<summary>" not in page(made[:10], judge, Session("x", "10 images", "", ()))


def test_names_are_escaped_in_the_report(checkpoint, tmp_path):
    judge = Judge(load_detector(checkpoint), None, 1.0, tmp_path)
    made = [
        Row('<x-1>".png', 1.0, None, ""),
        Row("<x-2>", None, None, "error", "<x-3>"),
    ]
    text = page(made, judge, Session("<x-4>", "<x-5>", "", ("<x-6>",)))
    assert "<x-" not in text
    for number in range(1, 7):
        assert f"&lt;x-{number}&gt;" in text
    assert "&lt;x-1&gt;&quot;.png" in text


def test_each_file_is_read_once(checkpoint, photos, tmp_path, monkeypatch):
    read, open_image = [], Image.open

    def counting(path):
        read.append(path)
        return open_image(path)

    monkeypatch.setattr(Image, "open", counting)
    assert run(checkpoint, photos, "--out", tmp_path / "out", "--threads", "2") == 0
    assert sorted(read) == sorted(photos.rglob("*.png"))


# --- interruption -------------------------------------------------------------------------------


def test_what_was_scored_before_ctrl_c_is_kept(checkpoint, photos, tmp_path, capsys, monkeypatch):
    judge, calls = Judge.judge, []

    def interrupted(self, files):
        calls.append(files)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return judge(self, files)

    monkeypatch.setattr(Judge, "judge", interrupted)
    out = tmp_path / "out"
    assert run(checkpoint, photos, "--out", out, "--batch-size", "2") == 130
    assert len(rows(out)) == 4
    assert "The program was interrupted; 2 images had not been scored." in report(out)
    assert "score.py: error: stopped; what was scored so far is in --out" in capsys.readouterr().err


# --- watching -----------------------------------------------------------------------------------


def test_a_file_is_complete_when_two_polls_agree(tmp_path):
    path = tmp_path / "a.png"
    (tmp_path / "old").write_bytes(b"done before")
    stamp = stamp_of(tmp_path / "old")
    assert stamp is not None
    arrivals = Arrivals(
        lambda: [(each, each.name) for each in sorted(tmp_path.iterdir())],
        {"old": stamp},
    )
    path.write_bytes(b"1")
    assert arrivals.poll() == []
    path.write_bytes(b"12")
    assert arrivals.poll() == []  # has grown
    os.utime(path, (1, 1))
    assert arrivals.poll() == []  # has been touched
    assert arrivals.poll() == [(path, "a.png")]
    assert arrivals.poll() == arrivals.poll() == []  # each content once


def test_another_file_of_the_same_name_is_a_new_file(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"1")
    arrivals = Arrivals(lambda: [(path, "a.png")])
    assert [arrivals.poll(), arrivals.poll(), arrivals.poll()] == [[], [(path, "a.png")], []]
    other = tmp_path / "other"
    other.write_bytes(b"2")  # of the same size
    os.utime(other, ns=(0, 10**18))
    other.replace(path)
    assert [arrivals.poll(), arrivals.poll(), arrivals.poll()] == [[], [(path, "a.png")], []]
    path.write_bytes(b"12")
    os.utime(path, ns=(0, 10**18))  # larger, at the same time
    assert [arrivals.poll(), arrivals.poll()] == [[], [(path, "a.png")]]


def test_after_a_restart_errors_are_tried_again_and_changes_are_noticed():
    one, two = Stamp(1, 1), Stamp(2, 2)
    rows = [
        Row("good.png", 0.5, 1.0, "normal", stamp=one),
        Row("cut.png", None, 1.0, "error", "cut", stamp=one),
        Row("mended.png", None, 1.0, "error", "cut", stamp=one),
        Row("mended.png", 0.5, 1.0, "normal", stamp=two),
        Row("spoiled.png", 0.5, 1.0, "normal", stamp=one),
        Row("spoiled.png", None, 1.0, "error", "gone"),
    ]
    assert finished(rows) == {"good.png": one, "mended.png": two}


def start(*arguments):
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def wait_for(condition, process, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)


def scored(folder):
    """The names in the table so far."""
    path = folder / TABLE
    return [row["file"] for row in rows(folder)] if path.is_file() else []


def test_a_watched_folder_is_scored_until_stopped_and_continued(checkpoint, photos, tmp_path):
    incoming, out = tmp_path / "incoming", tmp_path / "out"
    incoming.mkdir()
    content = (photos / "line 1" / "bad.png").read_bytes()
    arguments = [checkpoint, "--watch", incoming, "--out", out, "--poll", "0.3"]
    process = start(*arguments)
    try:
        wait_for((out / TABLE).is_file, process)
        with (incoming / "slow.png").open("wb") as file:
            file.write(content[:100])
            file.flush()
            shutil.copy(photos / "line 1" / "00.png", incoming / "good.png")
            time.sleep(0.2)
            file.write(content[100:])
        wait_for(lambda: len(scored(out)) >= 2, process)
        wait_for((out / "report.html").is_file, process)  # already before the program is stopped
        (incoming / "broken.png").write_bytes(b"\x89PNG")
        wait_for(lambda: len(scored(out)) >= 3, process)
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1, errors
    found = {row["file"]: row["decision"] for row in rows(out)}
    assert found == {"good.png": "normal", "slow.png": "anomalous", "broken.png": "error"}
    lines = printed.splitlines()
    assert lines[0].startswith(f"watching {incoming}; cpu, ")
    assert sum(line.startswith("slow.png: 0.") for line in lines) == 1
    assert lines[-1] == f"3 images: 1 anomalous, 1 normal, 1 error; report: {out}/report.html"
    assert len(list((out / "overlays").iterdir())) == 2

    # A killed process may leave a part of a line.
    with (out / TABLE).open("a") as file:
        file.write("half.png,0.0")
    # While the program was stopped, one file was completed, and another part got a used name.
    (incoming / "broken.png").write_bytes(content)
    shutil.copy(photos / "line 1" / "bad.png", incoming / "good.png")
    process = start(*arguments)
    try:
        wait_for(lambda: len(scored(out)) >= 5, process)
        shutil.copy(photos / "line 2" / "01.png", incoming / "slow.png")  # while it runs
        wait_for(lambda: scored(out).count("slow.png") == 2, process)
        shutil.copy(photos / "line 2" / "01.png", incoming / "new.png")
        wait_for(lambda: "new.png" in scored(out), process)
        process.send_signal(signal.SIGTERM)
        printed, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, errors  # the broken file is complete by now
    assert "3 images scored before" in printed
    assert sorted(scored(out)) == sorted([*found, *found, "new.png"])
    latest_rows = {row["file"]: row["decision"] for row in rows(out)}
    assert latest_rows == {
        "good.png": "anomalous", "slow.png": "normal", "broken.png": "anomalous",
        "new.png": "normal",
    }  # fmt: skip
    assert printed.splitlines()[-1].startswith("4 images: 2 anomalous, 2 normal, 0 errors")
    shown = re.findall(r'<b class="file">([^<]+)</b><span class="decision">(\w+)', report(out))
    assert dict(shown) == latest_rows
    assert len(shown) == 4


def test_files_of_others_are_neither_replaced_nor_continued(checkpoint, photos, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    for name in (TABLE, "report.html", STATE):
        (out / name).write_text("my,own,table\n")
        for options in (["--watch", photos], [photos], [photos, "--overwrite"]):
            assert run(checkpoint, *options, "--out", out) == 2
            printed = capsys.readouterr().err
            assert f"{out}: {name} was not written by score.py and is not replaced" in printed
            assert printed.count("\n") == 1
        assert (out / name).read_text() == "my,own,table\n"
        (out / name).unlink()
    assert run(checkpoint, photos, "--out", out) == 0
    (out / TABLE).write_text("my,own,table\n")
    for options in (["--watch", photos], [photos, "--overwrite"]):
        assert run(checkpoint, *options, "--out", out) == 2
        assert "scores.csv: not a table of score.py" in capsys.readouterr().err
    assert (out / TABLE).read_text() == "my,own,table\n"
    assert (out / "report.html").is_file()
    with pytest.raises(TableError, match="the first line must be"):
        read_table(out / TABLE)


def test_folders_of_training_runs_are_refused(checkpoint, trained_run, photos, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(trained_run, copy)
    (copy / "report.html").write_text("of the run")
    before = sorted(copy.rglob("*"))
    for out, name in ((copy, "metrics.json"), (copy / "mse", "checkpoint.pt")):
        for options in ([photos], [photos, "--overwrite"], ["--watch", photos]):
            assert run(checkpoint, *options, "--out", out) == 2
            assert f"--out {out} belongs to train.py: it holds {name}" in capsys.readouterr().err
    assert sorted(copy.rglob("*")) == before
    assert run(checkpoint, photos, "--out", copy / "scores") == 0


def stop_at_once(monkeypatch):
    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Arrivals, "poll", stop)


def test_watching_goes_on_only_with_the_same_checkpoint_and_threshold(
    checkpoint, photos, tmp_path, capsys, monkeypatch
):
    stop_at_once(monkeypatch)
    out = tmp_path / "out"
    assert run(checkpoint, photos, "--out", out) == 0
    before = (out / TABLE).read_bytes(), (out / STATE).read_bytes()
    assert run(checkpoint, "--watch", photos, "--out", out) == 0
    other = edit_checkpoint(checkpoint, tmp_path / "other.pt", data="other images")
    unknown = edit_checkpoint(checkpoint, tmp_path / "unknown.pt", normal_scores=[])
    capsys.readouterr()
    for arguments, reason in (
        ([other], "holds results made with another checkpoint: choose another folder"),
        ([unknown], "holds results made with another checkpoint: choose another folder"),
        (
            [checkpoint, "--false-positive-rate", "0.5"],
            r"with threshold 0\.\d+, not with threshold",
        ),
    ):
        assert run(*arguments, "--watch", photos, "--out", out) == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if "WARNING" not in line]
        assert len(errors) == 1
        assert errors[0].startswith("score.py: error: ")
        assert re.search(reason, errors[0])
        assert ((out / TABLE).read_bytes(), (out / STATE).read_bytes()) == before
    assert run(other, "--watch", photos, "--out", out, "--overwrite") == 0
    assert read_table(out / TABLE) == []


def test_without_a_threshold_the_color_scale_stays_after_a_restart(
    checkpoint, photos, tmp_path, monkeypatch
):
    unfinished = edit_checkpoint(checkpoint, tmp_path / "unfinished.pt", normal_scores=[])
    out = tmp_path / "out"
    assert run(unfinished, photos, "--out", out) == 0
    before = read_state(out)
    assert before is not None
    assert before.full_scale
    stop_at_once(monkeypatch)
    assert run(unfinished, "--watch", photos, "--out", out) == 0
    assert read_state(out) == before
    assert f"The scale ends at {before.full_scale:.3g}" in report(out)


def test_polling_does_not_resolve_every_file(checkpoint, tmp_path, monkeypatch):
    incoming = tmp_path / "incoming"
    (incoming / "sub").mkdir(parents=True)
    for index in range(50):
        (incoming / "sub" / f"{index}.png").write_bytes(b"1")
    options = ScoreOptions((incoming,), tmp_path / "out", watch=True)
    state = Run(options, load_detector(checkpoint), Processes(0, 1, torch.device("cpu")))
    resolved, resolve = [], Path.resolve

    def counting(self):
        resolved.append(self)
        return resolve(self)

    monkeypatch.setattr(Path, "resolve", counting)
    files, _ = find(state, options.places)
    assert len(files) == 50
    assert len(resolved) <= 3


# --- processes ----------------------------------------------------------------------------------


def test_two_processes_write_the_same_table_as_one(checkpoint, photos, image_root, tmp_path):
    (photos / "broken.png").write_bytes(b"")
    one, two = tmp_path / "one", tmp_path / "two"
    options = ["--normal", image_root / "test/good", "--batch-size", "2", "--threads", "1"]
    assert run(checkpoint, photos, *options, "--out", one) == 1
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", PROGRAM]
    arguments = [*command, checkpoint, photos, *options, "--out", two]
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("score.py: error: broken.png: ") == 1
    assert "rank      : 0 (local_rank: 0)" in done.stderr
    # Only the first process exits with 1; torchrun may have stopped the other one before it ended.
    assert not re.search(r"rank +: 1 \(.*\n +exitcode +: 1 ", done.stderr)
    assert done.stdout.count("7 images in 3 folders") == 1
    assert done.stdout.count("7 images: 2 anomalous, 4 normal, 1 error") == 1
    assert (two / TABLE).read_text() == (one / TABLE).read_text()
    assert sorted(os.listdir(two / "overlays")) == sorted(os.listdir(one / "overlays"))
    assert report(two) == report(one)


class Second(Processes):
    """The second of two processes; the first one has sent `outcome`."""

    def __init__(self, outcome):
        super().__init__(rank=1, count=2, device=torch.device("cpu"))
        self.__dict__["outcome"] = outcome  # a frozen dataclass

    def gather(self, value):
        return [self.__dict__["outcome"], value]


def test_only_the_first_process_reports_its_error():
    def fail():
        raise AssertionError("called in the second process")

    assert by_first(Second(("files", False)), fail) == "files"
    with pytest.raises(SystemExit) as caught:
        by_first(Second((None, True)), fail)
    assert caught.value.code == 2


def test_columns_are_named_in_the_help():
    text = " ".join(score.build_parser().format_help().split())
    assert "--watch FOLDER" in text
    assert "exit status: 0 all images were scored, 1 some could not be" in text
    assert COLUMNS == ("file", "score", "threshold", "decision", "reason", "size", "modified")


def test_results_do_not_go_to_the_folder_of_the_images(checkpoint, tmp_path, image_root, capsys):
    photos = tmp_path / "photos"
    shutil.copytree(image_root / "test" / "good", photos)
    before = sorted(photos.iterdir())
    assert run(checkpoint, photos, "--out", photos, "--overwrite") == 2
    assert "holds the images themselves: choose another folder" in capsys.readouterr().err
    assert [path for path in sorted(photos.iterdir()) if path.name[0] != "."] == before
