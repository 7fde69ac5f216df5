"""The runs of a study: grid, arms, a single run, resumption."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from study_lines import result
from torch import nn
from uad.cli import study as cli
from uad.losses import LossSettings, build_loss
from uad.study import experiment
from uad.study.arms import ARMS, CONTROLLED, ScaledLoss, build_arm
from uad.study.grid import GridError, read_grid
from uad.study.questions import comparisons
from uad.study.results import ResultsError, ResultsFile, read_results, spec_of
from uad.study.spec import RunSpec
from uad.study.stuck import mark_stuck
from uad.training import Trainer

SMALL = RunSpec("textures", "brick", "mse", 0, epochs=1, size=32, width=4, latent=2)
BLOCK = {"dataset": "textures", "normal_class": "brick", "seed": 0, "loss": "mse"}


def write_grid(path, *blocks):
    path.write_text(json.dumps({"blocks": blocks}))
    return path


def without_time(result):
    return {name: value for name, value in result.items() if name not in ("seconds", "date")}


# --- the grid -----------------------------------------------------------------------------------


def test_a_block_expands_to_all_combinations_the_last_name_fastest(tmp_path):
    block = {**BLOCK, "note": "why", "seed": [0, 1], "loss": ["mse", "amplified-mse"]}
    specs = read_grid(write_grid(tmp_path / "grid.json", block))
    assert [(spec.seed, spec.loss) for spec in specs] == [
        (0, "mse"), (0, "amplified-mse"), (1, "mse"), (1, "amplified-mse"),
    ]  # fmt: skip


def test_runs_that_blocks_share_are_made_once_and_plain_losses_have_no_eps(tmp_path):
    block = {**BLOCK, "loss": ["mse", "amplified-mse"]}
    specs = read_grid(write_grid(tmp_path / "grid.json", block, {**block, "eps": [1e-2, 1e-3]}))
    assert [(spec.loss, spec.eps) for spec in specs] == [
        ("mse", 1e-2), ("amplified-mse", 1e-2), ("amplified-mse", 1e-3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "mae"}, "scaled-gms; got 'mae'; did you mean 'mse'?"),
        ({"normal_class": 0}, "normal_class must be one of brick, grass, gravel; got 0"),
        ({"dataset": "cifar"}, "folder; got 'cifar'"),
        ({"epoch": 3}, "unknown key 'epoch'; did you mean 'epochs'? (keys: dataset, "),
        ({"epochs": 0}, "epochs must be an integer of at least 1, got 0"),
        ({"eps": 1.0}, "eps must be a float above 0 and below 1, got 1.0"),
        ({"learning_rate": "fast"}, "learning_rate must be a finite float above 0, got 'fast'"),
        ({"seed": []}, "seed must list at least one value"),
        ({"optimizer": "adagrad"}, "optimizer must be one of adam, sgd; got 'adagrad'"),
        (
            {"dataset": "folder", "normal_class": 1},
            "normal_class must be the name of a category, got 1",
        ),
    ],
)
def test_a_wrong_grid_is_an_error_that_names_the_block(tmp_path, change, message):
    path = write_grid(tmp_path / "grid.json", BLOCK, {**BLOCK, **change})
    with pytest.raises(GridError, match="block 2") as raised:
        read_grid(path)
    assert message in str(raised.value)


@pytest.mark.parametrize("text", ["", "[]", '{"runs": []}', '{"blocks": []}'])
def test_a_file_that_is_not_a_grid_is_an_error(tmp_path, text):
    path = tmp_path / "grid.json"
    path.write_text(text)
    with pytest.raises(GridError, match=r"grid\.json"):
        read_grid(path)


# --- the arms -----------------------------------------------------------------------------------


def gradient(loss, reconstruction, image):
    leaf = reconstruction.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf, image), leaf)[0]


@pytest.mark.parametrize("metric", CONTROLLED)
def test_the_control_has_the_plain_gradient_times_the_mean_slope(metric):
    torch.manual_seed(0)
    image, reconstruction = torch.rand(2, 3, 1, 32, 32)
    control = ScaledLoss(metric, LossSettings())
    slope = control.mean_slope(reconstruction, image)
    assert slope > 1.01
    plain = gradient(build_loss(metric), reconstruction, image)
    torch.testing.assert_close(gradient(control, reconstruction, image), slope * plain)


@pytest.mark.parametrize("metric", ["mse", "l1"])
def test_the_control_equals_the_amplified_loss_where_all_errors_are_equal(metric):
    image = torch.zeros(2, 1, 32, 32)
    reconstruction = torch.full_like(image, 0.8)
    amplified = gradient(build_loss(f"amplified-{metric}"), reconstruction, image)
    control = gradient(build_arm(f"scaled-{metric}", LossSettings()), reconstruction, image)
    torch.testing.assert_close(control, amplified)


def test_arms_start_from_the_same_weights(monkeypatch):
    monkeypatch.setattr(Trainer, "fit", lambda self, train, path: None)
    data = experiment.load_data("textures", "brick", 32, 0, None)
    networks = [experiment.train(replace(SMALL, loss=loss), data).network for loss in ARMS]
    other = experiment.train(replace(SMALL, seed=1), data).network
    for name, weight in networks[0].state_dict().items():
        assert all(torch.equal(weight, each.state_dict()[name]) for each in networks)
        assert not torch.equal(weight, other.state_dict()[name])


# --- one run ------------------------------------------------------------------------------------


def test_a_run_prints_nothing(capfd):
    """With many runs in parallel, a line per epoch of each would bury the study's progress."""
    experiment.run(SMALL, None)
    assert capfd.readouterr() == ("", "")


