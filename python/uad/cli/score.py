"""The command line of the scoring program."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from uad.cli.arguments import (
    OptionError,
    OptionParser,
    add_threads_option,
    complain,
    positive_float,
    positive_int,
    set_threads,
)
from uad.cli.train import check_device
from uad.data import DataError
from uad.detector import BATCH, DetectorError, load_detector
from uad.distributed import process_count, processes
from uad.lock import LockError
from uad.scoring.folder import PROGRAM, ScoreError
from uad.scoring.judge import OVERLAYS, REPORT, TABLE
from uad.scoring.run import Run, ScoreOptions, score, start
from uad.scoring.watching import watch

POLL = 1.0

DESCRIPTION = f"""
Score images with a network trained by train.py. Writes {TABLE}, {REPORT} and, in {OVERLAYS}/, a
picture of each anomaly map over its image.
"""

EXAMPLES = f"""
examples:
  python python/{PROGRAM} runs/bottle/mse/checkpoint.pt photos --out scores
  python python/{PROGRAM} checkpoint.pt photos --normal good --false-positive-rate 0.01 --out scores
  python python/{PROGRAM} checkpoint.pt --watch incoming --out scores
  torchrun --nproc-per-node=2 python/{PROGRAM} checkpoint.pt photos --out scores

exit status: 0 all images were scored, 1 some could not be, 2 bad options or files, 130 interrupted
"""


def build_parser() -> argparse.ArgumentParser:
    """All options with their help texts."""
    parser = OptionParser(
        prog=PROGRAM,
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, help="checkpoint.pt, which may have been moved")
    parser.add_argument(
        "places",
        type=Path,
        nargs="*",
        metavar="PLACE",
        help="an image, or a folder of images, which may contain subfolders",
    )
    parser.add_argument(
        "--watch",
        type=Path,
        metavar="FOLDER",
        help="instead of PLACE: score the images that are in this folder and those that arrive, "
        "until stopped with Ctrl-C; a file that changes is scored again; with the same --out, "
        "checkpoint and threshold, a restart continues",
    )
    parser.add_argument(
        "--poll",
        type=positive_float,
        metavar="SECONDS",
        help="time between two looks at the folder; an image is scored once it is unchanged "
        f"between two looks (default: {POLL:g}; requires --watch)",
    )
    parser.add_argument(
        "--normal",
        type=Path,
        metavar="FOLDER",
        help="normal images, not used in training, from which to choose the threshold (default: "
        "the normal test images of the training run)",
    )
    parser.add_argument(
        "--false-positive-rate",
        type=float,
        metavar="RATE",
        help="fraction of normal images that may be called anomalous (default: as in training)",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help=f"replace the results of {PROGRAM} in --out; other files stay",
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:<index> (default: cuda if available)")
    parser.add_argument(
        "--batch-size",
        type=positive_int,
        default=BATCH,
        help="images in memory at a time, in each process (default: %(default)s)",
    )
    add_threads_option(parser)
    return parser


def check(arguments: argparse.Namespace) -> None:
    """Fill in defaults; OptionError for options that are invalid or do not go together."""
    if arguments.watch is None and not arguments.places:
        raise OptionError("nothing to score: pass images or folders, or --watch FOLDER")
    if arguments.watch is not None and arguments.places:
        raise OptionError("--watch scores one folder: pass no other images or folders")
    if arguments.watch is None and arguments.poll is not None:
        raise OptionError("--poll requires --watch")
    if arguments.watch is not None and not arguments.watch.is_dir():
        raise OptionError(f"--watch {arguments.watch}: no such folder")
    if arguments.watch is not None and process_count() > 1:
        raise OptionError("--watch runs in one process: start it without torchrun")
    rate = arguments.false_positive_rate
    if rate is not None and not 0 < rate < 1:
        raise OptionError(f"--false-positive-rate must be between 0 and 1, got {rate:g}")
    if arguments.device is None:
        arguments.device = "cuda" if torch.cuda.is_available() else "cpu"
    check_device(arguments.device, process_count())


def score_options(arguments: argparse.Namespace) -> ScoreOptions:
    """What to score, and where the results go."""
    return ScoreOptions(
        places=tuple(arguments.places) if arguments.watch is None else (arguments.watch,),
        out=arguments.out,
        watch=arguments.watch is not None,
        poll=POLL if arguments.poll is None else arguments.poll,
        normal=arguments.normal,
        rate=arguments.false_positive_rate,
        overwrite=arguments.overwrite,
        batch_size=arguments.batch_size,
    )


def run(arguments: argparse.Namespace) -> int:
    """Score the images and write the results; returns the exit code."""
    check(arguments)
    set_threads(arguments)
    detector = load_detector(arguments.checkpoint)
    with processes(torch.device(arguments.device)) as team:
        state = Run(score_options(arguments), detector.to(team.device), team)
        return start(state, watch if state.options.watch else score)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Exit code: 0 success, 1 some images could not be scored, 2 bad options, files or images, 130
    interrupted.
    """
    try:
        return run(build_parser().parse_intermixed_args(argv))
    except (OptionError, ScoreError, LockError, DetectorError, DataError, OSError) as error:
        complain(PROGRAM, error)
        return 2
    except torch.OutOfMemoryError:
        complain(PROGRAM, "out of GPU memory: try a smaller --batch-size")
        return 2
    except KeyboardInterrupt:
        complain(PROGRAM, "stopped; what was scored so far is in --out")
        return 130
