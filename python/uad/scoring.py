"""Score image files with a trained network: scores, a threshold, heat maps."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from uad.data.fit import to_square
from uad.data.images import read_image, to_tensor
from uad.evaluation import anomaly_maps, image_scores
from uad.figures import MAP_COLORS
from uad.model import ConvAutoencoder
from uad.options import Scoring
from uad.run_folder import CHECKPOINT, RunFolderError, load_network, read_metrics

BATCH = 32


@dataclass(frozen=True)
class Scorer:
    """A trained network, and how its run scores images."""

    network: ConvAutoencoder
    scoring: Scoring
    size: int
    channels: int

    @staticmethod
    def of(checkpoint: Path) -> Scorer:
        """Load <run folder>/<loss>/checkpoint.pt; RunFolderError if it is not part of a run."""
        _check_path(checkpoint)
        loss_folder = checkpoint.resolve().parent
        metrics = read_metrics(loss_folder.parent)
        channels, size, _ = metrics["data"]["size"]
        network = load_network(loss_folder.parent, metrics, loss_folder.name)
        return Scorer(network, Scoring(**metrics["scoring"]), size, channels)

    def score(self, paths: Sequence[Path]) -> tuple[NDArray[np.float32], Tensor]:
        """Scores (N,) and maps (N, size, size) of image files.

        Keeps all images in memory, (4 + 2 channels) size^2 bytes each, 0.7 MB for color images of
        size 256, because the brightness of every heat map depends on the maps of all images.
        """
        images = torch.stack(
            [
                to_tensor(to_square(read_image(path), self.size, "stretch"), self.channels)
                for path in paths
            ]
        )
        _, maps = anomaly_maps(self.network, images, self.scoring, batch_size=BATCH, device="cpu")
        return image_scores(maps, self.scoring).numpy(), maps


def _check_path(path: Path) -> None:
    """RunFolderError unless this is a file with the name of a checkpoint; it says what to pass."""
    if path.is_dir():
        inside = path / CHECKPOINT
        wanted = inside if inside.is_file() else path / "<loss>" / CHECKPOINT
        raise RunFolderError(f"{path}: is a folder; pass {wanted}")
    if not path.is_file():
        raise RunFolderError(f"{path}: no such file")
    if path.name != CHECKPOINT:
        raise RunFolderError(f"{path}: not a checkpoint; pass <run folder>/<loss>/{CHECKPOINT}")


def table(paths: Sequence[Path], scores: NDArray[np.float32], limit: float | None) -> str:
    """The text of scores.csv: one line per image, the most anomalous first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "score"] + ([] if limit is None else ["threshold", "anomalous"]))
    for index in np.argsort(-scores, kind="stable"):
        row = [paths[index].name, f"{scores[index]:.6g}"]
        if limit is not None:
            row += [f"{limit:.6g}", "yes" if scores[index] > limit else "no"]
        writer.writerow(row)
    return text.getvalue()


def heat_map(values: Tensor, brightest: float, size: tuple[int, int]) -> Image.Image:
    """The map as a picture of `size` (width, height); values from `brightest` up look the same."""
    colors = matplotlib.colormaps[MAP_COLORS](values.numpy() / brightest, bytes=True)
    picture: Image.Image = Image.fromarray(colors[..., :3])
    return picture.resize(size, Image.Resampling.BILINEAR)
