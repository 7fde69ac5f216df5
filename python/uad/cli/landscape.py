"""The command line of the landscape program."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from uad.checkpoint import CheckpointError, atomic_write
from uad.cli.arguments import (
    OptionError,
    OptionParser,
    add_threads_option,
    complain,
    is_out_of_memory,
    positive_float,
    positive_int,
    seed,
    set_threads,
)
from uad.data import AnomalyData, DataError, to_unit
from uad.figures import encode
from uad.landscape.figures import landscape_figure
from uad.landscape.measure import Landscape, Options, counterparts, measure, work
from uad.landscape.table import LINES, PICTURE, read_tables
from uad.landscape.work import (
    CURVATURE_PIXELS,
    MOST_CURVATURE_IMAGES,
    MOST_IMAGES,
    PIXELS,
    default_count,
)
from uad.lock import LockError, only_writer
from uad.losses import LossSettings, build_loss
from uad.model import ConvAutoencoder
from uad.progress import Progress
from uad.report.page import write_report
from uad.run_folder import METRICS, RunFolderError, load_images, load_network, read_metrics
from uad.same_data import known_detector, training_changes

PROGRAM = "landscape.py"


def build_parser() -> argparse.ArgumentParser:
    """All options with their defaults and help texts."""
    options = Options()
    parser = OptionParser(
        prog=PROGRAM,
        description="Plot and measure the loss around trained weights.",
    )
    parser.add_argument(
        "run", type=Path, help="run folder of train.py; its report gets a section on the landscape"
    )
    parser.add_argument(
        "--loss",
        nargs="+",
        help="losses whose networks to measure (default: all losses of the run)",
    )
    parser.add_argument(
        "--out", type=Path, help=f"folder for {PICTURE} and {LINES} (default: the run folder)"
    )
    parser.add_argument(
        "--root", type=Path, help="folder with the run's images, if it has moved since training"
    )
    parser.add_argument(
        "--directions",
        type=positive_int,
        default=options.directions,
        help="number of random directions, at least 2 (default: %(default)s)",
    )
    parser.add_argument(
        "--reach",
        type=positive_float,
        default=options.reach,
        help="maximum distance from the weights, as a fraction of their norm "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--points",
        type=positive_int,
        default=options.points,
        help="points along each direction, odd (default: %(default)s)",
    )
    parser.add_argument(
        "--plane-points",
        type=positive_int,
        default=options.plane_points,
        help="points along each side of the plane, odd (default: %(default)s)",
    )
    parser.add_argument(
        "--images",
        type=positive_int,
        help="number of training images, taken from the first on; the time is proportional to it "
        f"(default: as many as have {PIXELS / 1e6:.1f} megapixels together, at most {MOST_IMAGES}, "
        "which takes at most two minutes per network of the default width on two cores)",
    )
    parser.add_argument(
        "--curvature-images",
        type=positive_int,
        help="number of these images used for the maximum curvature (default: as many as have "
        f"{CURVATURE_PIXELS / 1e6:.2f} megapixels together, at most {MOST_CURVATURE_IMAGES})",
    )
    parser.add_argument(
        "--seed",
        type=seed,
        default=options.seed,
        help="seed of the random directions (default: %(default)s)",
    )
    add_threads_option(parser)
    return parser


def measure_options(arguments: argparse.Namespace) -> Options:
    """Where to measure, still without the number of images; OptionError for unusable numbers."""
    options = Options(
        directions=arguments.directions,
        reach=arguments.reach,
        points=arguments.points,
        plane_points=arguments.plane_points,
        seed=arguments.seed,
    )
    for name in ("points", "plane_points"):
        if getattr(options, name) < 3 or getattr(options, name) % 2 == 0:
            flag = name.replace("_", "-")
            raise OptionError(f"--{flag} must be odd and at least 3, got {getattr(options, name)}")
    if options.directions < 2:
        raise OptionError(
            f"--directions must be at least 2 for a standard deviation, got {options.directions}"
        )
    return options


def with_count(options: Options, arguments: argparse.Namespace, train: Tensor) -> Options:
    """The options with the number of images requested, or one that takes about a minute."""
    height, width = train.shape[-2:]
    usual = default_count(height * width)
    images = min(arguments.images or usual.images, len(train))
    curvature = min(arguments.curvature_images or usual.curvature_images, images)
    print(
        f"{PROGRAM}: {images} of {len(train)} training images, {width}x{height} (--images), "
        f"{curvature} for the maximum curvature (--curvature-images), "
        f"{options.directions} directions (--directions)",
        file=sys.stderr,
    )
    return replace(options, images=images, curvature_images=curvature)


def run_images(folder: Path, metrics: dict[str, Any], root: Path | None) -> AnomalyData:
    """The images that the run was trained on; DataError if they are not there."""
    config = metrics["config"] if root is None else metrics["config"] | {"root": str(root)}
    try:
        data = load_images(metrics | {"config": config})
    except DataError as error:
        raise DataError(
            f"{folder}: the images of this run cannot be loaded: {error}; if they have moved, name "
            "the folder with --root"
        ) from error
    trained_on, found = metrics["data"]["train"], len(data.train)
    changes = training_changes(known_detector(folder).get("fingerprints") or (), data)
    if not changes and found != trained_on:  # all that is known of a run of an older version
        changes = f"{trained_on} training images then, {found} now"
    if changes:
        place = config["root"] or data.title
        raise DataError(
            f"{folder}: the run was trained on other images than those of {place}: {changes}; name "
            "the folder with the original images with --root"
        )
    return data


def place_of_results(arguments: argparse.Namespace) -> Path:
    """The folder for picture and figures."""
    folder: Path = arguments.out or arguments.run
    return folder


def check_losses(folder: Path, names: Iterable[str], settings: LossSettings, image: Tensor) -> None:
    """RunFolderError if the losses of the run cannot be computed with its settings."""
    try:
        for name in names:
            for each in counterparts(name):
                build_loss(each, settings)(image, image)
    except ValueError as error:  # raised by lamp_kernels; names the argument and its value
        raise RunFolderError(f"{folder / METRICS}: {error}") from error


def measure_all(
    networks: Mapping[str, ConvAutoencoder], images: Tensor, settings: LossSettings,
    options: Options,
) -> dict[str, Landscape]:  # fmt: skip
    """The landscape around each network, with one bar for all of them."""
    total = sum(work(name, len(images), options) for name in networks)
    found = {}
    with Progress(total, "evaluation") as progress:
        for number, (name, network) in enumerate(networks.items(), 1):
            progress.report(f"landscape of {name}, network {number}/{len(networks)}")
            found[name] = measure(network, name, images, settings, options, progress.advance)
    return found


def run(arguments: argparse.Namespace) -> None:
    """Measure the networks and write the results, as the only writer of their folder."""
    options = measure_options(arguments)
    set_threads(arguments)
    read_metrics(arguments.run)  # before the lock, which would create a folder that is missing
    with only_writer(place_of_results(arguments)):
        run_locked(arguments, options)


def run_locked(arguments: argparse.Namespace, options: Options) -> None:
    """Measure the networks, write picture and figures, print the tables."""
    metrics = read_metrics(arguments.run)
    config = metrics["config"]
    if config.get("inpaint") is not None:
        raise RunFolderError(
            f"{arguments.run}: trained with --inpaint, so the loss depends on random squares; the "
            "landscape is that of a loss of whole images: choose a run without --inpaint"
        )
    networks = {
        name: load_network(arguments.run, metrics, name)
        for name in arguments.loss or metrics["arms"]
    }
    data = run_images(arguments.run, metrics, arguments.root)
    print(data.found, flush=True)
    for notice in data.notices:
        print(notice, file=sys.stderr)
    train = data.train
    options = with_count(options, arguments, train)
    images = to_unit(train[: options.images])
    settings = LossSettings(**{field.name: config[field.name] for field in fields(LossSettings)})
    check_losses(arguments.run, networks, settings, images[:1])
    landscapes = measure_all(networks, images, settings, options)
    lines = [line for each in landscapes.values() for line in results(each, metrics, options)]
    folder = place_of_results(arguments)
    picture = encode(landscape_figure(landscapes), "png")
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    write(folder, {PICTURE: picture, LINES: text.encode()})
    print("\n\n".join(table.text() for table in read_tables(folder)))
    print(f"\n{folder / PICTURE}\n{folder / LINES}")
    if folder == arguments.run:
        print(write_report(folder))


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files into the folder, each of them whole or not at all."""
    for name, content in files.items():
        with atomic_write(folder / name) as file:
            file.write(content)


def results(
    landscape: Landscape, metrics: dict[str, Any], options: Options
) -> list[dict[str, Any]]:
    """The lines of landscape.jsonl for one network."""
    config = metrics["config"]
    return [
        {
            "dataset": config["data"],
            "normal_class": config["normal_class"],
            "loss": landscape.trained,
            "looked_at": name,
            "seed": config["seed"],
            "direction_seed": options.seed,
            "reach": options.reach,
            "images": options.images,
            "curvature_images": options.curvature_images,
            **figures,
        }
        for name, figures in landscape.figures.items()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Exit code: 0 success, 1 out of memory, 2 bad options, files or data, 130 interrupted.
    """
    try:
        run(build_parser().parse_args(argv))
    except (OptionError, RunFolderError, CheckpointError, DataError, LockError, OSError) as error:
        complain(PROGRAM, error)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        complain(PROGRAM, "out of memory: try fewer --images and --curvature-images")
        return 1
    except KeyboardInterrupt:
        print(f"{PROGRAM}: stopped; nothing was written", file=sys.stderr)
        return 130
    return 0
