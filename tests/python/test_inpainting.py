"""train.py --inpaint: squares of the training images are hidden, and the network fills them in."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from run_results import assert_same_run, read_metrics, weights
from study_lines import result
from torch import nn
from uad.cli import export, landscape, train, train_run
from uad.data import DataError
from uad.detector import load_detector
from uad.distributed import Processes
from uad.inpainting import SETS, InpaintingNetwork, epoch_stream, hidden_squares, random_sets
from uad.losses import LossSettings, build_loss, plain_loss, tangent_share
from uad.options import TrainingOptions
from uad.report.page import write_report
from uad.scoring.page import describe_detector
from uad.study import experiment, images
from uad.study.arms import CONTROLLED, ScaledLoss
from uad.study.measures import primary
from uad.study.questions import comparisons
from uad.study.results import spec_of
from uad.study.spec import RunSpec
from uad.training import Trainer

CPU = torch.device("cpu")


# --- the squares --------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "square"), [(24, 4), (28, 8), (17, 1)])
def test_the_sets_are_of_equal_size_and_made_of_squares(size, square):
    sets = random_sets(5, size, square, np.random.default_rng(0))
    assert sets.shape == (5, 1, size, size)
    for top in range(0, size, square):
        for left in range(0, size, square):
            cell = sets[:, 0, top : top + square, left : left + square].flatten(1)
            assert (cell == cell[:, :1]).all()
    corners = sets[:, 0, ::square, ::square].flatten(1)
    counts = torch.stack([(corners == number).sum(dim=1) for number in range(SETS)])
    assert counts.sum(dim=0).tolist() == [corners.shape[1]] * 5
    assert (counts.amax(dim=0) - counts.amin(dim=0)).max() <= 1
    assert not torch.equal(sets[0], sets[1])


def test_every_pixel_of_a_reconstruction_was_hidden_from_the_network():
    images = torch.rand(3, 2, 20, 20) + 0.5
    assert torch.equal(InpaintingNetwork(nn.Identity(), 4, 20)(images), torch.zeros_like(images))


def test_a_reconstruction_does_not_depend_on_the_other_images_or_on_chance():
    torch.manual_seed(0)
    network = InpaintingNetwork(nn.Conv2d(1, 1, 9, padding=4), 4, 20)
    images = torch.rand(3, 1, 20, 20)
    again = InpaintingNetwork(network.network, 4, 20)(images[1:2])
    torch.testing.assert_close(network(images)[1:2], again)
    assert list(network.state_dict()) == ["network.weight", "network.bias"]


# --- training -----------------------------------------------------------------------------------


def make_trainer(loss, processes, **options):
    torch.manual_seed(0)
    return Trainer(
        "l1",
        nn.Conv2d(1, 1, 3, padding=1),
        loss,
        TrainingOptions(batch_size=4, inpaint=4, **options),
        processes,
        lambda one, other: tangent_share("l1", one, other, LossSettings()),
    )


@pytest.mark.parametrize("counted", ["all", "masked"])
def test_the_network_sees_no_hidden_pixel_and_the_loss_counts_the_chosen_ones(counted):
    loss = build_loss("l1", weighted=True)
    trainer = make_trainer(loss, Processes(0, 1, CPU), inpaint_loss=counted)
    images = torch.rand(4, 1, 20, 20)
    hidden = trainer.hide(images, epoch_stream(0, 1))
    assert hidden is not None
    expected = trainer.network(images * ~hidden)
    reconstruction, value = trainer.reconstruct(images, hidden)
    torch.testing.assert_close(reconstruction, expected)
    errors = (expected - images).abs()
    mean = errors.mean() if counted == "all" else errors[hidden].mean()
    torch.testing.assert_close(value, mean)


def test_the_squares_differ_from_step_to_step_and_from_epoch_to_epoch_but_not_between_losses():
    def squares(loss, epoch):
        trainer = make_trainer(build_loss(loss), Processes(0, 1, CPU))
        torch.rand(3)  # a loss or a network that draws random numbers changes nothing
        stream = epoch_stream(trainer.options.seed, epoch)
        return [trainer.hide(torch.rand(4, 1, 20, 20), stream) for _ in range(2)]

    one, two = squares("mse", 1)
    assert not torch.equal(one, two)
    for other, same in zip((one, two), squares("amplified-ssim", 1), strict=True):
        assert torch.equal(other, same)
    assert not torch.equal(one, squares("mse", 2)[0])


def test_two_processes_hide_together_what_one_process_hides():
    parts = [
        make_trainer(build_loss("mse"), Processes(0, 1, CPU)).hide(
            torch.zeros(4, 1, 20, 20), epoch_stream(0, 1)
        )
    ]
    for rank in range(2):
        trainer = make_trainer(build_loss("mse"), Processes(0, 1, CPU))
        trainer.processes = Processes(rank, 2, CPU)
        parts.append(trainer.hide(torch.zeros(2, 1, 20, 20), epoch_stream(0, 1)))
    whole, *halves = parts
    assert torch.equal(whole, torch.cat(halves))
    assert torch.equal(whole, hidden_squares(4, 20, 4, epoch_stream(0, 1)))


# --- the programs -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(image_root, tmp_path_factory):
    """A run folder with one loss, trained to inpaint and evaluated. Tests must not change it."""
    folder = tmp_path_factory.mktemp("runs") / "inpainted"
    assert train.main([*arguments(image_root, folder), "--epochs", "2"]) == 0
    return folder


def arguments(image_root, folder):
    return [
        *("--data", "folder", "--root", str(image_root), "--size", "32", "--batch-size", "8"),
        *("--width", "4", "--latent", "2", "--device", "cpu", "--threads", "1"),
        *("--loss", "amplified-ssim", "--inpaint", "4", "--inpaint-loss", "masked"),
        *("--out", str(folder)),
    ]


def test_a_checkpoint_alone_inpaints_and_gives_the_scores_of_the_run(run, image_root, tmp_path):
    moved = shutil.copy(run / "amplified-ssim" / "checkpoint.pt", tmp_path / "stripes.pt")
    detector = load_detector(moved)
    assert detector.inpaint == 4
    kinds = ("good", "block", "dot")
    paths = [path for kind in kinds for path in sorted((image_root / "test" / kind).iterdir())]
    scores = [result.score for result in detector.score(paths, batch_size=5)]
    with np.load(run / "amplified-ssim" / "evaluation.npz") as arrays:
        np.testing.assert_allclose(scores, arrays["scores"], rtol=1e-5)
    assert "inpaints squares of 4 pixels" in describe_detector(detector)


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_an_exported_file_inpaints_too(run, tmp_path, kind, capsys):
    for name in ("onnx", "onnxscript", "onnxruntime") if kind == "onnx" else ():
        pytest.importorskip(name, reason=f"{name} is not installed; requirements-dev.txt has it")
    out = tmp_path / {"torch": "network.pt2", "onnx": "network.onnx"}[kind]
    assert export.main([str(run), "--format", kind, "--out", str(out)]) == 0
    assert "greatest difference from PyTorch" in capsys.readouterr().out


def test_a_resumed_run_ends_with_the_same_numbers(run, image_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_run, "write_report", lambda folder: None)
    resumed = tmp_path / "resumed"
    assert train.main([*arguments(image_root, resumed), "--epochs", "1"]) == 0
    start = weights(resumed, "amplified-ssim")
    command = ["--out", str(resumed), "--resume", "--epochs", "2"]
    assert train.main([*command, "--inpaint", "8"]) == 2
    assert "was started with --inpaint 4, not 8" in capsys.readouterr().err
    assert train.main(command) == 0
    assert_same_run(resumed, run)
    assert any(
        not torch.equal(value, start[name])
        for name, value in weights(resumed, "amplified-ssim").items()
    )


def test_the_report_says_how_the_network_inpaints(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    text = write_report(copy).read_text()
    assert "was trained to fill in hidden squares of" in text
    assert "squares of 4&times;4 pixels" in text
    assert "the loss counts the hidden pixels only" in text
    assert read_metrics(run)["config"]["inpaint"] == 4


def test_a_landscape_of_hidden_squares_is_refused(run, capsys):
    assert landscape.main([str(run)]) == 2
    assert "trained with --inpaint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--inpaint", "17"], "inpaint must be from 1 to half of the image's side, 16, got 17"),
        (["--inpaint", "0"], "--inpaint"),
        (["--inpaint-loss", "masked"], "--inpaint-loss masked requires --inpaint"),
    ],
)
def test_an_unusable_option_is_an_error_before_training(options, tmp_path, capsys, more, message):
    assert train.main([*options, "--loss", "mse", *more]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.json").exists()


# --- the study ----------------------------------------------------------------------------------

SPEC = RunSpec("textures", "brick", "l1", 0, epochs=1, size=32, width=4, latent=2, inpaint=8)


def test_runs_of_a_study_differ_by_how_they_inpaint():
    specs = [replace(SPEC, inpaint=None), SPEC, replace(SPEC, inpaint_loss="masked")]
    lines = [experiment.run(spec, None) for spec in specs]
    assert len({line["error_normal"]["mse"] for line in lines}) == 3
    assert [spec_of(json.loads(json.dumps(line))) for line in lines] == specs
    again = experiment.run(specs[2], None)
    assert again["error_normal"] == lines[2]["error_normal"]


def test_runs_are_paired_only_if_they_inpaint_alike():
    ways: tuple[dict[str, Any], ...] = (
        {},
        {"inpaint": 4},
        {"inpaint": 4, "inpaint_loss": "masked"},
    )
    lines = [
        result(loss, normal_class, auroc=0.5 + 0.1 * number, **way)
        for number, way in enumerate(ways)
        for loss in ("mse", "amplified-mse")
        for normal_class in range(2)
    ]
    groups = comparisons(lines)
    assert [str(setting) for setting in groups] == [
        "Fashion-MNIST, 16-channel code, Adam",
        "Fashion-MNIST, 16-channel code, Adam, inpainting 4x4, loss on all pixels",
        "Fashion-MNIST, 16-channel code, Adam, inpainting 4x4, loss on masked pixels",
    ]
    assert len({setting.slug for setting in groups}) == 3
    for group in groups.values():
        for comparison in group:
            found = comparison.difference(primary("fashion-mnist"))
            assert found is not None
            assert [pair.difference for pair in found.pairs] == [0.0, 0.0]


@pytest.mark.parametrize("metric", CONTROLLED)
def test_the_control_takes_its_slope_from_the_hidden_pixels(metric):
    torch.manual_seed(0)
    image, reconstruction = torch.rand(2, 2, 1, 32, 32)
    hidden = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    hidden[:, :, 8:24] = True
    control = ScaledLoss(metric, LossSettings(), weighted=True)
    elements = plain_loss(metric, LossSettings(), reduction="none")(reconstruction, image)
    expected = (1 / (1 - elements[hidden]).clamp_min(1e-2)).mean()
    torch.testing.assert_close(control.mean_slope(reconstruction, image, hidden.float()), expected)
    torch.testing.assert_close(
        control(reconstruction, image, hidden.float()), expected * elements[hidden].mean()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inpaint": 0}, "inpaint must be an integer of at least 1, got 0"),
        ({"inpaint": None, "inpaint_loss": "masked"}, "inpaint_loss 'masked' requires inpaint"),
        ({"inpaint_loss": "hidden"}, "inpaint_loss must be one of all, masked; got 'hidden'"),
    ],
)
def test_an_unusable_key_of_a_grid_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        replace(SPEC, **options)


def test_squares_too_large_for_the_images_are_an_error_before_any_training():
    with pytest.raises(DataError, match="inpaint must be at most half of the image's side, 16"):
        images.examine([replace(SPEC, inpaint=17)], None)
