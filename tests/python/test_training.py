"""Losses by name, the training loop, checkpoints."""

from __future__ import annotations

import copy
import time
from dataclasses import fields, replace

import pytest
import torch
from torch import nn
from uad import checkpoint
from uad.batches import epoch_batches
from uad.distributed import Processes
from uad.losses import LOSSES, METRICS, LossSettings, build_loss, tangent_share
from uad.options import TrainingOptions
from uad.progress import Progress
from uad.training import Trainer, TrainingError

import lamp_kernels

ALONE = Processes(0, 1, torch.device("cpu"))
OPTIONS = TrainingOptions(epochs=2, batch_size=8, learning_rate=1e-2)
IMAGES = torch.randint(0, 256, (20, 1, 32, 32), generator=torch.Generator().manual_seed(1)).byte()


class TinyNetwork(nn.Sequential):
    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.ReLU(),
            nn.Dropout(0.2),  # a resumed training must continue its random numbers
            nn.Conv2d(4, 1, 3, padding=1),
            nn.Sigmoid(),
        )


def make_trainer(name="amplified-mse", options=OPTIONS, loss=None, progress=None):
    return Trainer(
        name,
        TinyNetwork(),
        loss or build_loss(name),
        options,
        ALONE,
        lambda reconstruction, image: tangent_share(name, reconstruction, image, LossSettings()),
        {"loss": name},
        progress,
    )


def assert_same_training(one, other):
    assert one.history == other.history
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name]), name


# --- losses -------------------------------------------------------------------------------------


def test_plain_losses_are_those_of_pytorch():
    assert type(build_loss("mse")) is nn.MSELoss
    assert type(build_loss("l1")) is nn.L1Loss


def test_each_loss_has_the_value_that_its_name_promises():
    image = torch.rand(2, 1, 32, 32)
    reconstruction = (image + 0.3 * torch.randn_like(image)).clamp(0, 1)
    value = {name: build_loss(name)(reconstruction, image) for name in LOSSES}
    error = (reconstruction - image).abs()
    torch.testing.assert_close(value["amplified-l1"], -torch.log1p(-error.clamp(max=0.99)).mean())
    torch.testing.assert_close(value["amplified-mse"], -torch.log1p(-error.square()).mean())
    for amplified in ("", "amplified-"):
        torch.testing.assert_close(
            value[f"{amplified}ssim+mse"], value[f"{amplified}ssim"] + value[f"{amplified}mse"]
        )
        torch.testing.assert_close(
            value[f"{amplified}ssim+msgms+mse"],
            value[f"{amplified}ssim+mse"] + value[f"{amplified}msgms"],
        )
    for name in ("gms", "msgms"):
        similarity = getattr(lamp_kernels.functional, name)(reconstruction, image)
        torch.testing.assert_close(value[name], 1 - similarity)
    for name in METRICS:
        assert value[f"amplified-{name}"] > 1.01 * value[name]


@pytest.mark.parametrize(
    ("option", "value", "affected"),
    [
        ("amplify_over", "image", {name for name in LOSSES if name.startswith("amplified-")}),
        ("eps", 0.9, {name for name in LOSSES if name.startswith("amplified-")}),
        ("padding", "valid", {name for name in LOSSES if "ssim" in name or "gms" in name}),
        ("window_size", 7, {name for name in LOSSES if "ssim" in name}),
    ],
)
def test_an_option_changes_the_losses_that_have_it(option, value, affected):
    image, reconstruction = torch.rand(2, 2, 1, 32, 32)
    changed = {
        name
        for name in LOSSES
        if build_loss(name)(reconstruction, image)
        != build_loss(name, LossSettings(**{option: value}))(reconstruction, image)
    }
    assert changed == affected


def test_settings_default_to_those_of_the_library():
    module = lamp_kernels.AmplifiedSSIMLoss()
    for field in fields(LossSettings):
        assert getattr(LossSettings(), field.name) == getattr(module, field.name)


def test_backend_reaches_every_loss_of_the_library():
    for name in set(LOSSES) - {"mse", "l1"}:
        with pytest.raises(ValueError, match="backend"):
            build_loss(name, LossSettings(backend="none of them"))(*torch.rand(2, 1, 1, 32, 32))


def test_unknown_loss_is_named():
    with pytest.raises(ValueError, match=r"amplified-ssim.*'psnr'"):
        build_loss("psnr")


