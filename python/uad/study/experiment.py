"""One run of a study: train a network with one loss, and judge it by the same scores as all."""

from __future__ import annotations

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
from uad import data as data_sets
from uad.batches import effective_batch_size
from uad.data import GOOD, AnomalyData, DataError, fashion_mnist, folder, mnist, textures, to_unit
from uad.distributed import Processes
from uad.evaluation import (
    annotated,
    anomaly_map,
    image_figures,
    image_scores,
    pixel_figures,
    reconstruct,
    region_weights,
)
from uad.inpainting import scoring_network
from uad.losses import LossSettings, tangent_share
from uad.model import ConvAutoencoder
from uad.options import Scoring, TrainingOptions
from uad.study.arms import build_arm
from uad.study.spec import FIELDS, RunSpec
from uad.training import Trainer, TrainingError

DEFECT_SCORES = {
    "mse top 1 %": Scoring("mse"),
    "l1 top 1 %": Scoring("l1"),
    "ssim top 1 %": Scoring("ssim"),
    "msgms max": Scoring("msgms", mean_filter=21, smooth_sigma=0, pooling="max"),  # RIAD's
}
CLASS_SCORES = {
    "mse mean": Scoring("mse", smooth_sigma=0, pooling="mean"),
    "l1 mean": Scoring("l1", smooth_sigma=0, pooling="mean"),
    "ssim mean": Scoring("ssim", smooth_sigma=0, pooling="mean"),
    "ssim max": Scoring("ssim", smooth_sigma=0, pooling="max"),
}
SCORES: dict[str, dict[str, Scoring]] = {
    fashion_mnist.NAME: CLASS_SCORES,
    mnist.NAME: CLASS_SCORES,
    textures.NAME: DEFECT_SCORES,
    folder.NAME: DEFECT_SCORES,
}
"""How every network is judged, whatever its training loss. The first score of each data set is the
primary one, chosen before any run: the error that most people look at."""

UNSMOOTHED = {
    "mse": Scoring("mse", smooth_sigma=0),
    "l1": Scoring("l1", smooth_sigma=0),
    "ssim": Scoring("ssim", smooth_sigma=0),
}
"""The maps of the mean errors, by metric. A results file has all of them on each of its lines, so
the study's losses of other metrics are described by these errors too."""

BATCH = 250
CPU = torch.device("cpu")


def run(spec: RunSpec, root: Path | None) -> dict[str, Any]:
    """Make a run; return its line of the results file: options, figures, environment.

    root: folder with the files of Fashion-MNIST or of the categories. The entry "tangent_share" is
    for the last batch of the last epoch, and "effective_batch_size" is there if it is not the size
    that the grid asked for. A training that diverges is a result too: its line has
    "failed" with the reason instead of figures. DataError if the images cannot be used.
    """
    start = time.perf_counter()
    data = load_for(spec, root)
    check_images(spec, data)
    result: dict[str, Any] = asdict(spec)
    batch_size = effective_batch_size(len(data.train), spec.batch_size)
    if batch_size != spec.batch_size:
        result["effective_batch_size"] = batch_size
    try:
        trainer = train(spec, data)
        result["training_loss"] = trainer.history["loss"][-1]
        result["tangent_share"] = trainer.history["tangent_share"][-1]
        network = scoring_network(trainer.network, spec.inpaint, data.preparation.size)
        result |= judge(network, data, SCORES[spec.dataset])
        result["error_mean_image"] = mean_image_error(data)
    except TrainingError as error:
        result["failed"] = str(error)
    return result | {
        "seconds": round(time.perf_counter() - start, 2),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "lamp_kernels": lamp_kernels.__version__,
    }


def load_for(spec: RunSpec, root: Path | None) -> AnomalyData:
    """The images of a run."""
    options = {
        name: getattr(spec, name)
        for name in ("fit", "bit_depth")
        if getattr(spec, name) != FIELDS[name].default
    }
    return load_data(spec.dataset, spec.normal_class, spec.size, spec.seed, root, **options)


@lru_cache(maxsize=4)  # runs of a grid that share their images usually follow each other
def load_data(
    dataset: str, normal_class: int | str, size: int | None, seed: int, root: Path | None,
    **options: Any,
) -> AnomalyData:  # fmt: skip
    """The images of a run. The seed determines the crops and defects of textures, nothing else.

    options: of `uad.data.load`, where they differ from its defaults.
    """
    place = root if dataset in (folder.NAME, fashion_mnist.NAME) else None
    if isinstance(normal_class, str):
        return data_sets.load(
            dataset, root=place, category=[normal_class], size=size, seed=seed, **options
        )
    return data_sets.load(dataset, root=place, normal_class=normal_class, size=size)


