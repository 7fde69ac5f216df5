"""The training loop for one network and one loss, on normal images only."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lamp_kernels import check_range
from uad import checkpoint
from uad.batches import epoch_batches
from uad.data import to_unit
from uad.distributed import Processes
from uad.inpainting import epoch_stream, hidden_squares
from uad.options import TrainingOptions
from uad.progress import Progress, silent

NOTABLE_SHARE = 0.05
"""If more elements than this fraction are on the tangent of A in the first step, something may be
wrong, and a line says so."""

WARM_UP_STEPS = 3
"""First steps of a process, not timed because of allocation, compilation and cold caches."""

MOMENTUM = 0.9
"""Momentum of SGD, which without it hardly moves a network as deep as this one."""

AMP_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}

SETTINGS = (
    *("batch_size", "learning_rate", "optimizer", "seed", "amp", "grad_clip"),
    *("inpaint", "inpaint_loss"),
    *("loss", "loss_settings", "network"),
)
"""Settings that must not change when a training continues from a checkpoint."""


class TrainingError(Exception):
    """Training that cannot continue. The message says what to try."""


class Trainer:
    """Trains a network; `fit` may be interrupted at any moment and called again."""

    def __init__(
        self,
        name: str,
        network: nn.Module,
        loss: nn.Module,
        options: TrainingOptions,
        processes: Processes,
        tangent_share: Callable[[Tensor, Tensor], Tensor],
        description: dict[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """name: label for the log.

        loss: called as loss(reconstruction, image), and with inpaint_loss="masked" as
            loss(reconstruction, image, weight).
        tangent_share: called the same way; its value for the last batch of each epoch is recorded.
        description: plain values, stored in every checkpoint as "detector".
        progress: counts the steps; the default prints nothing.
        """
        self.name = name
        self.options = options
        self.description = description or {}
        self.progress = progress or silent()
        self.processes = processes
        self.device = processes.device
        self.tangent_share = tangent_share
        self.network = network.to(self.device)
        self.model = processes.wrap(self.network)
        self.loss = loss
        self.optimizer = build_optimizer(self.network, options)
        # Unscaled float16 gradients underflow; bfloat16 has the range of float32.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.amp == "float16")
        self.history: dict[str, list[float]] = {"epoch": [], "loss": [], "tangent_share": []}
        self.step_seconds: list[float] = []
        self.cold_steps = WARM_UP_STEPS
        self.forward: Callable[..., tuple[Tensor, Tensor]] = self.reconstruct
        if options.compile:
            torch.compiler.reset()  # otherwise graphs of earlier losses count toward the limit
            self.forward = torch.compile(self.reconstruct)

    def reconstruct(self, images: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Reconstruction (N, C, H, W) and loss () of images in [0, 1].

        hidden: bool (N, 1, H, W), the pixels that the network does not see; None if it sees all.
        """
        reconstruction = self.model(visible(images, hidden))
        return reconstruction, self.loss(reconstruction, images, *self.weight(hidden))

    def weight(self, hidden: Tensor | None) -> tuple[Tensor, ...]:
        """The third argument of the loss, if only hidden pixels count; otherwise nothing.

        A weight, not a mask: it chooses the pixels that count, while the windows of SSIM also see
        the pixels around them, which the network was shown and has to continue without a seam. A
        mask would remove these from the windows, although nothing is wrong with them.
        """
        if hidden is None or self.options.inpaint_loss == "all":
            return ()
        return (hidden.float(),)

    def hide(self, images: Tensor, rng: np.random.Generator) -> Tensor | None:
        """The pixels to hide in this process's share (N, C, S, S) of a batch; None for none."""
        if self.options.inpaint is None:
            return None
        # For the images of all processes, so that the result does not depend on their number.
        count = len(images) * self.processes.count
        hidden = hidden_squares(count, images.shape[-1], self.options.inpaint, rng)
        return self.processes.share(hidden).to(self.device)

    def autocast(self) -> torch.autocast:
        """The context for forward passes."""
        amp = self.options.amp
        return torch.autocast(
            self.device.type, dtype=AMP_TYPES[amp] if amp else None, enabled=amp is not None
        )

    def step(self, images: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Take one step on images in [0, 1]; return reconstruction and loss from before it.

        hidden: as for `reconstruct`.
        """
        self.optimizer.zero_grad()
        with self.autocast():
            reconstruction, loss = self.forward(images, hidden)
        self.scaler.scale(loss).backward()
        if self.options.grad_clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.options.grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return reconstruction.detach(), loss.detach()

    def train_epoch(self, epoch: int, train: Tensor) -> None:
        """Train for one epoch on uint8 images (N, C, H, W), in complete batches.

        Raises TrainingError if the mean loss is not finite.
        """
        self.model.train()
        batches = epoch_batches(len(train), self.options.batch_size, self.options.seed, epoch)
        losses: list[Tensor] = []
        squares = epoch_stream(self.options.seed, epoch)
        clock = StepClock(self.device)
        clock.tick()
        for batch in batches:
            images = to_unit(train[self.processes.share(batch)].to(self.device))
            reconstruction, loss = self.step(images, self.hide(images, squares))
            if epoch == 1 and not losses and self.processes.first:
                self.warn_about_first_step(reconstruction, images)
            losses.append(loss)
            self.progress.advance()
            clock.tick()
        seconds = clock.seconds()
        self.step_seconds += seconds[min(self.cold_steps, len(seconds) - 1) :]
        self.cold_steps = 0

        mean = self.processes.mean(torch.stack(losses).mean()).item()
        share = self.processes.mean(self.tangent_share(reconstruction, images)).item()
        if not math.isfinite(mean):
            raise TrainingError(
                f"loss {self.name} is {mean} in epoch {epoch}: try a smaller --lr, or --grad-clip"
            )
        for key, value in (("epoch", epoch), ("loss", mean), ("tangent_share", share)):
            self.history[key].append(value)
        tangent = f", {share:.3%} of the last batch on the tangent of A" if share else ""
        self.progress.report(
            f"{self.name}: epoch {epoch}/{self.options.epochs}, loss {mean:.6g}{tangent}",
            keep=epoch == self.options.epochs,
        )

    def warn_about_first_step(self, reconstruction: Tensor, images: Tensor) -> None:
        """Print a line if the first step's values or errors are outside a loss's usual range."""
        found = check_range(reconstruction.float(), images)
        share = self.tangent_share(reconstruction, images).item()
        if not found or share > NOTABLE_SHARE:
            tangent = f"; {share:.3%} on the tangent of A" if share else ""
            self.progress.write(f"{self.name}: first step: {found}{tangent}")

    def fit(self, train: Tensor, path: Path | None) -> None:
        """Train from the checkpoint at `path`, or from the beginning if there is none.

        Saves a checkpoint after each epoch, unless `path` is None. train: uint8 (N, C, H, W).
        Raises TrainingError if the loss is not finite, CheckpointError if the checkpoint at `path`
        is not one of this training.
        """
        if path is not None and path.exists():
            self.load(path)
            done = len(self.history["epoch"])
            self.progress.skip(done * (len(train) // self.options.batch_size))
        for epoch in range(len(self.history["epoch"]) + 1, self.options.epochs + 1):
            self.train_epoch(epoch, train)
            if self.processes.first and path is not None:
                self.save(path)

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        checkpoint.save(path, self.state_dict())

    def load(self, path: Path) -> None:
        """Continue from a checkpoint; CheckpointError if it is not one of this training."""
        state = checkpoint.load(path, self.device)
        try:
            self.check_origin(state)
            self.load_state_dict(state)
        except Exception as error:  # PyTorch has no exception of its own for a state that misfits
            reason = f"not a checkpoint of this run: {checkpoint.in_one_line(error)}"
            raise checkpoint.unusable(path, reason) from error

    def check_origin(self, state: dict[str, Any]) -> None:
        """ValueError if `state` is from a training with other settings, or with more epochs."""
        settings = {**asdict(self.options), **self.description}
        for name, value in {**state.get("options", {}), **state.get("detector", {})}.items():
            if name in SETTINGS and name in settings and value != settings[name]:
                raise ValueError(f"it was trained with {name} {value}, not {settings[name]}")
        if state["epoch"] > self.options.epochs:
            raise ValueError(f"it has {state['epoch']} epochs, not {self.options.epochs} at most")

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on."""
        return {
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": len(self.history["epoch"]),
            "history": self.history,
            "options": asdict(self.options),
            "detector": self.description,
            "step_seconds": self.step_seconds,
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from where the training that saved `state` was."""
        self.network.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.history = {name: list(state["history"][name]) for name in self.history}
        if {len(values) for values in self.history.values()} != {state["epoch"]}:
            raise ValueError("the history does not have one entry per epoch")
        self.step_seconds = list(state["step_seconds"])
        torch.set_rng_state(state["rng"].cpu())
        if state["rng_cuda"] is not None:
            torch.cuda.set_rng_state(state["rng_cuda"].cpu())

    def measure_loss_share(self, train: Tensor, repeats: int = 10) -> float:
        """Time of the loss, forward and backward, as a fraction of the time of a whole step.

        Takes real steps, so it changes the network. Under `compile` the loss is compiled on its
        own too, although within a step it may be fused with the network.
        """
        batch = epoch_batches(len(train), self.options.batch_size, self.options.seed, 1)[0]
        images = to_unit(train[self.processes.share(batch)].to(self.device))
        hidden = self.hide(images, epoch_stream(self.options.seed, 1))
        with torch.no_grad(), self.autocast():
            reconstruction = self.model(visible(images, hidden))
        reconstruction.requires_grad_()
        loss_function = torch.compile(self.loss) if self.options.compile else self.loss

        def loss_alone() -> None:
            reconstruction.grad = None
            with self.autocast():
                loss = loss_function(reconstruction, images, *self.weight(hidden))
            loss.backward()

        alone, whole = median_seconds(
            [loss_alone, lambda: self.step(images, hidden)], self.device, repeats
        )
        return alone / whole


def visible(images: Tensor, hidden: Tensor | None) -> Tensor:
    """The images as the network sees them, with zeros for what is hidden."""
    return images if hidden is None else images.masked_fill(hidden, 0)


def build_optimizer(network: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """Adam or SGD with momentum, as in the options."""
    if options.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), lr=options.learning_rate)
    return torch.optim.SGD(network.parameters(), lr=options.learning_rate, momentum=MOMENTUM)


class StepClock:
    """Measures the durations between ticks without synchronizing the device at each tick."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.ticks: list[Any] = []

    def tick(self) -> None:
        """Mark this moment; on CUDA, this point in the stream."""
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.ticks.append(event)
        else:
            self.ticks.append(perf_counter())

    def seconds(self) -> list[float]:
        """The durations between consecutive ticks."""
        pairs = list(zip(self.ticks, self.ticks[1:], strict=False))
        if self.cuda:
            torch.cuda.synchronize()
            return [start.elapsed_time(end) / 1000 for start, end in pairs]
        return [end - start for start, end in pairs]


def median_seconds(
    works: Sequence[Callable[[], object]], device: torch.device, repeats: int
) -> list[float]:
    """Median time of each function in `works`, after a few calls that do not count.

    The functions take turns, so that other load on the machine affects all of them.
    """
    clock = StepClock(device)
    for call in range(WARM_UP_STEPS + repeats):
        if call == WARM_UP_STEPS:
            clock.tick()
        for work in works:
            work()
            if call >= WARM_UP_STEPS:
                clock.tick()
    seconds = clock.seconds()
    return [statistics.median(seconds[index :: len(works)]) for index in range(len(works))]
