"""The command line of the study program."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from uad.cli.arguments import complain, positive_int
from uad.data import DataError, fashion_mnist, folder
from uad.study.experiment import load_data
from uad.study.grid import GridError, read_grid
from uad.study.page import publish
from uad.study.results import ResultsError
from uad.study.runner import run_study

PROGRAM = "study.py"


def build_parser() -> argparse.ArgumentParser:
    """Subcommands and options with their help texts."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Train many networks with different losses, and compare the results.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run", help="make all runs of a grid file that the results file does not contain yet"
    )
    run.add_argument("grid", type=Path, help="JSON file that lists the runs; see uad/study/grid.py")
    run.add_argument(
        "--results",
        type=Path,
        required=True,
        help="file to which each run adds one line of JSON",
    )
    run.add_argument(
        "--processes",
        type=positive_int,
        default=1,
        help="number of runs in parallel, each on one thread (default: %(default)s)",
    )
    run.add_argument(
        "--root",
        type=Path,
        help="folder with Fashion-MNIST (default: where Debian's package installs it), or with "
        "your categories in the layout of MVTec AD",
    )
    publish_command = commands.add_parser(
        "publish", help="write tables, figures and a web page next to a results file"
    )
    publish_command.add_argument("results", type=Path, help="the results file of `run`")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Execute the subcommand."""
    if arguments.command == "publish":
        print(*publish(arguments.results), sep="\n")
        return
    specs = read_grid(arguments.grid)
    if {fashion_mnist.NAME, folder.NAME} <= {spec.dataset for spec in specs}:
        raise GridError(
            f"{arguments.grid}: fashion-mnist and folder each need a different --root; split the "
            "grid in two, which may share a results file"
        )
    # Load one set of images per data set, so that missing files are an error before any training.
    for spec in {spec.dataset: spec for spec in specs}.values():
        load_data(spec.dataset, spec.normal_class, spec.size, spec.seed, arguments.root)
    made = run_study(specs, arguments.results, processes=arguments.processes, root=arguments.root)
    print(
        f"{arguments.results}: {made} of {len(specs)} runs made now, "
        f"{len(specs) - made} already there"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Exit code: 0 success, 1 a process died, 2 bad files or data, 130 interrupted.
    """
    try:
        run(build_parser().parse_args(argv))
    except (GridError, ResultsError, DataError) as error:
        complain(PROGRAM, error)
        return 2
    except BrokenProcessPool as error:
        complain(PROGRAM, f"{error} (out of memory?); repeat the command to continue")
        return 1
    except KeyboardInterrupt:
        print(f"{PROGRAM}: stopped; repeat the command to continue", file=sys.stderr)
        return 130
    return 0
