"""What the training program does: load the images, train, evaluate, report."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Mapping
from contextlib import nullcontext
from html import unescape
from pathlib import Path
from typing import Any

import torch

from uad import threshold_words
from uad.batches import effective_batch_size, smaller_batches
from uad.checkpoint import CheckpointError
from uad.cli.arguments import OptionError, complain, is_out_of_memory, say, set_threads
from uad.cli.stored_options import EPOCHS, resumed_options
from uad.cli.train import complete, out_folder, run_options
from uad.cli.train_options import build_parser
from uad.data import AnomalyData, DataError, load_from_config
from uad.distributed import Processes, process_rank, processes
from uad.evaluation_files import normal_scores
from uad.lock import LockError, only_writer
from uad.options import RunOptions
from uad.report.page import write_report
from uad.report.run import read_run
from uad.report.verdict import lead
from uad.results_table import results_table
from uad.run import RunError, begin, check_folder, rehearse, train_losses
from uad.run_folder import EVALUATION, METRICS, RunFolderError, load_metrics
from uad.threshold import choose_threshold
from uad.training import TrainingError

LEFT_OUT = ("out", "resume")
"""Options that metrics.json does not store."""

WIDTH = 100
"""Of prose on the terminal, in characters."""


def execute(program: str, given: Mapping[str, Any]) -> int:
    """Run the program with the options that were given; return the exit code."""
    folder = out_folder(given)
    try:
        run(program, given, folder)
    except TrainingError as error:
        complain(program, error)
        return 1
    except (
        *(OptionError, RunError, RunFolderError, LockError, DataError, CheckpointError),
        OSError,
    ) as error:
        complain(program, error)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        complain(program, f"out of memory: {how_to_need_less(folder)}")
        return 1
    except KeyboardInterrupt:
        say(program, f"stopped; {how_to_continue(program, folder)}")
        return 130
    return 0


def how_to_need_less(folder: Path) -> str:
    """What to do if the memory is not enough. These options of a run cannot be changed later."""
    smaller = "try a smaller --batch-size or --size"
    if (folder / METRICS).exists():
        smaller += f", with another --out, because the run in {folder} keeps its options"
    return smaller


def how_to_continue(program: str, folder: Path) -> str:
    """What to do after an interruption."""
    if not (folder / METRICS).exists():
        return "nothing was written; repeat the command to start again"
    return f"to continue: python python/{program} --out {shlex.quote(str(folder))} --resume"


def run(program: str, given: Mapping[str, Any], folder: Path) -> None:
    """Train, evaluate and report."""
    resume = given.get("resume", False)
    check_folder(folder, resume)
    with only_writer(folder) if process_rank() == 0 else nullcontext():
        metrics = load_metrics(folder) if check_folder(folder, resume) else None
        if resume and metrics is None:
            if given.keys() <= {"resume", "out", EPOCHS}:  # perhaps a typing error in --out
                raise OptionError(
                    f"--resume: {folder} holds no run; to start one, leave out --resume, or add "
                    "the options of the run"
                )
            say(program, f"{folder} holds no run yet: starting a new one")
        arguments = choose_options(given, metrics, folder / METRICS)
        set_threads(arguments)
        torch.backends.cudnn.deterministic = True  # a resumed run must end with the same numbers
        data = load_images(arguments, resumed=metrics is not None)
        options = run_options(arguments, batch_size(arguments, metrics, len(data.train)))
        with processes(torch.device(arguments.device)) as team:
            try:
                rehearse(data, options, team.device)
            except ValueError as error:  # raised by lamp_kernels; names the argument and its value
                source = "" if metrics is None else f"{folder / METRICS}: "
                raise OptionError(f"{source}{error}") from error
            if team.first:
                announce(data, arguments, options, team)
            metrics = begin(folder, metrics, config(arguments), data, options, team)
            if set(options.losses) <= set(metrics["arms"]):
                say(program, already_finished(folder, metrics))
            train_losses(folder, metrics, data, options, team)
            if team.first:
                write_report(folder)
                print_results(folder, metrics, options)


def choose_options(
    given: Mapping[str, Any], metrics: dict[str, Any] | None, path: Path
) -> argparse.Namespace:
    """All options: for a new run those given and the defaults, for a resumed one those stored."""
    if metrics is None:
        return complete(given)
    options = resumed_options(build_parser(), metrics["config"], given, path)
    try:
        return complete(options | {"out": path.parent})
    except OptionError as error:
        raise RunFolderError(f"{path}: config: {error}") from error


def config(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that metrics.json stores.

    Where a run is stored, and whether it was resumed, does not affect its results. The root is
    absolute, so that a run can be resumed from any working directory.
    """
    stored = {name: value for name, value in vars(arguments).items() if name not in LEFT_OUT}
    if arguments.root is not None:
        stored["root"] = os.path.abspath(arguments.root)
    return stored


