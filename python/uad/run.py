"""A run: several losses trained and evaluated the same way, in a folder that can be resumed."""

from __future__ import annotations

import json
import platform
import statistics
import sys
from dataclasses import asdict
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch

import lamp_kernels
from uad import detector, evaluation
from uad.checkpoint import atomic_write
from uad.data import AnomalyData, to_unit
from uad.distributed import Processes
from uad.evaluation_files import normal_scores
from uad.exporting import SUFFIXES
from uad.inpainting import scoring_network
from uad.landscape.table import LINES, PICTURE
from uad.lock import is_unused
from uad.losses import build_loss, tangent_share
from uad.model import ConvAutoencoder
from uad.options import RunOptions, Scoring
from uad.outcome import describe_data, evaluate_baselines, evaluate_loss
from uad.progress import Progress
from uad.run_folder import CHECKPOINT, EVALUATION, METRICS
from uad.same_data import data_changes
from uad.training import Trainer


class RunError(Exception):
    """A run that cannot start or resume. The message says why."""


def check_folder(folder: Path, resume: bool) -> bool:
    """Whether `folder` holds a run to resume; RunError if it holds anything else.

    Without `resume`, a run in the folder is an error too.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"--out must be a folder, got the file {folder}")
    # A run that was killed while it started leaves at most an unfinished file and its lock.
    if not folder.exists() or is_unused(folder):
        return False
    if not (folder / METRICS).exists():
        raise RunError(f"--out {folder} exists but holds no run: choose another folder")
    if not resume:
        raise RunError(
            f"--out {folder} already holds a run: choose another folder, or add --resume"
        )
    return True


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Write metrics.json."""
    with atomic_write(folder / METRICS) as file:
        file.write(json.dumps(metrics, indent=2, allow_nan=False).encode())


def begin(
    folder: Path, metrics: dict[str, Any] | None, config: dict[str, Any], data: AnomalyData,
    options: RunOptions, processes: Processes,
) -> dict[str, Any]:  # fmt: skip
    """The metrics of a new or resumed run, without the arms still to be trained.

    metrics: the content of metrics.json of the run to resume, None for a new run. config may ask
    for more epochs than it; then no loss is finished, and all continue from their checkpoints. It
    may also name another root, to which the images have moved. RunError if the images or the
    versions of torch or lamp_kernels differ from those of the run to resume.
    """
    environment = describe_environment(processes)
    if metrics is None:
        metrics = {
            "config": config,
            "environment": environment,
            "data": describe_data(data),
            "scoring": asdict(options.scoring),
            "effective_batch_size": options.training.batch_size,
            "arms": {},
        }
    else:
        check_unchanged(folder, metrics, data, environment, options)
        epochs, root = config["epochs"], config["root"]
        finished = {
            name: arm
            for name, arm in metrics["arms"].items()
            if len(arm["history"]["epoch"]) >= epochs
        }
        before = (metrics["config"]["epochs"], metrics["config"]["root"], metrics["arms"])
        if before == (epochs, root, finished):
            return metrics
        if processes.first:
            for name in metrics["arms"].keys() - finished.keys():
                set_aside(folder, name, metrics["config"]["epochs"])
        metrics["config"] |= {"epochs": epochs, "root": root}
        metrics["arms"] = finished
    if processes.first:
        write_metrics(folder, metrics)
    return metrics


def set_aside(folder: Path, loss: str, epochs: int) -> None:
    """Rename the landscape of networks that are trained on, and name what was exported from them.

    epochs: how long they had been trained.
    """
    for path in (folder / PICTURE, folder / LINES):
        if path.exists():
            path.rename(path.with_stem(f"{path.stem}-{epochs}-epochs"))
    for suffix in SUFFIXES.values():
        path = folder / loss / f"network{suffix}"
        if path.exists():
            print(f"{path} holds the network of {epochs} epochs: export it again", file=sys.stderr)


def check_unchanged(
    folder: Path, metrics: dict[str, Any], data: AnomalyData, environment: dict[str, Any],
    options: RunOptions,
) -> None:  # fmt: skip
    """RunError if the run would not continue with the same numbers."""
    if changes := data_changes(folder, metrics["data"], describe_data(data), data):
        raise RunError(f"--resume: the data have changed since the run was started: {changes}")
    if asdict(Scoring()) | metrics["scoring"] != asdict(options.scoring):
        raise RunError(f"{folder / METRICS}: config and scoring contradict each other: edited?")
    for package in ("torch", "lamp_kernels"):  # another version computes other numbers
        before = metrics["environment"].get(package)
        if before != environment[package]:
            raise RunError(
                f"--resume: the run was started with {package} {before}, but "
                f"{environment[package]} is installed: choose another folder"
            )


