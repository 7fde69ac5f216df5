"""What a network is worth on the test images, and what a run says of its data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uad import evaluation
from uad.baselines import baselines
from uad.data import GOOD, AnomalyData
from uad.evaluation_files import choose_examples, save_evaluation, save_examples
from uad.inpainting import scoring_network
from uad.options import RunOptions
from uad.run_folder import EVALUATION, EXAMPLES
from uad.same_data import digests
from uad.training import Trainer, TrainingError


def evaluate_loss(
    folder: Path, trainer: Trainer, data: AnomalyData, options: RunOptions
) -> dict[str, Any]:
    """Score the test images with the trained network, and write the files for the report.

    TrainingError if a score or map is not finite.
    """
    try:
        network = scoring_network(trainer.network, options.training.inpaint, data.preparation.size)
        found = evaluate_network(network, data, options, trainer.device)
    except ValueError as error:
        raise TrainingError(f"the loss {trainer.name}: {error}") from error
    figures, reconstructions, maps, scores = found
    examples = choose_examples(data.kinds)
    save_examples(folder.parent / EXAMPLES, data, examples)
    save_evaluation(folder / EVALUATION, reconstructions, maps, scores, data, examples)
    return figures


def evaluate_baselines(data: AnomalyData, options: RunOptions) -> dict[str, Any]:
    """The figures of each baseline by its name, with the keys that a network's figures have."""
    return {
        name: evaluate_network(module, data, options, torch.device("cpu"))[0]
        for name, module in baselines(data.train).items()
    }


def evaluate_network(
    network: nn.Module, data: AnomalyData, options: RunOptions, device: torch.device
) -> tuple[dict[str, Any], Tensor, Tensor, Tensor]:
    """The figures of merit, reconstructions, maps and scores of the test images.

    ValueError if a score or map is not finite.
    """
    where: dict[str, Any] = {"batch_size": options.training.batch_size, "device": device}
    reconstructions, maps = evaluation.anomaly_maps(network, data.test, options.scoring, **where)
    scores = evaluation.image_scores(maps, options.scoring)
    normal = data.test[torch.tensor([kind == GOOD for kind in data.kinds])]
    psnr_normal = evaluation.psnr(network, normal, **where)
    return (
        evaluation.evaluate(maps, scores, psnr_normal, data), reconstructions, maps, scores,
    )  # fmt: skip


def describe_data(data: AnomalyData) -> dict[str, Any]:
    """What the images are and what people should know of them, for metrics.json.

    The digests tell a resumed run whether they are still the same.
    """
    kinds = Counter(data.kinds)
    return {
        "name": data.name,
        "title": data.title,
        "note": data.note,
        "found": data.found,
        "notices": list(data.notices),
        "train": len(data.train),
        "test_normal": kinds[GOOD],
        "test_anomalous": len(data.kinds) - kinds[GOOD],
        "held_out": data.held_out,
        "size": list(data.train.shape[1:]),
        "kinds": dict(sorted(kinds.items())),
        "preparation": data.preparation.to_dict(),
        **digests(data),
    }
