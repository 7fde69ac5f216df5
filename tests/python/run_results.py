"""The results of runs of train.py, and whether two runs have the same ones."""

from __future__ import annotations

import json
from pathlib import Path

import torch


def read_metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def results(folder: Path) -> dict:
    """metrics.json without the entries that differ between equal runs: timings and date."""
    metrics = read_metrics(folder)
    del metrics["environment"]["date"]
    for arm in metrics["arms"].values():
        del arm["seconds_per_step"], arm["loss_share"]
    return metrics


def weights(folder: Path, loss: str) -> dict[str, torch.Tensor]:
    return torch.load(folder / loss / "checkpoint.pt", weights_only=True)["model"]


def assert_same_run(folder: Path, other: Path) -> None:
    assert results(folder) == results(other)
    for loss in read_metrics(folder)["arms"]:
        for key, value in weights(folder, loss).items():
            assert torch.equal(value, weights(other, loss)[key]), (loss, key)
