"""Directions, slopes and curvature on networks for which they are known; landscape.py."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from uad.bootstrap import bootstrap_interval
from uad.cli import landscape as cli
from uad.cli import train as train_cli
from uad.landscape.curvature import curvature_along, hessian_product, top_curvature
from uad.landscape.directions import moved, random_direction
from uad.landscape.measure import Options, measure, steepness, work
from uad.landscape.surface import BATCH_PIXELS, loss_on_plane, losses_on_line, reconstruct, slopes
from uad.landscape.table import (
    COLUMNS,
    LINES,
    PICTURE,
    linearized,
    ratio_rows,
    read_tables,
    steepness_rows,
)
from uad.landscape.work import MOST_IMAGES, PIXELS, default_count
from uad.lock import only_writer
from uad.losses import LossSettings, build_loss
from uad.model import ConvAutoencoder
from uad.report.__main__ import main as report_again


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Scale(nn.Module):
    """Maps x to w x; the squared error against x is (w - 1)^2 mean(x^2)."""

    def __init__(self, weight):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 1, bias=False).double()
        nn.init.constant_(self.layer.weight, weight)

    def forward(self, images):
        return self.layer(images)


# --- directions ---------------------------------------------------------------------------------


def test_each_filter_of_a_direction_has_the_norm_of_the_network_s():
    network = ConvAutoencoder(1, width=8, latent=4)
    direction = random_direction(network, generator())
    parameters = dict(network.named_parameters())
    assert set(direction) == {name for name in parameters if name.endswith("weight")}
    for name, tensor in direction.items():
        transposed = name.startswith("decoder") and tensor.shape[2] == 4
        filters, own = (
            each.transpose(0, 1) if transposed else each for each in (tensor, parameters[name])
        )
        torch.testing.assert_close(filters.flatten(1).norm(dim=1), own.flatten(1).norm(dim=1))
    again = random_direction(network, generator())
    other = random_direction(network, generator(1))
    assert all(torch.equal(again[name], direction[name]) for name in direction)
    assert not any(torch.equal(other[name], direction[name]) for name in direction)


def test_steps_add_up_and_are_undone():
    network = ConvAutoencoder(1, width=8, latent=4)
    one, other = random_direction(network, generator(1)), random_direction(network, generator(2))
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    with moved(network, [one, other], [0.5, -2.0]):
        for name in one:
            torch.testing.assert_close(
                network.state_dict()[name], before[name] + 0.5 * one[name] - 2 * other[name]
            )
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())


def test_a_network_without_filters_has_no_directions():
    with pytest.raises(ValueError, match="no layer with filters"):
        random_direction(nn.PReLU(), generator())


# --- surface ------------------------------------------------------------------------------------


def test_lines_and_planes_of_a_parabola():
    images = torch.rand(4, 1, 8, 8, generator=generator(), dtype=torch.float64)
    network, square = Scale(0.8), images.square().mean().item()
    direction = {"layer.weight": torch.ones(1, 1, 1, 1, dtype=torch.float64)}
    steps = np.linspace(-0.5, 0.5, 11)
    plain, doubled = losses_on_line(
        network, [nn.MSELoss(), lambda x, y: 2 * nn.MSELoss()(x, y)], images, direction, steps
    )
    np.testing.assert_allclose(plain, (steps - 0.2) ** 2 * square, atol=1e-15)
    np.testing.assert_allclose(doubled, 2 * plain)
    plane = loss_on_plane(network, nn.MSELoss(), images, [direction, direction], steps)
    np.testing.assert_allclose(plane, (steps[:, None] + steps - 0.2) ** 2 * square, atol=1e-15)


def test_slopes_are_absolute_and_relative_figures_ignore_the_scale_of_the_loss():
    steps = np.linspace(-1, 1, 5)
    lines = np.array([np.abs(steps) + 1, 3 * steps + 4])
    np.testing.assert_allclose(slopes(steps, lines), [[1] * 4, [3] * 4])
    lines[1] += 1 - lines[1, 2]  # all lines of a network meet at its weights
    curvature = np.array([2.0, 0.0])
    one, other = steepness(steps, lines, curvature), steepness(steps, 5 * lines, 5 * curvature)
    assert one["mean_slope"] == one["max_slope"] == [1, 3]
    assert other["mean_slope"] == [5, 15]
    for name in ("mean_slope", "max_slope", "curvature"):
        assert one[f"relative_{name}"] == pytest.approx(other[f"relative_{name}"])


# --- curvature ----------------------------------------------------------------------------------


def test_curvature_of_a_known_hessian():
    """For the loss sum(k w^2) / 2 the Hessian is diagonal; -5 has the largest absolute value."""
    network = nn.Conv2d(1, 3, 1, bias=False).double()
    factors = torch.tensor([1.0, -5.0, 3.0]).double()

    def loss(reconstruction, image):
        return (factors * network.weight.flatten().square()).sum() / 2 + 0 * reconstruction.sum()

    images = torch.zeros(1, 1, 2, 2).double()
    product = hessian_product(network, loss, images)
    top = top_curvature(network, product, generator(), tolerance=1e-9)
    assert top == pytest.approx(-5)


@pytest.mark.parametrize("name", ["mse", "amplified-mse", "amplified-ssim"])
def test_curvature_along_a_direction_agrees_with_the_hessian_of_a_smooth_loss(name):
    torch.manual_seed(0)
    smooth = [nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 3, padding=1)]
    network = nn.Sequential(*smooth)
    images = torch.rand(8, 1, 24, 24, generator=generator())
    loss = build_loss(name, LossSettings(backend="reference"))
    direction = random_direction(network, generator(3))
    ((found,),) = curvature_along(network, [loss], images, [direction])
    product = hessian_product(network, loss, images)
    vector = [
        direction.get(name, torch.zeros_like(each)) for name, each in network.named_parameters()
    ]
    exact = sum((a * b).sum().item() for a, b in zip(vector, product(vector), strict=True))
    assert found == pytest.approx(exact, rel=0.01)


def test_the_kinks_of_many_absolute_errors_count_as_curvature():
    """mean |w - t| over t evenly spread in [-1, 1] is (1 + w^2) / 2, with a kink at every t."""
    network = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.constant_(network.weight, 0.2)
    targets = torch.linspace(-1, 1, 100_001, dtype=torch.float64)

    def loss(reconstruction, image):
        return (reconstruction[0, 0, 0, 0] - targets).abs().mean()

    direction = {"weight": torch.ones(1, 1, 1, 1)}
    found = curvature_along(network, [loss], torch.ones(1, 1, 1, 1), [direction])
    assert found.item() == pytest.approx(1.0, rel=0.01)


def test_curvature_is_divided_by_the_loss_of_the_same_images():
    """For a parabola both are known: 2 mean(x^2), and (w - 1)^2 mean(x^2)."""
    images = torch.rand(6, 1, 16, 16, generator=generator(), dtype=torch.float64)
    images[2:] *= 0.1
    options = Options(directions=5, points=3, plane_points=3, images=6, curvature_images=2)
    found = measure(Scale(0.8), "mse", images, LossSettings(), options).figures["mse"]
    assert found["relative_curvature"] == pytest.approx([2 * 0.8**2 / 0.2**2] * 5)


def test_no_maximum_curvature_is_given_for_absolute_errors():
    images = torch.rand(2, 1, 16, 16, generator=generator(), dtype=torch.float64)
    options = Options(directions=5, points=3, plane_points=3)
    for trained, given in (("l1", False), ("amplified-mse", True)):
        figures = measure(Scale(0.8), trained, images, LossSettings(), options).figures
        lines = [{"loss": trained, "looked_at": name, **each} for name, each in figures.items()]
        assert all((row[-1] != "-") == given for row in steepness_rows(lines))


# --- amount of work ------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [28, 64, 256, 1024])
def test_the_default_number_of_images_limits_the_pixels(side):
    count = default_count(side**2)
    assert 1 <= count.curvature_images <= count.images <= MOST_IMAGES
    assert count.images * side**2 <= PIXELS or count.images == 1
    # One image more would exceed the limit, unless there are many images already.
    assert (count.images + 1) * side**2 > PIXELS or count.images == MOST_IMAGES


@pytest.mark.parametrize("trained", ["mse", "amplified-l1", "ssim"])
@pytest.mark.parametrize("curvature_images", [1, 4])
def test_the_progress_adds_up_to_the_announced_work(trained, curvature_images):
    images = torch.rand(3, 1, 16, 16, generator=generator(), dtype=torch.float64)
    options = Options(directions=2, points=3, plane_points=3, curvature_images=curvature_images)
    steps: list[int] = []
    measure(Scale(0.8), trained, images, LossSettings(), options, steps.append)
    assert sum(steps) == work(trained, len(images), options)
    assert min(steps) >= 0
    assert len(steps) > 15


def test_images_are_reconstructed_in_batches():
    counts: list[int] = []

    class Double(nn.Module):
        def forward(self, images):
            counts.append(len(images))
            return 2 * images

    images = torch.rand(5, 1, 256, BATCH_PIXELS // 512, generator=generator())
    torch.testing.assert_close(reconstruct(Double(), images), 2 * images)
    assert counts == [2, 2, 1]


# --- tables and the program ---------------------------------------------------------------------


def test_the_interval_of_a_ratio_of_paired_directions():
    rng = np.random.default_rng(0)
    below = rng.uniform(1, 9, 40)
    above = 1.5 * below + rng.normal(0, 0.1, 40)
    low, high = bootstrap_interval([linearized(above, below)])
    assert low < above.mean() / below.mean() < high
    assert high - low < 0.03  # although the slopes themselves vary by a factor of nine


def test_too_few_directions_have_ratios_without_an_interval():
    line = {"loss_at_weights": 0.1, "top_curvature": None} | {name: [1.0, 2.0] for name in COLUMNS}
    lines = [line | {"loss": "l1", "looked_at": name} for name in ("l1", "amplified-l1")]
    assert ratio_rows(lines) == [["l1: both around the l1 network", *["1.00"] * len(COLUMNS)]]


def write_lines(folder, **figures):
    line = {"loss_at_weights": 0.1, "top_curvature": None} | {name: [1.0, 2.0] for name in COLUMNS}
    lines = [line | figures | {"loss": "l1", "looked_at": name} for name in ("l1", "amplified-l1")]
    (folder / LINES).write_text("".join(json.dumps(each) + "\n" for each in lines))
    (folder / PICTURE).write_bytes(b"")


def everything(folder):
    """The tables with their captions, in one line."""
    return " ".join(" ".join(table.markdown() for table in read_tables(folder)).split())


def test_the_notes_mention_only_what_the_tables_contain(tmp_path):
    write_lines(tmp_path)
    text = everything(tmp_path)
    assert "interval" not in text
    assert "aximum curvature" not in text
    assert "nan" not in text
    write_lines(
        tmp_path, top_curvature=3.0, curvature_images=2, **dict.fromkeys(COLUMNS, [2.0] * 7)
    )
    text = everything(tmp_path)
    assert "with the 95% interval from resampling the directions in brackets" in text
    assert "for the first 2 images" in text
    assert "It is not given for L1" not in text


@pytest.fixture(scope="module")
def run_folder(image_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "stripes"
    arguments = [
        *("--data", "folder", "--root", str(image_root), "--size", "32"),
        *("--epochs", "1", "--batch-size", "10", "--width", "4", "--latent", "2"),
        *("--compare", "mse,amplified-mse", "--device", "cpu", "--out", str(folder)),
    ]
    assert train_cli.main(arguments) == 0
    return folder


def test_the_program_adds_a_picture_figures_and_a_section_in_the_report(run_folder, capsys):
    assert "Loss landscape" not in (run_folder / "report.html").read_text()
    options = ["--directions", "5", "--points", "5", "--plane-points", "3", "--images", "8"]
    assert cli.main([str(run_folder), *options]) == 0
    lines = [json.loads(line) for line in (run_folder / "landscape.jsonl").read_text().splitlines()]
    assert [(line["loss"], line["looked_at"]) for line in lines] == [
        ("mse", "mse"), ("mse", "amplified-mse"), ("amplified-mse", "mse"),
        ("amplified-mse", "amplified-mse"),
    ]  # fmt: skip
    plain, amplified = lines[:2]
    # The network and the directions are the same, and A(L) is steeper than L everywhere.
    assert len(plain["mean_slope"]) == 5
    assert all(np.array(amplified["mean_slope"]) > np.array(plain["mean_slope"]))
    assert (run_folder / "landscape.png").read_bytes().startswith(b"\x89PNG")
    assert "<h2>Loss landscape</h2>" in (run_folder / "report.html").read_text()
    assert "mse: both around the mse network" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "--points", "4"], "--points must be odd and at least 3, got 4"),
        (["{run}", "--directions", "1"], "--directions must be at least 2"),
        (["{run}", "--loss", "ssim"], "no finished training with loss 'ssim'"),
        (["nowhere"], "metrics.json: cannot be read"),
    ],
)
def test_bad_arguments_are_errors(run_folder, capsys, arguments, message):
    assert cli.main([text.format(run=run_folder) for text in arguments]) == 2
    assert message in capsys.readouterr().err


def with_config(run_folder, tmp_path, **config):
    """A copy of the run with other entries in its configuration."""
    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy)
    metrics = json.loads((copy / "metrics.json").read_text())
    metrics["config"] |= config
    (copy / "metrics.json").write_text(json.dumps(metrics))
    return copy


def test_moved_images_are_found_with_root(run_folder, image_root, tmp_path, capsys):
    gone = str(tmp_path / "gone")
    copy = with_config(run_folder, tmp_path, root=gone)
    assert cli.main([str(copy)]) == 2
    said = capsys.readouterr().err
    assert gone in said
    assert "if they have moved, name the folder with --root" in said
    options = ["--directions", "2", "--points", "3", "--plane-points", "3", "--loss", "mse"]
    assert cli.main([str(copy), "--root", str(image_root), *options]) == 0
    printed = capsys.readouterr()
    assert "20 normal for training" in printed.out.splitlines()[0]
    assert "20 of 20 training images, 32x32 (--images)" in printed.err


def test_other_images_than_those_of_the_run_are_an_error(run_folder, image_root, tmp_path, capsys):
    other = shutil.copytree(image_root, tmp_path / "other")
    shutil.copy(other / "train/good/01.png", other / "train/good/00.png")
    assert cli.main([str(run_folder), "--root", str(other)]) == 2
    start = f"the run was trained on other images than those of {other}: "
    said = capsys.readouterr().err
    assert f"{start}1 of 20 training images are gone or changed, 1 of 20 are new" in said

    older = shutil.copytree(run_folder, tmp_path / "older")
    for path in older.glob("*/checkpoint.pt"):
        state = torch.load(path, weights_only=True)
        del state["detector"]
        torch.save(state, path)
    (other / "train/good/00.png").unlink()
    assert cli.main([str(older), "--root", str(other)]) == 2
    assert f"{start}20 training images then, 19 now" in capsys.readouterr().err


def test_only_one_program_writes_into_a_run_folder(run_folder, capsys):
    before = (run_folder / "report.html").read_bytes()
    with only_writer(run_folder):
        assert cli.main([str(run_folder)]) == 2
        assert f"error: {run_folder} is in use by process {os.getpid()}" in capsys.readouterr().err
        assert report_again([str(run_folder)]) == 2
        assert f"error: {run_folder} is in use by process {os.getpid()}" in capsys.readouterr().err
    assert (run_folder / "report.html").read_bytes() == before


def test_without_a_run_no_folder_is_created(tmp_path):
    for main in (cli.main, report_again):
        assert main([str(tmp_path / "typo")]) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_too_little_memory_is_one_line(run_folder, monkeypatch, capsys, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(cli, "measure_all", fail)
    assert cli.main([str(run_folder)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == (
        "landscape.py: error: out of memory: try fewer --images and --curvature-images"
    )


def test_any_other_error_of_pytorch_is_not_called_one_of_memory(run_folder, monkeypatch):
    def fail(*_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(cli, "measure_all", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        cli.main([str(run_folder)])


def test_a_folder_that_cannot_be_written_is_an_error(run_folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    options = ["--directions", "2", "--points", "3", "--plane-points", "3", "--loss", "mse"]
    assert cli.main([str(run_folder), "--out", str(tmp_path / "file"), *options]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"landscape.py: error: {tmp_path / 'file'} cannot be written: File exists"


PROGRAM = Path(__file__).resolve().parents[2] / "python" / "landscape.py"


def test_an_interrupt_ends_the_program_in_one_line(run_folder, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(PROGRAM), str(run_folder), "--points", "99999"]
    with subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as program:
        assert program.stderr is not None
        before = []
        for line in program.stderr:
            before.append(line)
            if "network 1/2" in line:
                program.send_signal(signal.SIGINT)
                break
        rest = program.stderr.read()
        assert program.wait(timeout=60) == 130, before
    assert rest.splitlines()[-1] == "landscape.py: stopped; nothing was written"
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []
