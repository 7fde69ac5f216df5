"""train.py from its options to its run folder: errors, comparison, resumption."""

from __future__ import annotations

import ast
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from run_results import read_metrics, weights
from uad import data
from uad.batches import effective_batch_size
from uad.cli import train as cli
from uad.cli import train_run
from uad.cli.train_options import build_parser
from uad.data import Preparation
from uad.losses import LossSettings
from uad.options import Scoring
from uad.threshold import choose_threshold
from uad.training import Trainer
from uad.wording import float32_text

from lamp_kernels import backends

PACKAGE = Path(data.__file__).parents[1]


# --- a whole run --------------------------------------------------------------------------------


def test_comparison_trains_alike_and_leaves_a_run_folder(options, tmp_path, capsys, monkeypatch):
    first_steps: dict[str, list[torch.Tensor]] = {}
    batches: dict[str, list[torch.Tensor]] = {}
    step = Trainer.step

    def spy(trainer, images, hidden):
        if trainer.name not in first_steps:
            first_steps[trainer.name] = [p.detach().clone() for p in trainer.network.parameters()]
        batches.setdefault(trainer.name, []).append(images)
        return step(trainer, images, hidden)

    monkeypatch.setattr(Trainer, "step", spy)
    losses = ["mse", "amplified-mse", "amplified-ssim"]
    assert cli.main([*options, "--compare", ",".join(losses)]) == 0

    for loss in losses[1:]:
        for one, other in zip(first_steps["mse"], first_steps[loss], strict=True):
            assert torch.equal(one, other)
        for one, other in zip(batches["mse"], batches[loss], strict=True):
            assert torch.equal(one, other)
    assert not torch.equal(batches["mse"][0], batches["mse"][2])  # each epoch has another order

    folder = tmp_path / "run"
    metrics = read_metrics(folder)
    assert list(metrics["arms"]) == losses
    assert metrics["config"]["eps"] == 0.01
    assert metrics["config"]["compare"] == losses
    assert metrics["data"]["size"] == [1, 32, 32]
    assert metrics["data"]["train"] == 20
    assert metrics["data"]["test_normal"] == 4
    assert metrics["data"]["test_anomalous"] == 8
    assert metrics["data"]["kinds"] == {"block": 4, "dot": 4, "good": 4}
    assert metrics["environment"]["torch"] == torch.__version__
    assert metrics["environment"]["threads"] == 1
    for loss, arm in metrics["arms"].items():
        assert arm["steps"] == 4
        assert arm["parameters"] == sum(p.numel() for p in weights(folder, loss).values())
        assert arm["history"]["epoch"] == [1, 2]
        assert len(arm["history"]["loss"]) == 2
        assert all(0 <= share <= 1 for share in arm["history"]["tangent_share"])
        assert set(arm["evaluation"]["per_kind"]) == {"dot", "block"}
        assert arm["seconds_per_step"] > 0
        assert 0 < arm["loss_share"] < 1
        assert (folder / loss / "evaluation.npz").exists()
    assert (folder / "examples.npz").exists()
    assert not list(folder.rglob("*.tmp"))
    assert "</html>" in (folder / "report.html").read_text()

    captured = capsys.readouterr()
    best = max(arm["evaluation"]["image_auroc"] for arm in metrics["arms"].values())
    assert f"{best:.4f} (95% interval " in " ".join(captured.out.split())
    assert "mse: epoch 2/2, loss " in captured.err
    lines = captured.out.splitlines()
    found, header, *rows = (line for line in lines if line)
    assert "20 normal for training" in found
    assert " ".join(header.split()) == (
        "loss image AUROC pixel AUROC AUPRO AP PSNR normal s/step loss time / step time"
    )
    for row, (loss, arm) in zip(rows, metrics["arms"].items(), strict=False):
        assert row.split()[:2] == [loss, f"{arm['evaluation']['image_auroc']:.4f}"]
    assert set(metrics["baselines"]) == {"mean image", "blurred copy"}
    for name, evaluated in metrics["baselines"].items():
        assert set(evaluated) == set(metrics["arms"]["mse"]["evaluation"])
        assert any(line.startswith(f"baseline: {name} ") for line in lines)
    assert ["kind", *losses, "mean", "image", "blurred", "copy"] in [line.split() for line in lines]
    assert any(line.split()[:1] == ["block"] and len(line.split()) == 6 for line in lines)
    assert lines[-1] == f"report: {folder / 'report.html'}"


def test_help_warns_of_the_local_batch():
    text = " ".join(build_parser().format_help().split())
    assert "the mean over the batch (under torchrun, over the local batch of each process)" in text


def test_only_command_lines_parse_arguments_and_import_each_other():
    """A module of the library that imports a command line could not be used without it."""
    modules = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "cli"]
    assert len(modules) > 30
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in getattr(node, "names", [])]
            names.append(getattr(node, "module", None) or "")
            assert not any(name == "argparse" or name.startswith("uad.cli") for name in names), path


