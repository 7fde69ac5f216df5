"""The files of a run folder of the training program, and how other programs read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from uad import checkpoint
from uad.data import AnomalyData, load_from_config
from uad.model import ConvAutoencoder

METRICS = "metrics.json"
EXAMPLES = "examples.npz"
CHECKPOINT = "checkpoint.pt"
EVALUATION = "evaluation.npz"
"""The last two are in a subfolder for each loss."""


class RunFolderError(Exception):
    """A folder that does not hold a usable run of train.py. The message names the file."""


def read_metrics(folder: Path) -> dict[str, Any]:
    """metrics.json of a run with at least one finished loss; RunFolderError otherwise."""
    path = folder / METRICS
    try:
        metrics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        finished, needed = metrics["arms"], ("width", "latent", "seed", "data")
        missing = [name for name in needed if name not in metrics["config"]]
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read: {error}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise RunFolderError(
            f"{path}: not written by train.py: {type(error).__name__}: {error}"
        ) from error
    if missing:
        raise RunFolderError(f"{path}: not written by train.py: config lacks {', '.join(missing)}")
    if not finished:
        raise RunFolderError(f"{path}: no loss has finished training yet")
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
    network = ConvAutoencoder(
        metrics["data"]["size"][0], width=config["width"], latent=config["latent"]
    )
    path = folder / loss / CHECKPOINT
    state = checkpoint.load(path, torch.device("cpu"))
    try:
        network.load_state_dict(state["model"])
    except (KeyError, RuntimeError) as error:
        raise RunFolderError(f"{path}: does not fit the network in {METRICS}: {error}") from error
    return network.eval()


def load_images(metrics: dict[str, Any]) -> AnomalyData:
    """The data set that the run was trained on; DataError if it is no longer there."""
    return load_from_config(metrics["config"])
