"""Resuming a run of train.py: with the same options, with more epochs, after any kind of end."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from unittest import mock

import factory
import numpy as np
import pytest
import torch
from PIL import Image
from run_results import assert_same_run, read_metrics, results
from uad.cli import train as cli
from uad.lock import owner
from uad.training import Trainer

METRICS = "metrics.json"


def change(folder: Path, edit) -> None:
    """Edit metrics.json as a person would."""
    metrics = read_metrics(folder)
    edit(metrics)
    (folder / METRICS).write_text(json.dumps(metrics), encoding="utf-8")


# --- options ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_report")
def test_a_run_is_neither_overwritten_nor_mixed(options, image_root, tmp_path, capsys):
    options += ["--loss", "mse", "--epochs", "1"]
    assert cli.main(options) == 0
    before = read_metrics(tmp_path / "run")
    capsys.readouterr()

    assert cli.main(options) == 2
    assert "already holds a run: choose another folder, or add --resume" in capsys.readouterr().err
    for more, message in (
        (["--lr", "0.1"], "with --lr 0.001, not 0.1"),
        (["--grad-clip", "2"], "without --grad-clip, not with --grad-clip 2.0"),
        (["--compile"], "without --compile, not with --compile"),
        (["--loss", "l1"], "with --loss mse, not l1"),
        (["--threads", "2"], "with --threads 1, not 2"),
    ):
        assert cli.main([*options, "--resume", *more]) == 2
        assert (
            capsys.readouterr().err == f"train.py: error: --resume: the run was started {message}\n"
        )

    root = tmp_path / "images"
    shutil.copytree(image_root, root)
    moved = tmp_path / "moved"
    assert cli.main([*options, "--root", str(root), "--out", str(moved)]) == 0
    Image.new("L", (32, 32)).save(root / "train" / "good" / "more.png")
    assert cli.main([*options, "--root", str(root), "--out", str(moved), "--resume"]) == 2
    assert "the data have changed since the run was started" in capsys.readouterr().err

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    assert cli.main([*options, "--out", str(tmp_path / "other"), "--resume"]) == 2
    assert "exists but holds no run" in capsys.readouterr().err

    assert cli.main([*options, "--resume"]) == 0
    printed = capsys.readouterr()
    assert "already finished: nothing to train" in printed.err
    assert "image AUROC" in printed.out
    assert read_metrics(tmp_path / "run") == before


@pytest.mark.usefixtures("without_report")
def test_a_run_is_resumed_though_its_data_are_described_in_other_words(options, tmp_path, capsys):
    options += ["--loss", "mse", "--epochs", "1"]
    assert cli.main(options) == 0
    path = tmp_path / "run" / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    metrics["data"] |= {"title": "older words", "note": "older words"}
    path.write_text(json.dumps(metrics), encoding="utf-8")
    assert cli.main([*options, "--resume"]) == 0
    assert read_metrics(tmp_path / "run") == metrics
    metrics["data"]["train"] += 1
    path.write_text(json.dumps(metrics), encoding="utf-8")
    capsys.readouterr()
    assert cli.main([*options, "--resume"]) == 2
    assert "the data have changed" in capsys.readouterr().err


# --- the same images ----------------------------------------------------------------------------


@pytest.fixture
def rings(tmp_path):
    """A folder of 12-bit images, each of them different."""
    return factory.make(tmp_path / "rings", train=12, good=4, defects=2, side=32, bits=12)


@pytest.fixture
def rings_run(rings, options, tmp_path, monkeypatch):
    """A run on that folder with one loss, finished after two epochs."""
    monkeypatch.setattr("uad.cli.train_run.write_report", lambda folder: None)
    assert cli.main([*options, "--root", str(rings), "--batch-size", "4", "--loss", "mse"]) == 0
    return tmp_path / "run"


def train_on(folder: Path, *more: str) -> int:
    return cli.main(["--out", str(folder), "--resume", "--epochs", "4", *more])


def swap_all(root: Path) -> None:
    """Replace every image by another one of the same name."""
    shutil.rmtree(root)
    factory.make(root, train=12, good=4, defects=2, side=32, bits=12, seed=1)


def exchange(one: Path, other: Path) -> None:
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def brighten(path: Path) -> None:
    """Raise one pixel of a 12-bit image above 12 bits."""
    levels = np.array(Image.open(path)).astype(np.uint16)
    levels[3, 3] = 60000
    Image.fromarray(levels).save(path)


CHANGES = {
    "other images": (
        swap_all,
        "12 of 12 training images are gone or changed, 12 of 12 are new",
    ),
    "one other image": (
        lambda root: shutil.copy(root / "test/good/000.png", root / "train/good/003.png"),
        "1 of 12 training images are gone or changed, 1 of 12 are new",
    ),
    "another order": (
        lambda root: exchange(root / "train/good/003.png", root / "train/good/004.png"),
        "the training images are in another order (renamed?)",
    ),
    "another test image": (
        lambda root: shutil.copy(root / "train/good/003.png", root / "test/good/001.png"),
        "the test images or their masks differ",
    ),
    "another mask": (
        lambda root: exchange(
            root / "ground_truth/dent/000_mask.png", root / "ground_truth/dent/001_mask.png"
        ),
        "the test images or their masks differ",
    ),
    "another kind": (
        lambda root: (root / "test/dent").rename(root / "test/hole"),
        "kinds.dent was 2, now 0, kinds.hole was 0, now 2, the test images or their masks differ",
    ),
    "another white": (
        lambda root: brighten(root / "test/good/001.png"),
        "preparation.full_scale was 4095.0, now 65535.0, 12 of 12 training images are gone or "
        "changed, 12 of 12 are new",
    ),
}


@pytest.mark.parametrize("change_images", CHANGES)
def test_a_run_is_not_resumed_on_other_images(rings, rings_run, capsys, change_images):
    edit, message = CHANGES[change_images]
    before = read_metrics(rings_run)
    edit(rings)
    capsys.readouterr()
    assert train_on(rings_run) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    start = "train.py: error: --resume: the data have changed since the run was started: "
    assert error == f"{start}{message}"
    assert read_metrics(rings_run) == before


def test_what_shows_the_network_before_is_set_aside(rings_run, capsys):
    exported = rings_run / "mse" / "network.onnx"
    for path in (rings_run / "landscape.png", rings_run / "landscape.jsonl", exported):
        path.write_text("before")
    assert train_on(rings_run) == 0
    assert f"{exported} holds the network of 2 epochs: export it again" in capsys.readouterr().err
    assert exported.read_text() == "before"
    for name in ("landscape.png", "landscape.jsonl"):
        assert not (rings_run / name).exists()
    assert (rings_run / "landscape-2-epochs.png").read_text() == "before"
    assert (rings_run / "landscape-2-epochs.jsonl").read_text() == "before"


def test_a_run_without_digests_is_compared_by_its_checkpoint(rings, rings_run, capsys):
    def forget(metrics):
        for name in ("preparation", "train_digest", "test_digest"):
            del metrics["data"][name]

    change(rings_run, forget)
    brighten(rings / "test/good/001.png")
    assert train_on(rings_run) == 2
    assert "full_scale was 4095.0, now 65535.0, 12 of 12 training" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_is_compared_by_its_digests(rings, rings_run, capsys):
    shutil.rmtree(rings_run / "mse")
    swap_all(rings)
    assert train_on(rings_run) == 2
    assert ": the training images differ, the test images or their" in capsys.readouterr().err


def test_moved_images_are_found_with_root(rings, rings_run, tmp_path, capsys, monkeypatch):
    moved = rings.rename(tmp_path / "moved")
    capsys.readouterr()
    assert train_on(rings_run) == 2
    error = capsys.readouterr().err
    assert f"{rings}: no such folder; if they have moved, name the folder with --root" in error

    monkeypatch.chdir(tmp_path)
    assert train_on(rings_run, "--root", "./moved/") == 0
    metrics = read_metrics(rings_run)
    assert metrics["arms"]["mse"]["history"]["epoch"] == [1, 2, 3, 4]
    assert metrics["config"]["root"] == str(moved)
    monkeypatch.chdir("/")
    assert train_on(rings_run) == 0  # finished; found from any working directory

    swap_all(moved)
    assert train_on(rings_run, "--root", str(moved)) == 2
    assert "12 of 12 training images are gone" in capsys.readouterr().err


@pytest.mark.usefixtures("without_report")
def test_a_relative_root_is_found_from_another_working_directory(
    rings, options, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    relative = ["--root", "rings", "--batch-size", "4", "--loss", "mse"]
    assert cli.main([*options, *relative]) == 0
    monkeypatch.chdir("/")
    assert train_on(tmp_path / "run") == 0


@pytest.mark.usefixtures("without_report")
@pytest.mark.parametrize("package", ["torch", "lamp_kernels"])
def test_a_run_with_another_version_is_not_resumed(options, tmp_path, capsys, package):
    options += ["--loss", "mse", "--epochs", "1"]
    assert cli.main(options) == 0
    path = tmp_path / "run" / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    metrics["environment"][package] = "0.0.1"
    path.write_text(json.dumps(metrics), encoding="utf-8")
    capsys.readouterr()
    assert cli.main([*options, "--resume"]) == 2
    assert f"started with {package} 0.0.1, but" in capsys.readouterr().err


@pytest.mark.usefixtures("without_report")
def test_resume_alone_uses_the_stored_options(options, tmp_path, capsys):
    more = ["--compare", "mse,l1", "--topk", "3", "--size", "16", "--channels", "1"]
    more += ["--smooth-sigma", "1e-5", "--grad-clip", "0.5", "--amp", "bfloat16"]
    assert cli.main([*options, *more]) == 0
    capsys.readouterr()
    folder = tmp_path / "run"
    before = read_metrics(folder)
    assert cli.main(["--out", str(folder), "--resume"]) == 0
    assert "already finished" in capsys.readouterr().err
    assert read_metrics(folder) == before
    del before["arms"]["l1"]
    (folder / METRICS).write_text(json.dumps(before))
    assert cli.main(["--out", str(folder), "--resume"]) == 0
    assert list(read_metrics(folder)["arms"]) == ["mse", "l1"]


NEWER = ("fit", "bit_depth", "skip_bad", "hold_out", "false_positive_rate", "mean_filter")
"""Options that older versions of train.py did not have."""


def as_an_older_version_left_it(folder: Path, *, unfinished: bool) -> None:
    """Remove from a run what older versions did not write, and the last loss if unfinished."""
    metrics = read_metrics(folder)
    for name in NEWER:
        del metrics["config"][name]
    del metrics["scoring"]["mean_filter"]
    for name in ("found", "notices", "held_out", "preparation", "train_digest", "test_digest"):
        del metrics["data"][name]
    del metrics["baselines"], metrics["effective_batch_size"]
    if unfinished:
        metrics["arms"].popitem()
    (folder / METRICS).write_text(json.dumps(metrics))
    for path in folder.glob("*/checkpoint.pt"):
        state = torch.load(path, weights_only=True)
        del state["detector"], state["options"]
        torch.save(state, path)


@pytest.mark.usefixtures("without_report")
@pytest.mark.parametrize("unfinished", [False, True])
def test_a_run_of_an_older_version_is_resumed(options, tmp_path, unfinished):
    folder = tmp_path / "run"
    assert cli.main([*options, "--compare", "mse,l1"]) == 0
    whole = results(folder)
    as_an_older_version_left_it(folder, unfinished=unfinished)
    assert cli.main(["--out", str(folder), "--resume"]) == 0
    resumed = results(folder)
    for entry in ("arms", "baselines"):
        assert resumed[entry] == whole[entry]
    assert resumed["scoring"] | {"mean_filter": 0} == whole["scoring"]


@pytest.mark.usefixtures("without_report")
@pytest.mark.parametrize("unfinished", [False, True])
def test_more_epochs_give_what_a_run_with_them_gives(options, tmp_path, capsys, unfinished):
    options += ["--compare", "mse,amplified-ssim"]
    whole, raised = tmp_path / "whole", tmp_path / "raised"
    assert cli.main([*options, "--epochs", "5", "--out", str(whole)]) == 0
    assert cli.main([*options, "--epochs", "2", "--out", str(raised)]) == 0
    if unfinished:
        change(raised, lambda metrics: metrics["arms"].pop("amplified-ssim"))
    assert cli.main(["--out", str(raised), "--resume", "--epochs", "5"]) == 0
    assert_same_run(raised, whole)
    capsys.readouterr()
    assert cli.main(["--out", str(raised), "--resume", "--epochs", "4"]) == 2
    assert "with --epochs 5, which can only be raised, not lowered to 4" in capsys.readouterr().err


@pytest.mark.usefixtures("without_report")
def test_resume_without_a_run_starts_one(options, tmp_path, capsys):
    assert cli.main([*options, "--loss", "mse", "--resume"]) == 0
    assert f"{tmp_path / 'run'} holds no run yet: starting a new one" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--epochs", "3"]])
def test_resume_alone_without_a_run_is_an_error(tmp_path, capsys, more):
    folder = tmp_path / "typo"
    assert cli.main(["--out", str(folder), "--resume", *more]) == 2
    assert f"error: --resume: {folder} holds no run" in capsys.readouterr().err
    assert not folder.exists()


# --- files that are not as train.py left them ---------------------------------------------------


@pytest.fixture
def half_run(options, tmp_path, monkeypatch):
    """A run that was stopped after the first epoch of its only loss."""
    monkeypatch.setattr("uad.cli.train_run.write_report", lambda folder: None)
    assert cli.main([*options, "--loss", "mse", "--epochs", "1"]) == 0
    folder = tmp_path / "run"
    change(folder, lambda metrics: (metrics["arms"].clear(), metrics["config"].update(epochs=2)))
    return folder


def error_of_resuming(folder: Path, capsys) -> str:
    """The message after --resume, which must be one line and change no file."""
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert cli.main(["--out", str(folder), "--resume"]) == 2
    printed = capsys.readouterr()
    announced = printed.out.splitlines()
    assert len(announced) <= 1
    assert all(line.endswith(f"; cpu, 1 thread; out {folder}") for line in announced)
    (error,) = printed.err.splitlines()
    assert error.startswith("train.py: error: ")
    assert files == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not written by train.py, or damaged: Expecting value"),
        ('{"config": {', "not written by train.py, or damaged: Expecting"),
        ("[]", "not written by train.py, or damaged: the content must be an object"),
        ("{}", "not written by train.py, or damaged: config is missing"),
    ],
)
def test_damaged_metrics_are_named(half_run, capsys, content, message):
    (half_run / METRICS).write_text(content)
    assert f"{half_run / METRICS}: {message}" in error_of_resuming(half_run, capsys)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m["config"].pop("width"), "config.width is missing"),
        (lambda m: m.update(arms=[]), "arms must be an object, got []"),
        (lambda m: m["arms"].update(mse={}), "arms.mse.evaluation is missing"),
        (lambda m: m.update(baselines=None), "baselines must be an object, got null"),
        (lambda m: m["baselines"].update(mine={}), "baselines.mine.image_auroc is missing"),
        (
            lambda m: m["config"].update(epochs=True),
            "config.epochs must be a positive integer, got",
        ),
        (lambda m: m["config"].update(epochs=-1), "config.epochs must be a positive integer, got"),
        (lambda m: m["config"].update(seed=2**32), "config: argument --seed: must be an integer"),
        (
            lambda m: m["config"].update(loss="psnr"),
            "config.loss must be one of mse, amplified-mse",
        ),
        (lambda m: m["config"].update(lr="fast"), 'config.lr must be a positive number, got "fast'),
        (lambda m: m["config"].update(speed=3), "config: no such option: --speed"),
        (lambda m: m["config"].update(help=True), "config: no such option: --help"),
        (lambda m: m["config"].update(eps=7.0), "eps must satisfy"),
        (lambda m: m["config"].update(topk=5), "config and scoring contradict each other"),
    ],
)
def test_edited_metrics_are_named(half_run, capsys, edit, message):
    change(half_run, edit)
    error = error_of_resuming(half_run, capsys)
    assert str(half_run / METRICS) in error
    assert message in error


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (torch.zeros(3), "not a checkpoint of train.py"),
        ({"state_dict": {}}, "not a checkpoint of this run: 'epoch' is missing"),
        ({"epoch": 1, "model": {"conv.weight": torch.zeros(2)}}, "Error(s) in loading state_dict"),
        ({"detector": {"loss": "l1"}, "epoch": 1}, "it was trained with loss l1, not mse"),
        ({"options": {"learning_rate": 1.0}}, "it was trained with learning_rate 1.0, not 0.001"),
        ({"epoch": 7}, "it has 7 epochs, not 2 at most"),
    ],
)
def test_a_foreign_checkpoint_is_named(half_run, capsys, state, message):
    path = half_run / "mse" / "checkpoint.pt"
    torch.save(state, path)
    error = error_of_resuming(half_run, capsys)
    assert f"{path}: " in error
    assert message in error
    assert "delete it and use --resume" in error
    path.unlink()
    assert cli.main(["--out", str(half_run), "--resume"]) == 0


# --- any kind of end ----------------------------------------------------------------------------


class Crash(BaseException):
    """Like a kill, it is caught nowhere."""


@pytest.mark.usefixtures("without_report")
@pytest.mark.parametrize(
    "end",
    [
        Crash(),
        pytest.param(
            OSError(errno.ENOSPC, "No space left on device"),
            marks=pytest.mark.thorough("another end of the same writes"),
        ),
    ],
)
def test_a_failure_of_any_write_changes_no_number(options, tmp_path, monkeypatch, capsys, end):
    options += ["--compare", "mse,amplified-ssim"]
    assert cli.main(options) == 0

    replace = os.replace
    done = False
    failures = 0
    while not done:
        remaining = iter(range(failures))

        def replace_or_fail(source, target, remaining=remaining):
            if next(remaining, None) is None:
                raise end
            replace(source, target)

        folder = tmp_path / f"failure-{failures}"
        monkeypatch.setattr(os, "replace", replace_or_fail)
        capsys.readouterr()
        try:
            done = cli.main([*options, "--out", str(folder)]) == 0
        except Crash:
            assert end.__class__ is Crash
        if not done:
            failures += 1
            if isinstance(end, OSError):
                last = capsys.readouterr().err.splitlines()[-1]
                assert last.startswith(f"train.py: error: {folder}")
                assert last.endswith("cannot be written: No space left on device")
            assert not list(tmp_path.rglob("*.tmp"))
            monkeypatch.setattr(os, "replace", replace)
            assert cli.main([*options, "--out", str(folder), "--resume"]) == 0
        assert_same_run(tmp_path / "run", folder)
    # The lock's owner, metrics.json at the start, and for each of the two losses three
    # checkpoints, two files of the evaluation and metrics.json.
    assert failures == 2 + 2 * 6


@pytest.mark.usefixtures("without_report")
def test_ctrl_c_ends_cleanly_and_says_how_to_continue(options, program, tmp_path):
    folder = tmp_path / "stopped"
    options += ["--loss", "mse", "--epochs", "100000", "--out", str(folder)]
    command = [sys.executable, str(program), *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not (folder / "mse" / "checkpoint.pt").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert printed.splitlines()[1:] == []  # only what was found
    assert errors.splitlines()[-1] == (
        f"train.py: stopped; to continue: python python/train.py --out {folder} --resume"
    )
    assert "Traceback" not in errors
    assert not (folder / ".owner.json").exists()
    assert not list(folder.rglob("*.tmp"))


def test_ctrl_c_before_anything_is_written_says_so(options, tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("uad.cli.train_run.rehearse", interrupt)
    assert cli.main(options) == 130
    assert "stopped; nothing was written; repeat the command" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def train_slowly(arguments: list[str]) -> None:
    """Train in a process of its own, with epochs long enough to count from outside."""
    step = Trainer.step

    def slow_step(trainer, images, hidden):
        time.sleep(0.01)
        return step(trainer, images, hidden)

    with mock.patch.object(Trainer, "step", slow_step):
        cli.main(arguments)


def write_count(folder: Path) -> Iterator[int]:
    """How many times a checkpoint or metrics.json was replaced so far; ask often."""
    seen: set[tuple[str, int]] = set()
    first = None
    while True:
        for path in (*folder.glob("*/checkpoint.pt"), folder / METRICS):
            with suppress(FileNotFoundError):
                seen.add((str(path), path.stat().st_mtime_ns))
        first = len(seen) if first is None else first
        yield len(seen) - first


@pytest.mark.usefixtures("without_report")
def test_twelve_kills_change_no_number(options, tmp_path, monkeypatch):
    options += ["--compare", "amplified-mse,amplified-ssim", "--epochs", "50"]
    assert cli.main(options) == 0
    killed = tmp_path / "killed"
    # A server that has imported everything forks each process, which then starts at once. Before
    # Python 3.13 it knows only the path of the environment.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    context = multiprocessing.get_context("forkserver")
    # Building an optimizer imports torch._dynamo.
    context.set_forkserver_preload(["uad.cli.train_run", "torch._dynamo", __name__])

    moments = random.Random(16)
    writes = [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]  # until the kill, 55 of about 110
    moments.shuffle(writes)
    for number in writes:
        writing = write_count(killed)
        next(writing)
        process = context.Process(
            target=train_slowly, args=([*options, "--out", str(killed), "--resume"],)
        )
        process.start()
        while str(process.pid) not in owner(killed) or next(writing) < number:
            assert process.is_alive()
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.03))  # an epoch takes about as long
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    arms = read_metrics(killed)["arms"]
    unfinished = "amplified-ssim" if arms else "amplified-mse"
    state = torch.load(killed / unfinished / "checkpoint.pt", weights_only=True)
    print(f"after twelve kills: {list(arms)} finished, {unfinished} at epoch {state['epoch']}")
    assert len(arms) < 2
    assert cli.main(["--out", str(killed), "--resume"]) == 0
    assert_same_run(tmp_path / "run", killed)
