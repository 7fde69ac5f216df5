"""metrics.json with any entry missing or replaced: one line of error, never a traceback."""

from __future__ import annotations

import copy
import json
import shutil
import traceback
from pathlib import Path
from typing import Any

import factory
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from uad.cli import landscape, train
from uad.data import DataError
from uad.metrics_check import find_problem
from uad.report.__main__ import main as report

MISSING = "missing"
VALUES: tuple[Any, ...] = (MISSING, None, "x", [], -1, 1e9)

CHANGED = (
    "--resume: the data have changed since the run was started: ",
    "--resume: the run was started with ",
)
"""Beginnings of messages about values that are possible, but not those of this run."""


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    root = factory.make(tmp_path_factory.mktemp("data") / "rings", train=8, good=2, defects=1)
    folder = tmp_path_factory.mktemp("runs") / "rings"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uad.cli.train_run.write_report", lambda folder: None)
        options = [
            *("--data", "folder", "--root", str(root), "--size", "16", "--loss", "amplified-mse"),
            *("--epochs", "1", "--batch-size", "4", "--width", "4", "--latent", "2"),
            *("--device", "cpu", "--threads", "1", "--out", str(folder)),
        ]
        assert train.main(options) == 0
    return folder


def places(metrics, place=()):
    """The path of every entry, and of every entry within it."""
    for name, value in metrics.items():
        yield (*place, name)
        if isinstance(value, dict):
            yield from places(value, (*place, name))


def damaged(metrics):
    """Every entry missing or replaced, with its path and the new value."""
    for place in places(metrics):
        for value in VALUES:
            copied = copy.deepcopy(metrics)
            inner = copied
            for name in place[:-1]:
                inner = inner[name]
            if inner[place[-1]] == value:
                continue
            if value is MISSING:
                del inner[place[-1]]
            else:
                inner[place[-1]] = value
            yield ".".join(place), value, copied


def resume(folder: Path) -> int:
    return train.main(["--out", str(folder), "--resume"])


def rewrite(folder: Path) -> int:
    return report([str(folder)])


def measure(folder: Path) -> int:
    return landscape.main([str(folder)])


@pytest.fixture
def without_slow_parts(monkeypatch):
    """No page after training, no drawing, and no measuring of landscapes."""

    def stop(*_):
        raise DataError("metrics.json is usable")

    monkeypatch.setattr("uad.cli.train_run.write_report", lambda folder: None)
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **_: file.write(b"a picture"))
    # These two show arrays, and nothing that is in metrics.json.
    monkeypatch.setattr("uad.figures.example_grid", lambda *_: Figure())
    monkeypatch.setattr("uad.report.decision.panels", lambda *_: Image.new("RGB", (8, 8)))
    monkeypatch.setattr(landscape, "measure_all", stop)


@pytest.mark.usefixtures("without_slow_parts")
@pytest.mark.filterwarnings("ignore:Attempt to set non-positive:UserWarning")
@pytest.mark.parametrize("program", [resume, rewrite, measure])
def test_any_damage_is_one_line(program, finished_run, tmp_path, capsys):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    path = folder / "metrics.json"
    whole = json.loads(path.read_text())
    wrong, codes = [], set()
    for place, value, metrics in damaged(whole):
        path.write_text(json.dumps(metrics))
        case = f"{place} = {value!r}"
        try:
            code = program(folder)
        except BaseException as error:
            wrong.append(f"{case}: {traceback.format_exception_only(error)[-1].strip()}")
            continue
        codes.add(code)
        said = (capsys.readouterr().err.splitlines() or [""])[-1]
        known = any(each in said for each in (str(folder), "metrics.json is usable", *CHANGED))
        if code not in (0, 2) or (code == 2 and not known):
            wrong.append(f"{case}: exit code {code}, {said}")
    assert not wrong, "\n".join(wrong)
    assert codes <= {0, 2}
    assert 2 in codes


@pytest.mark.usefixtures("without_slow_parts")
@pytest.mark.parametrize("program", [resume, rewrite])
def test_an_undamaged_run_is_accepted(program, finished_run):
    assert program(finished_run) == 0
    metrics = json.loads((finished_run / "metrics.json").read_text())
    assert find_problem(metrics) == ""


def change(metrics, place, value):
    *outer, last = place.split(".")
    for name in outer:
        metrics = metrics[name]
    metrics[last] = value


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        ("data.test_normal", 3, "data.test_normal is 3, but data.kinds gives 2"),
        ("data.kinds.hole", 1, "data.test_anomalous is 2, but data.kinds gives 3"),
        ("data.size", [1, 16], "data.size must be a list of three positive integers, got [1, 16]"),
        (
            "scoring.metric",
            "psnr",
            'scoring.metric must be one of mse, l1, ssim, gms, msgms, got "psnr"',
        ),
        (
            "arms.amplified-mse.history.loss",
            [0.1, 0.2],
            "arms.amplified-mse.history must have one entry per epoch, has "
            '{"epoch": 1, "loss": 2, "tangent_sha ...',
        ),
        (
            "arms.amplified-mse.evaluation.image_auroc",
            None,
            "arms.amplified-mse.evaluation.image_auroc must be a number for these kinds, got null",
        ),
        (
            "arms.amplified-mse.evaluation.per_kind.hole",
            None,
            "arms.amplified-mse.evaluation.per_kind.hole must be an object, got null",
        ),
        ("config.lr", 10**400, "config.lr must be a positive number, got 1000000000"),
    ],
)
def test_the_problem_is_named(finished_run, place, value, problem):
    metrics = json.loads((finished_run / "metrics.json").read_text())
    change(metrics, place, value)
    assert find_problem(metrics).startswith(problem)


def test_a_perfect_figure_may_be_rounded_up(finished_run):
    metrics = json.loads((finished_run / "metrics.json").read_text())
    change(metrics, "arms.amplified-mse.evaluation.aupro", 1.0000000000000002)
    assert find_problem(metrics) == ""
    change(metrics, "arms.amplified-mse.evaluation.aupro", 1.01)
    assert "aupro must be a number from 0 to 1, or null, got 1.01" in find_problem(metrics)


@pytest.mark.parametrize("name", ["kinds", "scores", "reconstructions", "maps"])
def test_an_array_that_is_missing_is_named(finished_run, tmp_path, capsys, name):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    path = folder / "amplified-mse" / "evaluation.npz"
    with np.load(path) as file:
        arrays = dict(file)
    del arrays[name]
    np.savez(path, **arrays)
    assert rewrite(folder) == 2
    message = f"uad.report: error: {path}: not written by train.py: it has no array {name}\n"
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"loss": "mse", "looked_at": "mse"}', "3"])
def test_a_damaged_landscape_is_named(finished_run, tmp_path, capsys, text):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    (folder / "landscape.jsonl").write_text(text)
    (folder / "landscape.png").write_bytes(b"")
    assert rewrite(folder) == 2
    (error,) = capsys.readouterr().err.splitlines()
    place = folder / "landscape.jsonl"
    assert f"error: {place}: not written by landscape.py, or damaged: " in error


def test_settings_that_no_loss_accepts_are_named(finished_run, tmp_path, capsys):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    metrics = json.loads((folder / "metrics.json").read_text())
    change(metrics, "config.eps", 7.0)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert measure(folder) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"landscape.py: error: {folder / 'metrics.json'}: eps must satisfy")