@pytest.mark.usefixtures("without_report")
def test_amp_and_scoring_options_reach_the_run(options, tmp_path):
    scoring = ["--score-metric", "gms", "--mean-filter", "3", "--smooth-sigma", "1"]
    scoring += ["--pooling", "max"]
    assert cli.main([*options, "--loss", "ssim+msgms+mse", "--amp", "bfloat16", *scoring]) == 0
    metrics = read_metrics(tmp_path / "run")
    assert metrics["scoring"]["metric"] == "gms"
    assert metrics["scoring"]["mean_filter"] == 3
    assert metrics["scoring"]["smooth_sigma"] == 1.0
    assert metrics["scoring"]["pooling"] == "max"
    assert list(metrics["arms"]) == ["ssim+msgms+mse"]


@pytest.mark.usefixtures("without_report")
@pytest.mark.parametrize(
    ("asked", "used", "reason"),
    [
        ("8", 8, None),
        ("32", 20, "is larger than the training set of 20 images"),
        ("12", 10, "would drop 8 of the 20 training images from every epoch"),
    ],
)
def test_a_batch_that_wastes_images_is_made_smaller(options, tmp_path, capsys, asked, used, reason):
    assert cli.main([*options, "--loss", "mse", "--epochs", "1", "--batch-size", asked]) == 0
    metrics = read_metrics(tmp_path / "run")
    assert metrics["config"]["batch_size"] == int(asked)
    assert metrics["effective_batch_size"] == used
    assert metrics["arms"]["mse"]["steps"] == 20 // used
    told = [line for line in capsys.readouterr().err.splitlines() if "--batch-size" in line]
    assert told == ([f"--batch-size {asked} {reason}: using {used}"] if reason else [])


@pytest.mark.parametrize(
    ("images", "asked", "processes", "size"),
    [
        (100, 32, 1, 32),  # drops 4
        (60, 32, 1, 30),  # would drop 28
        (1, 32, 1, 1),
        (21, 32, 2, 20),  # a multiple of 2
        (5, 4, 2, 4),
        (1, 4, 2, 0),
    ],
)
def test_effective_batch_size(images, asked, processes, size):
    assert effective_batch_size(images, asked, processes) == size


def test_good_images_alone_give_a_threshold_and_a_checkpoint_to_score_with(
    options, image_root, tmp_path, capsys
):
    root = tmp_path / "plant"
    shutil.copytree(image_root / "train", root / "train")
    rate = ("--false-positive-rate", "0.25")
    assert cli.main([*options, "--root", str(root), "--loss", "mse", *rate]) == 0
    printed = capsys.readouterr()
    first = printed.out.splitlines()[0]
    notice = printed.err.splitlines()[0]
    assert first.startswith("plant: 16 normal for training, 4 normal for testing; ")
    assert first.endswith(f"; cpu, 1 thread; out {tmp_path / 'run'}")
    assert "held out from training" in notice

    detector = torch.load(tmp_path / "run" / "mse" / "checkpoint.pt", weights_only=True)["detector"]
    fingerprints, scores = detector.pop("fingerprints"), detector.pop("normal_scores")
    assert detector == {
        "format": 1,
        "loss": "mse",
        "loss_settings": asdict(LossSettings()),
        "data": "plant, 32x32 pixels",
        "network": {"channels": 1, "width": 4, "latent": 2},
        "preparation": Preparation(32, 1).to_dict(),
        "scoring": asdict(Scoring()),
        "false_positive_rate": 0.25,
    }
    assert len(set(fingerprints)) == 16
    with np.load(tmp_path / "run" / "mse" / "evaluation.npz") as evaluated:
        assert scores == evaluated["scores"].tolist()
    chosen = choose_threshold(scores, 0.25)
    assert chosen.met
    assert f"mse: threshold {float32_text(chosen.value)}, from 4 normal images" in printed.out
    assert "too few" not in printed.out

    assert cli.main([*options, "--root", str(root), "--loss", "mse", "--out", str(root / "r")]) == 0
    assert (
        "too few for a false-positive rate of 5%, which requires at least 19"
        in capsys.readouterr().out
    )