def load_images(arguments: argparse.Namespace, resumed: bool) -> AnomalyData:
    """The images; DataError, for a resumed run with what to do if they have moved."""
    root = arguments.root
    try:
        return load_from_config(vars(arguments))
    except DataError as error:
        if not resumed or root is None or Path(root).is_dir():
            raise
        raise DataError(
            f"{arguments.out}: the images of this run cannot be loaded: {error}; if they have "
            "moved, name the folder with --root"
        ) from error


def batch_size(arguments: argparse.Namespace, metrics: dict[str, Any] | None, images: int) -> int:
    """The effective batch size; OptionError if there are fewer images than processes."""
    if metrics is not None and "effective_batch_size" not in metrics:
        return int(arguments.batch_size)  # an older run, which used it as it was
    size = effective_batch_size(images, arguments.batch_size, arguments.nproc_per_node)
    if size == 0:
        raise OptionError(
            f"{arguments.nproc_per_node} processes require at least as many training images, got "
            f"{images}"
        )
    return size


def announce(
    data: AnomalyData, arguments: argparse.Namespace, options: RunOptions, team: Processes
) -> None:
    """Print what was found, and where and on what the run takes place."""
    device = str(team.device)
    if team.device.type == "cuda":
        device += f" ({torch.cuda.get_device_name(team.device)})"
    threads = torch.get_num_threads()
    parts = [data.found] if data.found else []
    parts.append(f"{device}, {threads} thread{'s' if threads > 1 else ''}")
    if team.count > 1:
        parts[-1] += f", {team.count} processes"
    print("; ".join([*parts, f"out {arguments.out}"]), flush=True)
    for notice in data.notices:
        print(notice, file=sys.stderr)
    asked, used = arguments.batch_size, options.training.batch_size
    if used != asked:
        print(f"--batch-size {smaller_batches(len(data.train), asked, used)}", file=sys.stderr)


def already_finished(folder: Path, metrics: dict[str, Any]) -> str:
    """What to say if there is nothing to train."""
    return (
        f"the run in {folder}, started {metrics['environment'].get('date')}, is already finished: "
        "nothing to train; raise --epochs to train on, or choose another --out to train again"
    )


def print_results(folder: Path, metrics: dict[str, Any], options: RunOptions) -> None:
    """Print the tables, the thresholds if there are only normal images, the report's place."""
    print(results_table(metrics))
    print("\n" + plain_lead(folder))
    if not metrics["data"]["test_anomalous"]:
        print(f"\n{thresholds(folder, metrics, options.false_positive_rate)}")
    print(f"\nreport: {folder / 'report.html'}")


def plain_lead(folder: Path) -> str:
    """The first sentences of the report, for the terminal."""
    words = unescape(re.sub(r"<[^>]*>", "", lead(read_run(folder))))
    return "\n".join(textwrap.wrap(words, WIDTH))


def thresholds(folder: Path, metrics: dict[str, Any], rate: float) -> str:
    """A line for each loss: the threshold that its scores of normal images give."""
    lines = []
    for loss in metrics["arms"]:
        chosen = choose_threshold(normal_scores(folder / loss / EVALUATION), rate)
        lines.append(f"{loss}: threshold {threshold_words.one_line(chosen)}")
        if not chosen.met:
            lines.append(f"{loss}: {threshold_words.too_few_images(chosen)}")
    return "\n".join(lines)