def test_tangent_share_counts_elements_of_every_term():
    image, reconstruction = torch.zeros(2, 1, 32, 32), torch.zeros(2, 1, 32, 32)
    reconstruction[0, :, :8] = 1.0
    assert tangent_share("mse", reconstruction, image, LossSettings()) == 0.125
    assert tangent_share("amplified-l1", reconstruction, image, LossSettings()) == 0.125
    # Black against white has a squared error of 1, but an SSIM dissimilarity of only 1/2.
    white = torch.ones_like(image)
    options = LossSettings(padding="valid", window_size=11)
    share = tangent_share("ssim+mse", white, image, options)
    assert share.item() == pytest.approx(32**2 / (32**2 + 22**2))
    assert tangent_share("ssim+mse", white, image, replace(options, eps=0.6)) == 1.0


# --- order of the data --------------------------------------------------------------------------


def test_batches_are_whole_and_depend_on_seed_and_epoch():
    batches = epoch_batches(20, 8, seed=3, epoch=1)
    assert [len(batch) for batch in batches] == [8, 8]
    assert len(set(torch.cat(batches).tolist())) == 16
    assert torch.equal(torch.cat(batches), torch.cat(epoch_batches(20, 8, seed=3, epoch=1)))
    for other in (epoch_batches(20, 8, seed=3, epoch=2), epoch_batches(20, 8, seed=4, epoch=1)):
        assert not torch.equal(torch.cat(batches), torch.cat(other))


def test_processes_share_a_batch_without_overlap():
    batch = torch.arange(8)
    shares = [Processes(rank, 4, torch.device("cpu")).share(batch) for rank in range(4)]
    assert torch.equal(torch.cat(shares), batch)
    assert {len(share) for share in shares} == {2}


# --- the loop -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_trains(name, tmp_path):
    trainer = make_trainer(name, replace(OPTIONS, epochs=4))
    before = copy.deepcopy(trainer.network.state_dict())
    trainer.fit(IMAGES, tmp_path / "checkpoint.pt")
    assert trainer.history["epoch"] == [1, 2, 3, 4]
    assert trainer.history["loss"][-1] < trainer.history["loss"][0]
    assert len(trainer.step_seconds) == 4 * 2 - 1  # warm-up ends with the first epoch
    for key, value in trainer.network.state_dict().items():
        assert not torch.equal(value, before[key]), key


def test_history_records_the_mean_loss_over_the_steps(tmp_path):
    class Recorded(nn.Module):
        def forward(self, reconstruction, image):
            loss = nn.functional.mse_loss(reconstruction, image)
            values.append(loss.item())
            return loss

    values: list[float] = []
    trainer = make_trainer("mse", loss=Recorded())
    trainer.fit(IMAGES, tmp_path / "checkpoint.pt")
    assert trainer.history["loss"] == pytest.approx([sum(values[:2]) / 2, sum(values[2:]) / 2])


@pytest.mark.parametrize("amp", [None, "float16"])
def test_gradient_is_clipped(amp, tmp_path):
    norms: list[float] = []
    for grad_clip in (None, 1e-3):
        trainer = make_trainer(options=replace(OPTIONS, amp=amp, grad_clip=grad_clip))
        trainer.fit(IMAGES, tmp_path / f"{len(norms)}.pt")
        gradients = [parameter.grad for parameter in trainer.network.parameters()]
        norms.append(nn.utils.get_total_norm(gradients).item())
    assert norms[0] > 2e-3
    assert norms[1] == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("amp", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["mse", "amplified-ssim+mse"])
def test_autocast(amp, name, tmp_path):
    class Recorded(nn.Module):
        def forward(self, reconstruction, image):
            types.add((reconstruction.dtype, image.dtype))
            return build_loss(name)(reconstruction, image)

    types: set[tuple[torch.dtype, torch.dtype]] = set()
    trainer = make_trainer(name, replace(OPTIONS, amp=amp), loss=Recorded())
    path = tmp_path / "checkpoint.pt"
    trainer.fit(IMAGES, path)
    assert types == {(getattr(torch, amp), torch.float32)}
    plain = make_trainer(name)
    plain.fit(IMAGES, tmp_path / "plain.pt")
    assert trainer.history["loss"] == pytest.approx(plain.history["loss"], rel=0.02)
    scaler = checkpoint.load(path, torch.device("cpu"))["scaler"]
    assert bool(scaler) == (amp == "float16")
    assert trainer.measure_loss_share(IMAGES) > 0


def test_compiled_training_agrees(tmp_path):
    eager, compiled = (
        make_trainer("amplified-ssim", replace(OPTIONS, epochs=1, compile=compile))
        for compile in (False, True)
    )
    for index, trainer in enumerate((eager, compiled)):
        trainer.network[2].p = 0.0  # compiled dropout draws other random numbers
        trainer.fit(IMAGES, tmp_path / f"{index}.pt")
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0
    assert compiled.history["loss"] == pytest.approx(eager.history["loss"], rel=1e-5)
    assert compiled.measure_loss_share(IMAGES, repeats=3) > 0


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path):
    class Diverged(nn.Module):
        def forward(self, reconstruction, image):
            return reconstruction.mean() * float("inf")

    trainer = make_trainer("l1", loss=Diverged())
    with pytest.raises(TrainingError, match=r"l1 is .* in epoch 1.*--lr"):
        trainer.fit(IMAGES, tmp_path / "checkpoint.pt")
    assert not (tmp_path / "checkpoint.pt").exists()