def test_a_low_rate_is_not_rounded_to_zero(tmp_path):
    (tmp_path / "mse").mkdir()
    scores = np.linspace(0, 1, 2499, dtype=np.float32)
    np.savez(tmp_path / "mse" / "evaluation.npz", scores=scores, kinds=np.array(["good"] * 2499))
    text = train_run.thresholds(tmp_path, {"arms": {"mse": {}}}, 0.0004)
    assert "expected false-positive rate 0.04%, 95% interval 0.001% to 0.1%" in text


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--loss", "psnr"], "--loss: invalid choice: 'psnr'"),
        (["--compare", "mse,psnr"], "--compare: unknown loss 'psnr': choose from mse"),
        (["--compare", "mse,mse"], "--compare: 'mse,mse' names a loss twice"),
        (["--compare", "mse", "--loss", "l1"], "--loss: not allowed with argument --compare"),
        (["--epoch", "3"], "no such option: --epoch; did you mean --epochs?"),
        (["--epochs", "0"], "--epochs: must be a positive integer, got '0'"),
        (["--batch-size", "1.5"], "--batch-size: must be a positive integer, got '1.5'"),
        (["--lr", "0"], "--lr: must be positive, got '0'"),
        (["--lr", "nan"], "--lr: must be a finite number"),
        (["--grad-clip", "-1"], "--grad-clip: must be a finite number, 0 or more, got '-1'"),
        (["--false-positive-rate", "1"], "--false-positive-rate: must be below 1, got '1'"),
        (["--seed", "-1"], "--seed: must be an integer from 0"),
        (["--eps", "0"], "eps must satisfy 1e-06 <= eps < 1, got 0.0"),
        (["--eps", "1.5"], "eps must satisfy 1e-06 <= eps < 1, got 1.5"),
        (["--window-size", "10"], "window_size must be an odd integer from 1 to 31, got 10"),
        (["--size", "16", "--window-size", "31", "--padding", "valid"], "16"),
        (["--smooth-sigma", "inf"], "--smooth-sigma: must be a finite number"),
        (["--mean-filter", "4"], "--mean-filter: must be 0 or an odd integer, got '4'"),
        (["--topk", "1.5"], "1.5"),
        (["--topk", "2000"], "2000"),
        (
            ["--topk", "0.1", "--pooling", "max"],
            "--topk requires --pooling topk, got --pooling max",
        ),
        (
            ["--normal-class", "3"],
            "--normal-class requires --data fashion-mnist or mnist, got --data folder",
        ),
        (["--size", "8"], "size must be at least 16 pixels, got 8"),
        (["--category", "bottle"], "bottle"),
        (["--root", "nowhere"], "nowhere"),
        (["--width", "1"], "width at least 2"),
        (["--device", "warp"], "--device must be cpu, cuda or cuda:<index>, got warp"),
        (["--device", "meta"], "--device must be cpu, cuda or cuda:<index>, got meta"),
        (["--backend", "fast"], "--backend: invalid choice: 'fast'"),
    ],
)
def test_wrong_options_are_one_line_before_any_work(more, message, options, tmp_path, capsys):
    assert cli.main([*options, *more]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("train.py: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert not (tmp_path / "run").exists()


def test_data_without_root_is_an_error(capsys):
    assert cli.main(["--data", "folder"]) == 2
    assert "folder requires root (--root)" in capsys.readouterr().err


def test_a_file_that_is_not_an_image_is_named(options, image_root, tmp_path, capsys):
    root = tmp_path / "images"
    shutil.copytree(image_root, root)
    (root / "train" / "good" / "03.png").write_text("no image")
    assert cli.main([*options, "--root", str(root)]) == 2
    error = capsys.readouterr().err
    assert "03.png: not a readable image" in error
    assert error.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests a machine without a CUDA device")
def test_missing_cuda_is_an_error(options, capsys):
    assert cli.main([*options, "--device", "cuda"]) == 2
    assert "--device cuda: PyTorch finds no CUDA device" in capsys.readouterr().err


def test_missing_backend_is_an_error(options, capsys, monkeypatch):
    triton = backends.BACKENDS["triton"]
    monkeypatch.setattr(triton, "unavailable_reason", lambda: "not in this test")
    assert cli.main([*options, "--backend", "triton"]) == 2
    assert "backend='triton' is not available: not in this test" in capsys.readouterr().err


def test_batch_size_must_be_a_multiple_of_the_processes(options, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    assert cli.main(options) == 2
    error = capsys.readouterr().err
    assert error.startswith("train.py (process 1): error: ")
    assert "--batch-size must be a multiple of the 3 processes, got 8" in error


def test_folder_that_cannot_be_made_is_an_error(options, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main([*options, "--out", str(tmp_path / "file")]) == 2
    assert "--out must be a folder" in capsys.readouterr().err
    assert cli.main([*options, "--out", str(tmp_path / "file" / "run")]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("resumed", [False, True])
def test_too_little_memory_is_one_line(options, tmp_path, capsys, monkeypatch, resumed):
    def step(trainer, images, hidden):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(Trainer, "step", step)
    if resumed:
        assert cli.main([*options, "--loss", "l1"]) == 1
        capsys.readouterr()
    assert cli.main([*options, "--loss", "l1", *(["--resume"] if resumed else [])]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert error == (
        "train.py: error: out of memory: try a smaller --batch-size or --size, with another "
        f"--out, because the run in {tmp_path / 'run'} keeps its options"
    )


def test_divergence_is_one_line(options, capsys, monkeypatch):
    def step(trainer, images, hidden):
        return images, torch.tensor(float("nan"))

    monkeypatch.setattr(Trainer, "step", step)
    assert cli.main([*options, "--loss", "l1"]) == 1
    assert "error: loss l1 is nan in epoch 1" in capsys.readouterr().err