def check_images(spec: RunSpec, data: AnomalyData) -> None:
    """DataError if these images show nothing about the network, or are too small to inpaint."""
    name = f"{spec.dataset}, {spec.normal_class}"
    kinds = set(data.kinds)
    if kinds == {GOOD}:
        raise DataError(
            f"{name}: has good images only, so no loss can be judged; add images with defects in "
            "test/<kind of defect>, or leave this category out of the grid"
        )
    if GOOD not in kinds:
        raise DataError(
            f"{name}: has no good test images, so no loss can be judged; add some in test/{GOOD}"
        )
    side = data.preparation.size
    if spec.inpaint is not None and 2 * spec.inpaint > side:
        raise DataError(
            f"{name}: inpaint must be at most half of the image's side, {side // 2}, got "
            f"{spec.inpaint}"
        )


def train(spec: RunSpec, data: AnomalyData) -> Trainer:
    """Train a network; the seed alone determines the initial weights and the order of images."""
    torch.manual_seed(spec.seed)
    network: Any = ConvAutoencoder(data.train.shape[1], width=spec.width, latent=spec.latent)
    settings = LossSettings(amplify_over=spec.amplify_over, eps=spec.eps)
    trainer = Trainer(
        spec.loss,
        network.to(memory_format=torch.channels_last),  # twice as fast on the CPU
        build_arm(spec.loss, settings, weighted=spec.inpaint_loss == "masked"),
        TrainingOptions(
            epochs=spec.epochs,
            batch_size=effective_batch_size(len(data.train), spec.batch_size),
            learning_rate=spec.learning_rate,
            seed=spec.seed,
            optimizer=spec.optimizer,
            inpaint=spec.inpaint,
            inpaint_loss=spec.inpaint_loss,
        ),
        Processes(0, 1, CPU),
        partial(tangent_share, spec.metric, settings=settings),
    )
    trainer.fit(data.train, None)
    return trainer


def judge(network: nn.Module, data: AnomalyData, scores: dict[str, Scoring]) -> dict[str, Any]:
    """Figures of merit by score, and the mean errors of normal and anomalous test images.

    image_auroc, image_ap, and with masks pixel_auroc, pixel_ap, aupro: by score. The last three
    leave out images whose mask is missing.
    error_normal, error_anomalous: by metric, the mean over all pixels of these images.
    Raises TrainingError if a reconstruction is not finite.
    """
    anomalous = np.array([kind != GOOD for kind in data.kinds])
    batches = list(reconstruct(network, data.test, BATCH, CPU))
    known = annotated(data)
    masks = None if data.masks is None else data.masks.numpy()[known]
    weights = None if masks is None else region_weights(masks)
    figures: dict[str, dict[str, float | None]] = {}
    for name, scoring in scores.items():
        maps = _maps(batches, scoring)
        if not maps.isfinite().all():
            raise TrainingError("reconstructions are not finite: the network has diverged")
        found = image_figures(anomalous, image_scores(maps, scoring).numpy())
        if masks is not None and weights is not None:
            found |= pixel_figures(maps.numpy()[known], masks, weights)
        for figure, value in found.items():
            figures.setdefault(figure, {})[name] = value
    for side, chosen in (("error_normal", ~anomalous), ("error_anomalous", anomalous)):
        figures[side] = {
            metric: _maps(batches, UNSMOOTHED[metric])[torch.from_numpy(chosen)].mean().item()
            for metric in UNSMOOTHED
        }
    return figures


def mean_image_error(data: AnomalyData) -> float:
    """Mean squared error of the mean training image on normal test images.

    What a network can achieve that ignores its input; see `uad.study.stuck`.
    """
    normal = data.test[torch.tensor([kind == GOOD for kind in data.kinds])]
    mean = to_unit(data.train).mean(dim=0)
    return (to_unit(normal) - mean).square().mean().item()


def _maps(batches: list[tuple[Tensor, Tensor]], scoring: Scoring) -> Tensor:
    """Anomaly maps (M, H, W) of pairs of originals and reconstructions."""
    return torch.cat(
        [anomaly_map(reconstruction, original, scoring) for original, reconstruction in batches]
    )
