"""What a trained network is worth on the test images, and what a run says of its data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch

from uad import evaluation
from uad.data import GOOD, AnomalyData
from uad.options import RunOptions
from uad.run_folder import EVALUATION, EXAMPLES
from uad.training import Trainer, TrainingError


def evaluate_loss(
    folder: Path, trainer: Trainer, data: AnomalyData, options: RunOptions
) -> dict[str, Any]:
    """Score the test images with the trained network, and write the files for the report.

    TrainingError if a score or map is not finite.
    """
    where: dict[str, Any] = {"batch_size": options.training.batch_size, "device": trainer.device}
    reconstructions, maps = evaluation.anomaly_maps(
        trainer.network, data.test, options.scoring, **where
    )
    scores = evaluation.image_scores(maps, options.scoring)
    normal = data.test[torch.tensor([kind == GOOD for kind in data.kinds])]
    psnr_normal = evaluation.psnr(trainer.network, normal, **where)
    try:
        figures = evaluation.evaluate(maps, scores, psnr_normal, data)
    except ValueError as error:
        raise TrainingError(f"the loss {trainer.name}: {error}") from error
    examples = evaluation.choose_examples(data.kinds)
    evaluation.save_examples(folder.parent / EXAMPLES, data, examples)
    evaluation.save_evaluation(folder / EVALUATION, reconstructions, maps, scores, data, examples)
    return figures


def describe_data(data: AnomalyData) -> dict[str, Any]:
    """Number, size and kinds of the images, for metrics.json."""
    kinds = Counter(data.kinds)
    return {
        "name": data.name,
        "title": data.title,
        "note": data.note,
        "train": len(data.train),
        "test_normal": kinds[GOOD],
        "test_anomalous": len(data.kinds) - kinds[GOOD],
        "size": list(data.train.shape[1:]),
        "kinds": dict(sorted(kinds.items())),
    }
