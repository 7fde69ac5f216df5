"""The files of a run folder of the training program, and how other programs read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from uad import checkpoint
from uad.data import AnomalyData, load_from_config
from uad.metrics_check import find_problem
from uad.model import ConvAutoencoder

METRICS = "metrics.json"
EXAMPLES = "examples.npz"
CHECKPOINT = "checkpoint.pt"
EVALUATION = "evaluation.npz"
"""The last two are in a subfolder for each loss."""


class RunFolderError(Exception):
    """A folder that does not hold a usable run of train.py. The message names the file."""


def load_metrics(folder: Path) -> dict[str, Any]:
    """metrics.json of a run that may not have finished; RunFolderError if it is damaged."""
    path = folder / METRICS
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise RunFolderError(f"{path}: not written by train.py, or damaged: {error}") from error
    problem = find_problem(metrics)
    if problem:
        raise RunFolderError(f"{path}: not written by train.py, or damaged: {problem}")
    return dict(metrics)


def read_metrics(folder: Path) -> dict[str, Any]:
    """metrics.json of a run with at least one finished loss; RunFolderError otherwise."""
    metrics = load_metrics(folder)
    if not metrics["arms"]:
        raise RunFolderError(f"{folder / METRICS}: no loss has finished training yet")
    return metrics


def load_network(folder: Path, metrics: dict[str, Any], loss: str) -> ConvAutoencoder:
    """The network trained with this loss, on the CPU, in evaluation mode.

    RunFolderError if the loss has not finished training or the checkpoint does not fit
    metrics.json, CheckpointError if the checkpoint cannot be read.
    """
    if loss not in metrics["arms"]:
        raise RunFolderError(
            f"{folder}: no finished training with loss {loss!r}; the run has "
            f"{', '.join(metrics['arms'])}"
        )
    config = metrics["config"]
    path = folder / loss / CHECKPOINT
    state = checkpoint.load(path, torch.device("cpu"))
    try:
        network = ConvAutoencoder(
            metrics["data"]["size"][0], width=config["width"], latent=config["latent"]
        )
        network.load_state_dict(state["model"])
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        reason = checkpoint.in_one_line(error)
        raise RunFolderError(f"{path}: does not fit the network in {METRICS}: {reason}") from error
    return network.eval()


def load_images(metrics: dict[str, Any]) -> AnomalyData:
    """The data set that the run was trained on; DataError if it is no longer there."""
    return load_from_config(metrics["config"])
