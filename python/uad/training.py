"""The training loop: one network, one loss, normal images only."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lamp_kernels import check_range
from uad import checkpoint
from uad.data import to_unit
from uad.distributed import Processes

NOTABLE_SHARE = 0.05
"""Of elements on the tangent of A in the first step: beyond it something may be off."""

WARM_UP_STEPS = 3
"""Steps of a process that are left out of its timing: allocation, compilation, cold caches."""

MOMENTUM = 0.9
"""Of SGD; without it SGD hardly moves a network as deep as this one."""

AMP_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class TrainingError(Exception):
    """Training that cannot go on. The message says what to try."""


@dataclass(frozen=True)
class TrainingOptions:
    """Options of the training, whatever the loss."""

    epochs: int = 30
    batch_size: int = 32
    """Images in a step, over all processes together."""
    learning_rate: float = 1e-3
    optimizer: Literal["adam", "sgd"] = "adam"
    seed: int = 0
    amp: str | None = None
    """Autocast to "bfloat16", or to "float16" with a gradient scaler."""
    compile: bool = False
    """Compile network and loss as one graph."""
    grad_clip: float | None = None
    """Greatest norm of the gradient of all parameters together."""


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
    ) -> None:
        """name: for the log.

        tangent_share: of (reconstruction, image), recorded of the last batch of each epoch.
        """
        self.name = name
        self.options = options
        self.processes = processes
        self.device = processes.device
        self.tangent_share = tangent_share
        self.network = network.to(self.device)
        self.model = processes.wrap(self.network)
        self.loss = loss
        self.optimizer = build_optimizer(self.network, options)
        # float16 gradients underflow unless scaled; bfloat16 has the range of float32
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.amp == "float16")
        self.history: dict[str, list[float]] = {"epoch": [], "loss": [], "tangent_share": []}
        self.step_seconds: list[float] = []
        self.cold_steps = WARM_UP_STEPS
        self.forward: Callable[[Tensor], tuple[Tensor, Tensor]] = self.reconstruct
        if options.compile:
            torch.compiler.reset()  # else the graphs of earlier losses count against the limit
            self.forward = torch.compile(self.reconstruct)

    def reconstruct(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction (N, C, H, W) and loss () of images in [0, 1]."""
        reconstruction = self.model(images)
        return reconstruction, self.loss(reconstruction, images)

    def autocast(self) -> torch.autocast:
        """The context of forward passes."""
        amp = self.options.amp
        return torch.autocast(
            self.device.type, dtype=AMP_TYPES[amp] if amp else None, enabled=amp is not None
        )

    def step(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """One step on images in [0, 1]; reconstruction and loss from before the step."""
        self.optimizer.zero_grad()
        with self.autocast():
            reconstruction, loss = self.forward(images)
        self.scaler.scale(loss).backward()
        if self.options.grad_clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.options.grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return reconstruction.detach(), loss.detach()

    def train_epoch(self, epoch: int, train: Tensor) -> None:
        """One pass over uint8 images (N, C, H, W), in whole batches."""
        self.model.train()
        batches = epoch_batches(len(train), self.options.batch_size, self.options.seed, epoch)
        losses: list[Tensor] = []
        clock = StepClock(self.device)
        clock.tick()
        for batch in tqdm(
            batches,
            desc=f"{self.name} epoch {epoch}",
            leave=False,
            disable=None if self.processes.first else True,  # None: where there is no terminal
        ):
            images = to_unit(train[self.processes.share(batch)].to(self.device))
            reconstruction, loss = self.step(images)
            if epoch == 1 and not losses and self.processes.first:
                self.tell_if_off(reconstruction, images)
            losses.append(loss)
            clock.tick()
        seconds = clock.seconds()
        self.step_seconds += seconds[min(self.cold_steps, len(seconds) - 1) :]
        self.cold_steps = 0

        mean = self.processes.mean(torch.stack(losses).mean()).item()
        share = self.processes.mean(self.tangent_share(reconstruction, images)).item()
        if not math.isfinite(mean):
            raise TrainingError(
                f"the loss {self.name} is {mean} in epoch {epoch}: "
                "try a smaller --lr, or --grad-clip"
            )
        for key, value in (("epoch", epoch), ("loss", mean), ("tangent_share", share)):
            self.history[key].append(value)
        if self.processes.first:
            print(
                f"{self.name}: epoch {epoch}/{self.options.epochs}, loss {mean:.6g}, "
                f"on the tangent of A {share:.3%} of the last batch",
                file=sys.stderr,
            )

    def tell_if_off(self, reconstruction: Tensor, images: Tensor) -> None:
        """A line about the first step, where values or losses are not what a loss is made for."""
        found = check_range(reconstruction.float(), images)
        share = self.tangent_share(reconstruction, images).item()
        if not found or share > NOTABLE_SHARE:
            print(
                f"{self.name}: first step: {found}; on the tangent of A {share:.3%}",
                file=sys.stderr,
            )

    def fit(self, train: Tensor, path: Path | None) -> None:
        """Train from the checkpoint at `path`, or from the beginning where there is none.

        A checkpoint follows each epoch, unless `path` is None. train: uint8 (N, C, H, W).
        """
        if path is not None and path.exists():
            self.load_state_dict(checkpoint.load(path, self.device))
        for epoch in range(len(self.history["epoch"]) + 1, self.options.epochs + 1):
            self.train_epoch(epoch, train)
            if self.processes.first and path is not None:
                checkpoint.save(path, self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the training depends on."""
        return {
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": len(self.history["epoch"]),
            "history": self.history,
            "step_seconds": self.step_seconds,
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the training of `state` was."""
        self.network.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.history = state["history"]
        self.step_seconds = state["step_seconds"]
        torch.set_rng_state(state["rng"].cpu())
        if state["rng_cuda"] is not None:
            torch.cuda.set_rng_state(state["rng_cuda"].cpu())

    def measure_loss_share(self, train: Tensor, repeats: int = 10) -> float:
        """Time of the loss, forward and backward alone, over the time of a whole step.

        Takes real steps, so the network is another one afterwards. Under `compile` the loss alone
        is compiled too, though in a step it may be fused with the network.
        """
        batch = epoch_batches(len(train), self.options.batch_size, self.options.seed, 1)[0]
        images = to_unit(train[self.processes.share(batch)].to(self.device))
        with torch.no_grad(), self.autocast():
            reconstruction = self.model(images)
        reconstruction.requires_grad_()
        loss_function = torch.compile(self.loss) if self.options.compile else self.loss

        def loss_alone() -> None:
            reconstruction.grad = None
            with self.autocast():
                loss = loss_function(reconstruction, images)
            loss.backward()

        alone, whole = median_seconds([loss_alone, lambda: self.step(images)], self.device, repeats)
        return alone / whole


def build_optimizer(network: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """Adam, or SGD with momentum."""
    if options.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), lr=options.learning_rate)
    return torch.optim.SGD(network.parameters(), lr=options.learning_rate, momentum=MOMENTUM)


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """Indices of the images of each whole batch: a function of seed and epoch only.

    What does not fill a batch is left to another epoch's order.
    """
    order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(count))
    return list(torch.split(order[: count - count % batch_size], batch_size))


class StepClock:
    """Durations between ticks, without waiting for the device at each of them."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.ticks: list[Any] = []

    def tick(self) -> None:
        """Mark this moment, on CUDA in the order of the device's work."""
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.ticks.append(event)
        else:
            self.ticks.append(perf_counter())

    def seconds(self) -> list[float]:
        """One duration fewer than there are ticks."""
        pairs = list(zip(self.ticks, self.ticks[1:], strict=False))
        if self.cuda:
            torch.cuda.synchronize()
            return [start.elapsed_time(end) / 1000 for start, end in pairs]
        return [end - start for start, end in pairs]


def median_seconds(
    works: Sequence[Callable[[], object]], device: torch.device, repeats: int
) -> list[float]:
    """Median time of each work, after a few calls that do not count.

    The works take turns, so that a busy moment of the machine meets all of them.
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