def test_a_run_can_be_repeated_and_losses_differ():
    first = experiment.run(SMALL, None)
    assert without_time(experiment.run(SMALL, None)) == without_time(first)
    other = experiment.run(replace(SMALL, loss="amplified-mse"), None)
    assert other["error_normal"] != first["error_normal"]
    for figure in ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro"):
        assert list(first[figure]) == list(experiment.SCORES["textures"])
        assert all(0 < value <= 1 for value in first[figure].values())
    assert spec_of(first) == SMALL


class Constant(nn.Module):
    def forward(self, images):
        return torch.full_like(images, 0.5)


def test_errors_of_normal_and_anomalous_images_are_separate():
    data = experiment.load_data("textures", "brick", 32, 0, None)
    figures = experiment.judge(Constant(), data, experiment.SCORES["textures"])
    squares = (data.test.float() / 255 - 0.5).square().mean(dim=(1, 2, 3)).numpy()
    normal = np.array(data.kinds) == "good"
    assert figures["error_normal"]["mse"] == pytest.approx(squares[normal].mean(), rel=1e-5)
    assert figures["error_anomalous"]["mse"] == pytest.approx(squares[~normal].mean(), rel=1e-5)


def test_the_error_of_the_mean_image_is_that_of_a_network_that_ignores_its_input():
    data = experiment.load_data("textures", "brick", 32, 0, None)
    mean = data.train.float().mean(dim=0) / 255

    class Mean(nn.Module):
        def forward(self, images):
            return mean.expand_as(images)

    figures = experiment.judge(Mean(), data, experiment.SCORES["textures"])
    found = experiment.mean_image_error(data)
    assert found == pytest.approx(figures["error_normal"]["mse"], rel=1e-5)


def test_an_image_with_a_missing_mask_has_no_part_in_the_pixel_figures():
    data = experiment.load_data("textures", "brick", 32, 0, None)
    assert data.masks is not None
    place = next(index for index, kind in enumerate(data.kinds) if kind != "good")
    known = torch.ones(len(data.kinds), dtype=torch.bool)
    known[place] = False
    masks = data.masks.clone()
    masks[place] = False
    scores = experiment.SCORES["textures"]
    unknown = experiment.judge(Constant(), replace(data, masks=masks, annotated=known), scores)
    wrong = experiment.judge(Constant(), replace(data, masks=masks), scores)
    whole = experiment.judge(Constant(), data, scores)
    assert unknown["image_auroc"] == whole["image_auroc"]
    kept = [index for index in range(len(data.kinds)) if index != place]
    rest = replace(
        data,
        test=data.test[kept],
        masks=masks[kept],
        kinds=tuple(data.kinds[index] for index in kept),
        annotated=None if data.annotated is None else data.annotated[kept],
    )
    expected = experiment.judge(Constant(), rest, scores)
    for figure in ("pixel_auroc", "pixel_ap", "aupro"):
        assert unknown[figure] == expected[figure]
        assert unknown[figure] != wrong[figure]


def test_a_training_that_diverges_is_a_result_without_figures(monkeypatch):
    monkeypatch.setattr(
        experiment, "build_arm", lambda *_, **__: lambda x, y: (x - y).sum() * torch.nan
    )
    result = experiment.run(SMALL, None)
    assert "loss mse is nan in epoch 1" in result["failed"]
    assert "image_auroc" not in result


def test_a_study_can_use_a_folder_of_images(image_root, tmp_path):
    block = {"dataset": "folder", "normal_class": image_root.name, "seed": 0, "loss": "mse"}
    options = {"epochs": 1, "batch_size": 10, "size": 32, "width": 4, "latent": 2}
    grid = write_grid(tmp_path / "grid.json", {**block, **options})
    results = tmp_path / "study.jsonl"
    arguments = ["run", str(grid), "--results", str(results), "--root", str(image_root.parent)]
    assert cli.main(arguments) == 0
    (result,) = read_results(results)
    assert result["normal_class"] == image_root.name
    assert 0 < result["pixel_auroc"]["mse top 1 %"] <= 1


# --- many runs ----------------------------------------------------------------------------------


