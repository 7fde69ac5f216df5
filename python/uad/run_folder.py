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

NUMBER = (int, float)

ENTRIES: dict[str, dict[str, Any]] = {
    "config": {"data": str, "seed": int, "width": int, "latent": int, "epochs": int},
    "environment": {},
    "data": {"name": str, "train": int, "size": list, "kinds": dict},
    "scoring": {"metric": str, "smooth_sigma": NUMBER, "pooling": str, "topk": NUMBER},
    "arms": {},
}
"""What metrics.json must contain, with the types."""

ARM: dict[str, Any] = {
    "evaluation": dict,
    "history": dict,
    "seconds_per_step": NUMBER,
    "loss_share": NUMBER,
    "parameters": int,
}
"""The same for each entry of "arms"."""

EVALUATED: dict[str, Any] = {"per_kind": dict, "count_normal": int, "count_anomalous": int}
HISTORY: dict[str, Any] = {"epoch": list, "loss": list, "tangent_share": list}


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


def find_problem(metrics: Any) -> str:
    """What is missing from the content of metrics.json, or has the wrong type; "" if nothing."""
    problem = mismatch(metrics, dict.fromkeys(ENTRIES, dict), "")
    if problem:
        return problem
    parts = [(metrics[name], types, f"{name}.") for name, types in ENTRIES.items()]
    for loss, arm in metrics["arms"].items():
        place = f"arms.{loss}"
        problem = mismatch(arm, ARM, f"{place}.")
        if problem:
            return problem
        parts.append((arm["evaluation"], EVALUATED, f"{place}.evaluation."))
        parts.append((arm["history"], HISTORY, f"{place}.history."))
    baselines = metrics.get("baselines", {})  # runs of older versions have none
    parts.append((metrics, {"baselines": dict} if "baselines" in metrics else {}, ""))
    if isinstance(baselines, dict):
        parts += [(each, EVALUATED, f"baselines.{name}.") for name, each in baselines.items()]
    return next(filter(None, (mismatch(*part) for part in parts)), "")


def mismatch(found: Any, types: dict[str, Any], place: str) -> str:
    """The first key of `types` that `found` lacks, or that has another type there; "" if none."""
    if not isinstance(found, dict):
        return f"{place.rstrip('.') or 'the content'} must be an object"
    for name, kind in types.items():
        if name not in found:
            return f"{place}{name} is missing"
        if not isinstance(found[name], kind) or isinstance(found[name], bool):
            return f"{place}{name} has the wrong type"
    return ""


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
