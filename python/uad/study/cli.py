"""The command line of the study program."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from uad.cli import positive_int
from uad.data import DataError, fashion_mnist, folder
from uad.study.experiment import load_data
from uad.study.grid import GridError, read_grid
from uad.study.page import publish
from uad.study.results import ResultsError
from uad.study.runner import run_study

PROGRAM = "study.py"


def build_parser() -> argparse.ArgumentParser:
    """Subcommands, options and help texts."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Train under many losses, and compare what comes of it.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run", help="make the runs of a grid file that the results file does not have yet"
    )
    run.add_argument("grid", type=Path, help="JSON file of the runs, see uad/study/grid.py")
    run.add_argument(
        "--results", type=Path, required=True, help="file of one JSON line a run, added to"
    )
    run.add_argument(
        "--processes",
        type=positive_int,
        default=1,
        help="runs side by side, each on one thread (default: %(default)s)",
    )
    run.add_argument(
        "--root",
        type=Path,
        help="folder of Fashion-MNIST (default: that of Debian's package), or of your categories "
        "in the layout of MVTec AD",
    )
    publish_command = commands.add_parser(
        "publish", help="write tables, figures and a page beside a results file"
    )
    publish_command.add_argument("results", type=Path, help="the file that `run` wrote")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """What the subcommand says."""
    if arguments.command == "publish":
        print(*publish(arguments.results), sep="\n")
        return
    specs = read_grid(arguments.grid)
    if {fashion_mnist.NAME, folder.NAME} <= {spec.dataset for spec in specs}:
        raise GridError(
            f"{arguments.grid}: fashion-mnist and folder have each a --root of their own, so make "
            "two grids of them; they may share the results file"
        )
    # one image set of each sort, so that a missing one is an error before any work
    for spec in {spec.dataset: spec for spec in specs}.values():
        load_data(spec.dataset, spec.normal_class, spec.size, spec.seed, arguments.root)
    made = run_study(specs, arguments.results, processes=arguments.processes, root=arguments.root)
    print(f"{arguments.results}: {made} of {len(specs)} runs made now, the others were there")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program. 0: done, 1: a process died, 2: bad files or data, 130: interrupted."""
    try:
        run(build_parser().parse_args(argv))
    except (GridError, ResultsError, DataError) as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return 2
    except BrokenProcessPool as error:
        print(f"{PROGRAM}: error: {error} (out of memory?); run it again to go on",
              file=sys.stderr)  # fmt: skip
        return 1
    except KeyboardInterrupt:
        print(f"{PROGRAM}: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0