def test_a_killed_study_resumes_without_repeating_runs(tmp_path):
    block = {**BLOCK, "epochs": 1, "size": 32, "width": 4, "latent": 2}
    grid = write_grid(tmp_path / "grid.json", {**block, "loss": ["mse", "amplified-mse", "l1"]})
    path = tmp_path / "results" / "study.jsonl"
    arguments = ["run", str(grid), "--results", str(path)]
    assert cli.main([*arguments, "--processes", "2"]) == 0
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 3
    path.write_bytes(b"".join(lines[:2]) + lines[2][:50])  # killed while it wrote the last line
    assert len(read_results(path)) == 2
    assert cli.main(arguments) == 0
    again = path.read_bytes().splitlines(keepends=True)
    assert again[:2] == lines[:2]
    assert without_time(json.loads(again[2])) == without_time(json.loads(lines[2]))


KILLED = """
import multiprocessing, os, signal, time
from concurrent.futures import ProcessPoolExecutor
from uad.study.runner import begin

with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), begin) as pool:
    pool.submit(os.getpid).result()
    pool.submit(time.sleep, 600)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_end_with_a_killed_study():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env=environment, start_new_session=True
    ) as study:
        try:
            # The pipe ends once no process has it open anymore.
            assert study.communicate(timeout=60) == (b"", None)
            assert study.returncode == -signal.SIGKILL
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(study.pid, signal.SIGKILL)


def test_two_studies_do_not_write_to_the_same_file(tmp_path):
    path = tmp_path / "results" / "study.jsonl"
    first = f"process {os.getpid()} on {socket.gethostname()}, started 20"
    with (
        ResultsFile(path),
        ResultsFile(path.with_name("study.1-of-2.jsonl")),
        pytest.raises(ResultsError, match=re.escape(f"{path} is in use by {first}")),
    ):
        ResultsFile(path)
    with ResultsFile(path):
        pass
    assert sorted(each.name for each in path.parent.iterdir()) == [
        "study.1-of-2.jsonl", "study.jsonl",
    ]  # fmt: skip


def test_a_results_file_needs_nothing_that_windows_lacks():
    """Python for Windows has no fcntl."""
    program = "import sys; sys.modules['fcntl'] = None; import uad.study.results"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_a_damaged_line_is_an_error_that_names_it(tmp_path, capsys):
    path = tmp_path / "study.jsonl"
    path.write_text('{"dataset": 1}\n')
    grid = write_grid(tmp_path / "grid.json", BLOCK)
    assert cli.main(["run", str(grid), "--results", str(path)]) == 2
    assert "study.jsonl, line 1: not the result of a run" in capsys.readouterr().err


def test_missing_images_are_an_error_before_any_run(tmp_path, capsys):
    block = {**BLOCK, "dataset": "fashion-mnist", "normal_class": 0}
    grid = write_grid(tmp_path / "grid.json", block)
    results = tmp_path / "study.jsonl"
    arguments = ["run", str(grid), "--results", str(results), "--root", str(tmp_path)]
    assert cli.main(arguments) == 2
    assert "no such file" in capsys.readouterr().err
    assert not results.exists()


# --- losses of gradients ------------------------------------------------------------------------


def test_a_run_with_the_sum_that_riad_trains_with():
    plain, amplified = (
        experiment.run(replace(SMALL, loss=f"{prefix}ssim+msgms+mse", inpaint=8), None)
        for prefix in ("", "amplified-")
    )
    assert plain["image_auroc"].keys() == experiment.SCORES["textures"].keys()
    (found,) = comparisons([plain, amplified]).values()
    assert [f"{each.after} against {each.before}" for each in found] == [
        "amplified SSIM+MSGMS+MSE against SSIM+MSGMS+MSE"
    ]


def test_a_loss_without_a_map_has_no_control():
    with pytest.raises(ValueError, match="'scaled-msgms'; did you mean"):
        replace(SMALL, loss="scaled-msgms")


def test_losses_that_do_not_see_brightness_are_never_stuck():
    dark = {"mse": 0.5, "l1": 0.7, "ssim": 0.5}
    lines = [result(loss) | {"error_normal": dark} for loss in ("msgms", "ssim+msgms+mse")]
    lines += [result("mse"), result("l1")]
    stuck = {line["loss"]: line["stuck"] for line in mark_stuck(lines)}
    assert stuck == {"msgms": False, "ssim+msgms+mse": True, "mse": False, "l1": False}


def test_runs_are_made_seed_by_seed(tmp_path):
    path = write_grid(
        tmp_path / "grid.json", BLOCK | {"seed": [1, 0]}, BLOCK | {"seed": 0, "latent": 5}
    )
    found = [(spec.seed, spec.latent) for spec in read_grid(path)]
    assert [seed for seed, _ in found] == sorted(seed for seed, _ in found)
    assert len({latent for seed, latent in found if seed == 0}) == 2
