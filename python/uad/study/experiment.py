"""One run of a study: a network trained with one loss, judged by the same scores as all others."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict
from datetime import datetime, timezone
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import lamp_kernels
from lamp_kernels import functional
from uad import data as data_sets
from uad.data import GOOD, AnomalyData, DataError, fashion_mnist, folder, textures
from uad.distributed import Processes
from uad.evaluation import (
    Scoring,
    image_figures,
    image_scores,
    pixel_figures,
    reconstruct,
    region_weights,
)
from uad.losses import LossOptions, tangent_share
from uad.model import ConvAutoencoder
from uad.study.arms import METRICS, build_arm
from uad.study.grid import RunSpec
from uad.training import Trainer, TrainingError, TrainingOptions

DEFECT_SCORES = {
    "mse top 1 %": Scoring("mse"),
    "l1 top 1 %": Scoring("l1"),
    "ssim top 1 %": Scoring("ssim"),
}
SCORES: dict[str, dict[str, Scoring]] = {
    fashion_mnist.NAME: {
        "mse mean": Scoring("mse", smooth_sigma=0, pooling="mean"),
        "l1 mean": Scoring("l1", smooth_sigma=0, pooling="mean"),
        "ssim mean": Scoring("ssim", smooth_sigma=0, pooling="mean"),
        "ssim max": Scoring("ssim", smooth_sigma=0, pooling="max"),
    },
    textures.NAME: DEFECT_SCORES,
    folder.NAME: DEFECT_SCORES,
}
"""How every network is judged, whatever it was trained with. The first of each data set is the
primary score, chosen before any run: the error that most people look at."""

BATCH = 250
CPU = torch.device("cpu")


def run(spec: RunSpec, root: Path | None) -> dict[str, Any]:
    """The result of this run as a line of the results file: options, figures, environment.

    root: where the files of Fashion-MNIST or of a folder are. That a training
    diverges is a result too: then the line has "failed", the reason, in place of figures.
    tangent_share is that of the last batch of the last epoch.
    """
    start = time.perf_counter()
    data = load_data(spec.dataset, spec.normal_class, spec.size, spec.seed, root)
    if len(data.train) < spec.batch_size:
        raise DataError(f"batch_size {spec.batch_size}: only {len(data.train)} training images")
    result: dict[str, Any] = asdict(spec)
    try:
        trainer = train(spec, data)
        result["training_loss"] = trainer.history["loss"][-1]
        result["tangent_share"] = trainer.history["tangent_share"][-1]
        result |= judge(trainer.network, data, SCORES[spec.dataset])
    except TrainingError as error:
        result["failed"] = str(error)
    return result | {
        "seconds": round(time.perf_counter() - start, 2),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "lamp_kernels": lamp_kernels.__version__,
    }


@lru_cache(maxsize=4)  # the runs of a grid that share their images follow one another
def load_data(
    dataset: str, normal_class: int | str, size: int | None, seed: int, root: Path | None
) -> AnomalyData:
    """The images of a run. The seed decides the crops and defects of textures, nothing else."""
    if isinstance(normal_class, str):
        place = root if dataset == folder.NAME else None
        return data_sets.load(dataset, root=place, category=[normal_class], size=size, seed=seed)
    return data_sets.load(dataset, root=root, normal_class=normal_class, size=size)


def train(spec: RunSpec, data: AnomalyData) -> Trainer:
    """Train from the first weights and in the order of images that the seed alone decides."""
    torch.manual_seed(spec.seed)
    network: Any = ConvAutoencoder(data.train.shape[1], width=spec.width, latent=spec.latent)
    options = LossOptions(amplify_over=spec.amplify_over, eps=spec.eps)
    trainer = Trainer(
        spec.loss,
        network.to(memory_format=torch.channels_last),  # twice as fast on the CPU
        build_arm(spec.loss, options),
        TrainingOptions(
            epochs=spec.epochs,
            batch_size=spec.batch_size,
            learning_rate=spec.learning_rate,
            seed=spec.seed,
            optimizer=spec.optimizer,
        ),
        Processes(0, 1, CPU),
        partial(tangent_share, spec.metric, options=options),
    )
    # many trainings side by side: one line an epoch of each would bury the study's progress
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        trainer.fit(data.train, None)
    return trainer


def judge(network: nn.Module, data: AnomalyData, scores: dict[str, Scoring]) -> dict[str, Any]:
    """Figures of merit by score, and the mean errors of normal and anomalous test images.

    image_auroc, image_ap, and where there are masks pixel_auroc, pixel_ap, aupro: by score.
    error_normal, error_anomalous: by metric, mean over all pixels of the images of that sort.
    TrainingError where a reconstruction is not finite.
    """
    anomalous = np.array([kind != GOOD for kind in data.kinds])
    batches = list(reconstruct(network, data.test, BATCH, CPU))
    masks = None if data.masks is None else data.masks.numpy()
    weights = None if masks is None else region_weights(masks)
    figures: dict[str, dict[str, float | None]] = {}
    for name, scoring in scores.items():
        maps = _maps(batches, scoring.metric, scoring.smooth_sigma)
        if not maps.isfinite().all():
            raise TrainingError("reconstructions are not finite: the network has diverged")
        found = image_figures(anomalous, image_scores(maps, scoring).numpy())
        if masks is not None and weights is not None:
            found |= pixel_figures(maps.numpy(), masks, weights)
        for figure, value in found.items():
            figures.setdefault(figure, {})[name] = value
    for side, chosen in (("error_normal", ~anomalous), ("error_anomalous", anomalous)):
        figures[side] = {
            metric: _maps(batches, metric, 0.0)[torch.from_numpy(chosen)].mean().item()
            for metric in METRICS
        }
    return figures


def _maps(batches: list[tuple[Tensor, Tensor]], metric: Any, smooth_sigma: float) -> Tensor:
    """Anomaly maps (M, H, W) of pairs of originals and reconstructions."""
    return torch.cat(
        [
            functional.anomaly_map(
                reconstruction,
                original,
                metric=metric,
                channel_reduction="mean",
                smooth_sigma=smooth_sigma,
            )
            for original, reconstruction in batches
        ]
    )
