"""The command line of the landscape program."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from uad.checkpoint import CheckpointError, atomic_write
from uad.cli.arguments import (
    OptionError,
    add_threads_option,
    complain,
    positive_float,
    positive_int,
    seed,
    set_threads,
)
from uad.data import DataError, to_unit
from uad.figures import encode
from uad.landscape.figures import landscape_figure
from uad.landscape.measure import Landscape, Options, measure
from uad.landscape.table import LINES, PICTURE, read_tables
from uad.losses import LossSettings
from uad.report import write_report
from uad.run_folder import RunFolderError, load_images, load_network, read_metrics

PROGRAM = "landscape.py"


def build_parser() -> argparse.ArgumentParser:
    """All options with their defaults and help texts."""
    options = Options()
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Plot and measure the loss around trained weights.",
        allow_abbrev=False,
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
        default=options.images,
        help="number of training images, taken from the first on (default: %(default)s)",
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
    """Where to measure; OptionError for numbers that no measurement can use."""
    options = Options(
        directions=arguments.directions,
        reach=arguments.reach,
        points=arguments.points,
        plane_points=arguments.plane_points,
        images=arguments.images,
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


def run(arguments: argparse.Namespace) -> None:
    """Measure the networks, write picture and figures, print the tables."""
    options = measure_options(arguments)
    set_threads(arguments)
    metrics = read_metrics(arguments.run)
    config = metrics["config"]
    networks = {
        name: load_network(arguments.run, metrics, name)
        for name in arguments.loss or metrics["arms"]
    }
    images = to_unit(load_images(metrics).train[: options.images])
    settings = LossSettings(**{field.name: config[field.name] for field in fields(LossSettings)})
    landscapes = {
        name: measure(network, name, images, settings, options)
        for name, network in tqdm(networks.items(), desc="networks", disable=None)
    }
    lines = [line for each in landscapes.values() for line in results(each, metrics, options)]
    folder = arguments.out or arguments.run
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / PICTURE) as file:
        file.write(encode(landscape_figure(landscapes), "png"))
    with atomic_write(folder / LINES) as file:
        file.write("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode())
    print("\n\n".join(table.text() for table in read_tables(folder)))
    print(f"\n{folder / PICTURE}\n{folder / LINES}")
    if folder == arguments.run:
        print(write_report(folder))


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
            **figures,
        }
        for name, figures in landscape.figures.items()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program. Exit code: 0 success, 2 bad options, files or data."""
    try:
        run(build_parser().parse_args(argv))
    except (OptionError, RunFolderError, CheckpointError, DataError) as error:
        complain(PROGRAM, error)
        return 2
    return 0
