"""A run: several losses trained and evaluated the same way, in a folder that can be resumed."""

from __future__ import annotations

import json
import platform
import statistics
from dataclasses import asdict
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch

import lamp_kernels
from uad import evaluation
from uad.checkpoint import atomic_write
from uad.data import AnomalyData, to_unit
from uad.distributed import Processes
from uad.losses import build_loss, tangent_share
from uad.model import ConvAutoencoder
from uad.options import RunOptions
from uad.outcome import describe_data, evaluate_loss
from uad.run_folder import CHECKPOINT, METRICS
from uad.training import Trainer

PROSE = ("title", "note", "found", "notices")
"""Entries of `describe_data` that only people read; a new wording does not mean new data."""


class RunError(Exception):
    """A run that cannot start or resume. The message says why."""


def metrics_to_resume(folder: Path, config: dict[str, Any], resume: bool) -> dict[str, Any] | None:
    """metrics.json of the run to resume, None for a new run.

    RunError if the folder holds anything else, or a run that was started with another config.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"--out must be a folder, got the file {folder}")
    # A run that was killed while it started leaves at most an unfinished file.
    if not folder.exists() or all(path.suffix == ".tmp" for path in folder.iterdir()):
        return None
    path = folder / METRICS
    if not path.exists():
        raise RunError(f"--out {folder} exists but holds no run: choose another folder")
    if not resume:
        raise RunError(
            f"--out {folder} already holds a run: choose another folder, or add --resume"
        )
    metrics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for name, value in config.items():
        before = metrics["config"].get(name)
        if before != value:
            flag = "--" + name.replace("_", "-")
            raise RunError(f"--resume: the run was started with {flag} {before}, not {value}")
    return metrics


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Write metrics.json."""
    with atomic_write(folder / METRICS) as file:
        file.write(json.dumps(metrics, indent=2, allow_nan=False).encode())


def begin(
    folder: Path, metrics: dict[str, Any] | None, config: dict[str, Any], data: AnomalyData,
    options: RunOptions, processes: Processes,
) -> dict[str, Any]:  # fmt: skip
    """The metrics of a new or resumed run, without the arms still to be trained.

    metrics: as `metrics_to_resume` returns them. RunError if the images or the versions of torch
    or lamp_kernels differ from those of the run to resume, or the folder cannot be written.
    """
    summary = describe_data(data)
    if metrics is not None:
        if _without_prose(metrics["data"]) != _without_prose(summary):
            raise RunError("--resume: the data have changed since the run was started")
        now = describe_environment(processes)
        for package in ("torch", "lamp_kernels"):  # another version computes other numbers
            before = metrics["environment"][package]
            if before != now[package]:
                raise RunError(
                    f"--resume: the run was started with {package} {before}, but {now[package]} "
                    "is installed: choose another folder"
                )
        return metrics
    metrics = {
        "config": config,
        "environment": describe_environment(processes),
        "data": summary,
        "scoring": asdict(options.scoring),
        "arms": {},
    }
    if processes.first:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_metrics(folder, metrics)
        except OSError as error:
            raise RunError(f"--out {folder} cannot be written: {error}") from error
    return metrics


def rehearse(data: AnomalyData, options: RunOptions, device: torch.device) -> None:
    """Do everything once on one image, so that a bad option raises before any training."""
    image = data.test[:1]
    with torch.no_grad():
        unit = to_unit(image).to(device)
        for name in options.losses:
            build_loss(name, options.loss)(unit, unit)
            tangent_share(name, unit, unit, options.loss)
    network = ConvAutoencoder(image.shape[1], width=options.width, latent=options.latent)
    _, maps = evaluation.anomaly_maps(
        network.to(device), image, options.scoring, batch_size=1, device=device
    )
    evaluation.image_scores(maps, options.scoring)


def train_losses(
    folder: Path, metrics: dict[str, Any], data: AnomalyData, options: RunOptions,
    processes: Processes,
) -> None:  # fmt: skip
    """Train and evaluate each loss that `metrics` does not contain yet, and add its results."""
    for name in options.losses:
        if name in metrics["arms"]:
            continue
        torch.manual_seed(options.training.seed)  # the same initial weights for every loss
        trainer = Trainer(
            name,
            ConvAutoencoder(data.train.shape[1], width=options.width, latent=options.latent),
            build_loss(name, options.loss),
            options.training,
            processes,
            partial(tangent_share, name, settings=options.loss),
        )
        if processes.first:
            (folder / name).mkdir(exist_ok=True)
        trainer.fit(data.train, folder / name / CHECKPOINT)
        if processes.first:
            evaluated = evaluate_loss(folder / name, trainer, data, options)
        loss_share = trainer.measure_loss_share(data.train)  # the last use of the network
        if processes.first:
            steps = len(data.train) // options.training.batch_size * options.training.epochs
            metrics["arms"][name] = {
                "evaluation": evaluated,
                "history": trainer.history,
                "seconds_per_step": statistics.median(trainer.step_seconds),
                "loss_share": loss_share,
                "steps": steps,
                "parameters": sum(p.numel() for p in trainer.network.parameters()),
            }
            write_metrics(folder, metrics)


def _without_prose(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in summary.items() if name not in PROSE}


def describe_environment(processes: Processes) -> dict[str, Any]:
    """What a run's results and timings depend on besides its options, for metrics.json."""
    device = processes.device
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lamp_kernels": lamp_kernels.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