def rehearse(data: AnomalyData, options: RunOptions, device: torch.device) -> None:
    """Do everything once on one image, so that a bad option raises before any training."""
    image, inpaint = data.test[:1], options.training.inpaint
    weighted = counts_hidden_only(options)
    if inpaint is not None and not 2 <= 2 * inpaint <= image.shape[-1]:
        raise ValueError(
            f"inpaint must be from 1 to half of the image's side, {image.shape[-1] // 2}, "
            f"got {inpaint}"
        )
    with torch.no_grad():
        unit = to_unit(image).to(device)
        weight = (torch.ones_like(unit[:, :1]),) if weighted else ()
        for name in options.losses:
            build_loss(name, options.loss, weighted=weighted)(unit, unit, *weight)
            tangent_share(name, unit, unit, options.loss)
    network = ConvAutoencoder(image.shape[1], width=options.width, latent=options.latent)
    scored = scoring_network(network.to(device), inpaint, data.preparation.size)
    _, maps = evaluation.anomaly_maps(scored, image, options.scoring, batch_size=1, device=device)
    evaluation.image_scores(maps, options.scoring)


def counts_hidden_only(options: RunOptions) -> bool:
    """Whether the training loss has a weight: 1 where the network has to inpaint, 0 elsewhere."""
    return options.training.inpaint is not None and options.training.inpaint_loss == "masked"


def train_losses(
    folder: Path, metrics: dict[str, Any], data: AnomalyData, options: RunOptions,
    processes: Processes,
) -> None:  # fmt: skip
    """Train and evaluate each loss that `metrics` does not contain yet, and add its results.

    The baselines, which need no training, are evaluated once, after the first loss.
    """
    missing = [name for name in options.losses if name not in metrics["arms"]]
    steps = len(data.train) // options.training.batch_size * options.training.epochs
    with Progress(len(missing) * steps, shown=processes.first) as progress:
        for name in missing:
            torch.manual_seed(options.training.seed)  # the same initial weights for every loss
            trainer = Trainer(
                name,
                ConvAutoencoder(data.train.shape[1], width=options.width, latent=options.latent),
                build_loss(name, options.loss, weighted=counts_hidden_only(options)),
                options.training,
                processes,
                partial(tangent_share, name, settings=options.loss),
                describe_detector(name, data, options),
                progress,
            )
            path = folder / name / CHECKPOINT
            if processes.first:
                path.parent.mkdir(exist_ok=True)
            trainer.fit(data.train, path)
            if processes.first:
                evaluated = evaluate_loss(path.parent, trainer, data, options)
                trainer.description["normal_scores"] = normal_scores(path.parent / EVALUATION)
                trainer.save(path)
            loss_share = trainer.measure_loss_share(data.train)  # the last use of the network
            if processes.first:
                metrics["arms"][name] = {
                    "evaluation": evaluated,
                    "history": trainer.history,
                    "seconds_per_step": statistics.median(trainer.step_seconds),
                    "loss_share": loss_share,
                    "steps": steps,
                    "parameters": sum(p.numel() for p in trainer.network.parameters()),
                }
                if "baselines" not in metrics:
                    metrics["baselines"] = evaluate_baselines(data, options)
                write_metrics(folder, metrics)
    if "baselines" not in metrics and processes.first:  # all losses are from an older version
        metrics["baselines"] = evaluate_baselines(data, options)
        write_metrics(folder, metrics)


def describe_detector(loss: str, data: AnomalyData, options: RunOptions) -> dict[str, Any]:
    """What a checkpoint says of its network, so that it is enough to score images with.

    The entry "normal_scores", from which a threshold is chosen, is empty until the trained network
    has been evaluated.
    """
    inpaint = options.training.inpaint
    return {
        "format": detector.FORMAT,
        "loss": loss,
        "loss_settings": asdict(options.loss),
        "data": data.title,
        "network": {
            "channels": data.train.shape[1],
            "width": options.width,
            "latent": options.latent,
            # Left out otherwise: versions that cannot inpaint reject what they do not know.
            **({} if inpaint is None else {"inpaint": inpaint}),
        },
        "preparation": data.preparation.to_dict(),
        "scoring": asdict(options.scoring),
        "false_positive_rate": options.false_positive_rate,
        "normal_scores": [],
        "fingerprints": list(data.fingerprints),
    }


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
