"""The command line of the scoring program."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from uad.checkpoint import CheckpointError, atomic_write
from uad.cli.arguments import (
    OptionError,
    add_threads_option,
    complain,
    positive_float,
    set_threads,
)
from uad.data import DataError
from uad.data.images import image_files, read_image
from uad.figures import MAP_LIMIT
from uad.run_folder import RunFolderError
from uad.scoring import Scorer, heat_map, table
from uad.threshold import DEFAULT_RATE, choose_threshold, normal_images

PROGRAM = "score.py"
TABLE, MAPS = "scores.csv", "maps"


def build_parser() -> argparse.ArgumentParser:
    """All options with their help texts."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Compute anomaly scores and heat maps for a folder of images.",
        allow_abbrev=False,
    )
    parser.add_argument("checkpoint", type=Path, help="<run folder>/<loss>/checkpoint.pt")
    parser.add_argument("images", type=Path, help="folder of images to score")
    parser.add_argument(
        "--normal",
        type=Path,
        help="folder of normal images, not used in training, from which to compute a threshold",
    )
    parser.add_argument(
        "--false-positive-rate",
        type=positive_float,
        help="fraction of normal images that may be called anomalous; requires --normal "
        f"(default: {DEFAULT_RATE}, which requires at least {normal_images(DEFAULT_RATE)} normal "
        "images)",
    )
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {TABLE} and {MAPS}/")
    add_threads_option(parser)
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Score the images, write the table and the heat maps, print a summary."""
    rate = false_positive_rate(arguments)
    set_threads(arguments)
    scorer = Scorer.of(arguments.checkpoint)
    paths = [path for path, _ in image_files([arguments.images]).files]
    limit = None if arguments.normal is None else normal_limit(scorer, arguments.normal, rate)
    scores, maps = scorer.score(paths)
    folder: Path = arguments.out
    brightest = write_heat_maps(folder / MAPS, paths, maps)
    with atomic_write(folder / TABLE) as file:
        file.write(table(paths, scores, limit).encode())
    print(f"{folder / TABLE}: {len(paths)} images{summary(scores, limit, rate)}")
    print(f"{folder / MAPS}: heat maps, from black at 0 to full brightness at {brightest:.3g}")


def false_positive_rate(arguments: argparse.Namespace) -> float:
    """The false-positive rate asked for, or the default; OptionError if it cannot be met."""
    rate: float | None = arguments.false_positive_rate
    if rate is None:
        return DEFAULT_RATE
    if rate >= 1:
        raise OptionError(f"--false-positive-rate must be below 1, got {rate:g}")
    if arguments.normal is None:
        raise OptionError("--false-positive-rate requires --normal, the images for the threshold")
    return rate


def normal_limit(scorer: Scorer, folder: Path, rate: float) -> float:
    """The threshold that the normal images in `folder` give; OptionError if there are too few."""
    scores, _ = scorer.score([path for path, _ in image_files([folder]).files])
    chosen = choose_threshold(scores, rate)
    if not chosen.met:
        raise OptionError(
            f"--normal {folder}: a false-positive rate of {rate:g} requires at least "
            f"{normal_images(rate)} normal images, got {chosen.count}"
        )
    return chosen.value


def write_heat_maps(folder: Path, paths: Sequence[Path], maps: Tensor) -> float:
    """Write a picture for each map (N, S, S), and return the map value shown brightest."""
    folder.mkdir(parents=True, exist_ok=True)
    brightest = float(np.percentile(maps.numpy(), MAP_LIMIT)) or 1.0
    for path, each in zip(paths, maps, strict=True):
        # Keep the whole file name: a folder may hold both a.png and a.jpg.
        with atomic_write(folder / f"{path.name}.png") as file:
            heat_map(each, brightest, read_image(path).size).save(file, "png")
    return brightest


def summary(scores: NDArray[np.float32], limit: float | None, rate: float) -> str:
    """How many images lie above the threshold; empty without one."""
    if limit is None:
        return ""
    return (
        f", {int((scores > limit).sum())} anomalous: above {limit:.6g}, the threshold for a "
        f"false-positive rate of {rate:g}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program. Exit code: 0 success, 2 bad options, files or images."""
    try:
        run(build_parser().parse_args(argv))
    except (OptionError, RunFolderError, CheckpointError, DataError, OSError) as error:
        complain(PROGRAM, error)
        return 2
    return 0
