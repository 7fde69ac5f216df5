"""The command line of the study program."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from uad.cli.arguments import complain, positive_int
from uad.data import DataError, fashion_mnist, folder
from uad.study.grid import GridError, read_grid
from uad.study.images import categories, examine
from uad.study.page import publish
from uad.study.results import ResultsError, read_results
from uad.study.runner import run_study, runs_missing
from uad.study.shard import Shard, missing_shards

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
    run.add_argument(
        "grid", type=Path, help="JSON file that lists the runs; python/grids/README.md describes it"
    )
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
    run.add_argument(
        "--shard",
        type=shard,
        metavar="I/N",
        help="make only part I of N, counted from 1, for job arrays; the results file gets I and N "
        "in its name, such as study.1-of-4.jsonl",
    )
    publish_command = commands.add_parser(
        "publish", help="write tables, figures and a web page next to a results file"
    )
    publish_command.add_argument(
        "results", type=Path, nargs="+", help="results files of `run`, such as those of all shards"
    )
    publish_command.add_argument(
        "--out", type=Path, help="folder to write to (default: that of the first results file)"
    )
    return parser


def shard(text: str) -> Shard:
    """Argument type: "I/N"."""
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def run(arguments: argparse.Namespace) -> None:
    """Execute the subcommand."""
    if arguments.command == "publish":
        for path in missing_shards(arguments.results):
            print(f"{PROGRAM}: this study also has a part {path}, not given", file=sys.stderr)
        print(*publish(arguments.results, arguments.out), sep="\n")
        return
    specs = read_grid(arguments.grid, categories(arguments.root))
    if {fashion_mnist.NAME, folder.NAME} <= {spec.dataset for spec in specs}:
        raise GridError(
            f"{arguments.grid}: fashion-mnist and folder each need a different --root; split the "
            "grid in two, which may share a results file"
        )
    path = arguments.results
    if arguments.shard:
        specs, path = arguments.shard.of(specs), arguments.shard.file(path)
    examine(runs_missing(specs, read_results(path)), arguments.root)
    made = run_study(specs, path, processes=arguments.processes, root=arguments.root)
    print(f"{path}: {made} of {len(specs)} runs made now, {len(specs) - made} already there")
    print(f"for the pages and tables: python python/{PROGRAM} publish {shlex.quote(str(path))}")


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