def test_timing_excludes_checkpoints_and_detects_a_slow_loss(tmp_path, monkeypatch):
    class Slow(nn.MSELoss):
        def forward(self, reconstruction, image):
            time.sleep(0.1)
            return super().forward(reconstruction, image)

    monkeypatch.setattr(checkpoint, "save", lambda path, state: time.sleep(2.0))
    slow, quick = make_trainer("mse", loss=Slow()), make_trainer("mse")
    for trainer in (slow, quick):
        trainer.fit(IMAGES, tmp_path / "checkpoint.pt")
    assert min(slow.step_seconds) >= 0.1
    assert max(slow.step_seconds) < 2.0
    assert slow.measure_loss_share(IMAGES, repeats=3) > quick.measure_loss_share(IMAGES)


# --- checkpoints --------------------------------------------------------------------------------


def test_interrupted_training_ends_with_the_same_numbers(tmp_path):
    options = replace(OPTIONS, epochs=4, amp="float16")
    whole = make_trainer(options=options)
    whole.fit(IMAGES, tmp_path / "whole.pt")

    path = tmp_path / "parts.pt"
    make_trainer(options=replace(options, epochs=1)).fit(IMAGES, path)
    torch.manual_seed(99)
    make_trainer(options=replace(options, epochs=3)).fit(IMAGES, path)
    rest = make_trainer(options=options)
    rest.fit(IMAGES, path)
    assert_same_training(rest, whole)
    assert rest.scaler.state_dict() == whole.scaler.state_dict()
    assert len(rest.step_seconds) > len(IMAGES) // OPTIONS.batch_size  # from all three parts


@pytest.mark.parametrize("moment", ["in torch.save", "before the new name"])
def test_a_crash_while_saving_leaves_the_last_checkpoint(moment, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"epoch": 1})
    real_save = torch.save

    def crash(*_):
        raise OSError("no space left on device")

    def save_a_part(state, file):
        file.write(b"half a ")
        crash()

    with monkeypatch.context() as patch:
        if moment == "in torch.save":
            patch.setattr(torch, "save", save_a_part)
        else:
            patch.setattr("os.replace", crash)
        with pytest.raises(OSError, match="no space"):
            checkpoint.save(path, {"epoch": 2})
    assert torch.save is real_save
    assert checkpoint.load(path, torch.device("cpu")) == {"epoch": 1}
    checkpoint.save(path, {"epoch": 3})
    assert checkpoint.load(path, torch.device("cpu")) == {"epoch": 3}
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"weights": torch.rand(1000)})
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(checkpoint.CheckpointError, match=r"checkpoint\.pt.*delete it"):
        checkpoint.load(path, torch.device("cpu"))


def test_a_checkpoint_runs_no_code(tmp_path):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"code": print})
    with pytest.raises(checkpoint.CheckpointError):
        checkpoint.load(path, torch.device("cpu"))


# --- the first step -----------------------------------------------------------------------------


class Untrained(nn.Module):
    """Reconstructs every pixel as the same value: a gray, or a value that no image has."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, images):
        return self.value.expand_as(images)


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.5, None), (1.0, "within [0, 1]"), (2.0, "too small"), (0.01, "far too large for")],
)
def test_an_unusual_first_step_is_reported_in_one_line(value, told, capsys):
    with Progress(total=4) as progress:
        trainer = make_trainer("amplified-l1", replace(OPTIONS, epochs=2), progress=progress)
        trainer.network = trainer.model = Untrained(value)
        images = torch.full_like(IMAGES, 5 if value == 0.01 else 0) if told else IMAGES
        trainer.fit(images, None)
    lines = [line for line in capsys.readouterr().err.splitlines() if "first step" in line]
    assert len(lines) == (1 if told else 0)
    if told:
        assert told in lines[0]
        assert ("on the tangent of A" in lines[0]) == (value != 0.01)


@pytest.mark.parametrize(("value", "told"), [(0.0, False), (1.0, True)])
def test_the_tangent_is_mentioned_only_if_something_is_on_it(value, told, capsys):
    with Progress(total=2) as progress:
        trainer = make_trainer("amplified-l1", replace(OPTIONS, epochs=1), progress=progress)
        trainer.network = trainer.model = Untrained(value)
        trainer.fit(torch.zeros_like(IMAGES), None)
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("amplified-l1: epoch 1/1, loss ")
    assert ("on the tangent of A" in line) == told
