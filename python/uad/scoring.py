"""The scoring program: a trained network and a folder of images, scores and heat maps."""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from uad.checkpoint import CheckpointError, atomic_write
from uad.cli import OptionError, positive_float, positive_int
from uad.data import DataError
from uad.data.folder import image_paths, read_image, resize, to_tensor
from uad.evaluation import Scoring, anomaly_maps, image_scores
from uad.figures import MAP_COLOURS, MAP_LIMIT
from uad.model import ConvAutoencoder
from uad.run_folder import RunFolderError, load_network, read_metrics

PROGRAM = "score.py"
TABLE, MAPS = "scores.csv", "maps"
BATCH = 32


@dataclass(frozen=True)
class Scorer:
    """A trained network and how its run scores images."""

    network: ConvAutoencoder
    scoring: Scoring
    size: int
    channels: int

    @staticmethod
    def of(checkpoint: Path) -> Scorer:
        """From <run folder>/<loss>/checkpoint.pt."""
        loss_folder = checkpoint.resolve().parent
        if not checkpoint.is_file():
            raise RunFolderError(f"{checkpoint}: no such file")
        metrics = read_metrics(loss_folder.parent)
        channels, size, _ = metrics["data"]["size"]
        network = load_network(loss_folder.parent, metrics, loss_folder.name)
        return Scorer(network, Scoring(**metrics["scoring"]), size, channels)

    def score(self, paths: Sequence[Path]) -> tuple[NDArray[np.float32], Tensor]:
        """Scores (N,) and maps (N, size, size) of image files.

        All are in memory at once, (4 + 2 channels) size^2 bytes an image, 0.7 MB at 256 in colour:
        how bright the heat maps are is decided by the maps of all images.
        """
        images = torch.stack(
            [to_tensor(resize(read_image(path), self.size), self.channels) for path in paths]
        )
        _, maps = anomaly_maps(self.network, images, self.scoring, batch_size=BATCH, device="cpu")
        return image_scores(maps, self.scoring).numpy(), maps


def threshold(normal_scores: NDArray[np.float32], rate: float) -> float:
    """The score above which an image is called anomalous.

    Of new normal images no more than a share of `rate` lies above, on average over the choice of
    the normal images given: the k-th smallest of n scores, k = ceil((n + 1) (1 - rate)), as in
    split conformal prediction. ValueError where n is too small for the rate.
    """
    count = len(normal_scores)
    place = math.ceil((count + 1) * (1 - rate) - 1e-9)  # 10 * 0.9 may be a little above 9
    if place > count:
        raise ValueError(
            f"a false-positive rate of {rate:g} needs at least "
            f"{math.ceil(1 / rate - 1 - 1e-9)} normal images, there are {count}"
        )
    return float(np.sort(normal_scores)[place - 1])


def build_parser() -> argparse.ArgumentParser:
    """Options and help texts."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Anomaly scores and heat maps for a folder of images.",
        allow_abbrev=False,
    )
    parser.add_argument("checkpoint", type=Path, help="<run folder>/<loss>/checkpoint.pt")
    parser.add_argument("images", type=Path, help="folder of images to score")
    parser.add_argument(
        "--normal",
        type=Path,
        help="folder of normal images that the network was not trained on, for a threshold",
    )
    parser.add_argument(
        "--false-positive-rate",
        type=positive_float,
        help="share of normal images that may be called anomalous (default: 0.05)",
    )
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {TABLE} and {MAPS}/")
    parser.add_argument("--threads", type=positive_int, help="default: PyTorch's choice")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Score, write, print."""
    rate = 0.05 if arguments.false_positive_rate is None else arguments.false_positive_rate
    if rate >= 1:
        raise OptionError(f"--false-positive-rate {rate:g}: must be below 1")
    if arguments.normal is None and arguments.false_positive_rate is not None:
        raise OptionError("--false-positive-rate needs --normal, images to take a threshold from")
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    scorer = Scorer.of(arguments.checkpoint)
    paths = image_paths(arguments.images)
    limit = None
    if arguments.normal is not None:
        try:
            limit = threshold(scorer.score(image_paths(arguments.normal))[0], rate)
        except ValueError as error:
            raise OptionError(f"--normal {arguments.normal}: {error}") from error
    scores, maps = scorer.score(paths)
    brightest = float(np.percentile(maps.numpy(), MAP_LIMIT)) or 1.0
    folder: Path = arguments.out
    (folder / MAPS).mkdir(parents=True, exist_ok=True)
    for path, each in zip(paths, maps, strict=True):
        # the whole file name: a.png and a.jpg may lie side by side
        with atomic_write(folder / MAPS / f"{path.name}.png") as file:
            heat_map(each, brightest, read_image(path).size).save(file, "png")
    with atomic_write(folder / TABLE) as file:
        file.write(table(paths, scores, limit).encode())
    print(f"{folder / TABLE}: {len(paths)} images", end="")
    if limit is not None:
        above = int((scores > limit).sum())
        print(
            f", {above} anomalous: above {limit:.6g}, a threshold for a false-positive rate of "
            f"{rate:g}",
            end="",
        )
    print(f"\n{folder / MAPS}: heat maps, black for 0 to brightest for {brightest:.3g} and more")


def table(paths: Sequence[Path], scores: NDArray[np.float32], limit: float | None) -> str:
    """scores.csv: a line an image, the most anomalous first."""
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
    """The map as a picture of the image's own size (width, height)."""
    colours = matplotlib.colormaps[MAP_COLOURS](values.numpy() / brightest, bytes=True)
    picture: Image.Image = Image.fromarray(colours[..., :3])
    return picture.resize(size, Image.Resampling.BILINEAR)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program. 0: done, 2: bad options, files or images."""
    try:
        run(build_parser().parse_args(argv))
    except (OptionError, RunFolderError, CheckpointError, DataError) as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return 2
    return 0
