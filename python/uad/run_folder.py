"""What a run folder of the training program holds, read back by other programs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from uad import checkpoint
from uad.cli import load_data
from uad.data import AnomalyData
from uad.model import ConvAutoencoder
from uad.run import CHECKPOINT, METRICS


class RunFolderError(Exception):
    """A folder that is no run of the training program. The message names the file."""


def read_metrics(folder: Path) -> dict[str, Any]:
    """metrics.json of a run with at least one finished loss."""
    path = folder / METRICS
    try:
        metrics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        finished, needed = metrics["arms"], ("width", "latent", "seed", "data")
        missing = [name for name in needed if name not in metrics["config"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunFolderError(
            f"{path}: not the file of a run of train.py: {type(error).__name__}: {error}"
        ) from error
    if missing:
        raise RunFolderError(f"{path}: has no {', '.join(missing)}")
    if not finished:
        raise RunFolderError(f"{path}: no loss has been trained to its end yet")
    return metrics


def load_network(folder: Path, metrics: dict[str, Any], loss: str) -> ConvAutoencoder:
    """The network trained with this loss, on the CPU, ready to reconstruct."""
    if loss not in metrics["arms"]:
        raise RunFolderError(
            f"{folder}: no loss {loss!r} was trained to its end; there are "
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
        raise RunFolderError(f"{path}: not the network of {METRICS}: {error}") from error
    return network.eval()


def load_images(metrics: dict[str, Any]) -> AnomalyData:
    """The data set that the run was made on; DataError where it is not there any more."""
    return load_data(argparse.Namespace(**metrics["config"]))
