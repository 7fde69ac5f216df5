"""The command line of the training program."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import torch

from uad import data as data_sets
from uad.checkpoint import CheckpointError
from uad.cli.arguments import (
    OptionError,
    add_threads_option,
    complain,
    non_negative_float,
    positive_float,
    positive_int,
    seed,
    set_threads,
)
from uad.data import AnomalyData, DataError
from uad.distributed import process_count, processes
from uad.losses import LOSSES, LossSettings
from uad.options import FITS, RunOptions, Scoring, TrainingOptions
from uad.report import write_report
from uad.results_table import results_table
from uad.run import RunError, begin, metrics_to_resume, rehearse, train_losses
from uad.training import AMP_TYPES, TrainingError

PROGRAM = "train.py"

DESCRIPTION = """
Train reconstruction networks on normal images only, and find the anomalies in test images by how
badly they are reconstructed. Scores are computed the same way whatever the training loss, from
the network after the last epoch.
"""

EXAMPLES = f"""
examples:
  python python/{PROGRAM} --data textures --compare mse,amplified-mse
  python python/{PROGRAM} --data folder --root mvtec --category bottle cable --size 128
  torchrun --nproc-per-node=2 python/{PROGRAM} --data fashion-mnist --loss amplified-ssim
"""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises its errors."""

    def error(self, message: str) -> NoReturn:
        """Raise OptionError instead of printing the usage and exiting."""
        raise OptionError(f"{message} (see --help)")


def build_parser() -> argparse.ArgumentParser:
    """All options with their defaults and help texts."""
    parser = Parser(
        prog=PROGRAM,
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_data_options(parser.add_argument_group("data"))
    _add_loss_options(parser.add_argument_group("loss"))
    _add_training_options(parser.add_argument_group("training"))
    _add_scoring_options(parser.add_argument_group("anomaly scores, the same for every loss"))
    _add_run_folder_options(parser.add_argument_group("run folder"))
    return parser


def _add_data_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--data", choices=data_sets.NAMES, default="textures", help="data set (default: textures)"
    )
    group.add_argument(
        "--root",
        help="folder with the files; required for folder, which expects the layout of MVTec AD "
        "([<category>/]train/good, and if you have them test/good, test/<defect>, "
        "ground_truth/<defect>); "
        "optional for fashion-mnist",
    )
    group.add_argument(
        "--category",
        nargs="+",
        metavar="NAME",
        help="categories of textures or folder, pooled "
        "(default: all textures; for folder, the root itself)",
    )
    group.add_argument(
        "--normal-class",
        type=int,
        metavar="0-9",
        help="class of fashion-mnist that counts as normal (default: 0)",
    )
    group.add_argument(
        "--size",
        type=positive_int,
        help="side of the square images in pixels "
        "(default: textures 64, fashion-mnist 28, folder 256)",
    )
    group.add_argument(
        "--channels", type=int, choices=(1, 3), help="gray or color (default: as in the images)"
    )
    group.add_argument(
        "--fit",
        choices=FITS,
        default=FITS[0],
        help="how images of folder become square: both sides resized, edges repeated around the "
        "image, or the largest square in the middle (default: %(default)s)",
    )
    group.add_argument(
        "--bit-depth",
        type=positive_int,
        metavar="8-16",
        help="bits of the pixels in 16-bit files of folder, such as 12 for a 12-bit camera "
        "(default: from the highest level in the files)",
    )
    group.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out files of folder that cannot be used (default: stop and list them)",
    )
    group.add_argument(
        "--hold-out",
        type=positive_float,
        metavar="FRACTION",
        help="fraction of train/good to test with if folder has no normal test images "
        "(default: 0.2)",
    )


def _add_loss_options(group: argparse._ArgumentGroup) -> None:
    default = LossSettings()
    losses = group.add_mutually_exclusive_group()
    losses.add_argument("--loss", choices=LOSSES, help="training loss (default: amplified-ssim)")
    losses.add_argument(
        "--compare",
        type=loss_list,
        metavar="A,B,...",
        help="several losses, each trained from the same initial weights on the same batches in "
        f"the same order; choose from {', '.join(LOSSES)}",
    )
    group.add_argument(
        "--amplify-over",
        choices=("element", "image", "batch"),
        default=default.amplify_over,
        help="amplify each element, the mean over each image, or the mean over the batch (under "
        "torchrun, over the local batch of each process) (default: %(default)s)",
    )
    group.add_argument(
        "--eps",
        type=float,
        default=default.eps,
        help="1/eps is the maximum slope of the amplification (default: %(default)s)",
    )
    group.add_argument(
        "--padding",
        choices=("reflect", "valid", "zeros"),
        default=default.padding,
        help="border rule of SSIM (default: %(default)s)",
    )
    group.add_argument(
        "--window-size",
        type=positive_int,
        default=default.window_size,
        help="side of the SSIM window in pixels, odd (default: %(default)s)",
    )
    group.add_argument(
        "--backend",
        choices=("native", "triton", "reference"),
        help="backend that computes the loss (default: the fastest available)",
    )


def _add_training_options(group: argparse._ArgumentGroup) -> None:
    default = TrainingOptions()
    group.add_argument("--seed", type=seed, default=default.seed, help="default: %(default)s")
    group.add_argument(
        "--epochs", type=positive_int, default=default.epochs, help="default: %(default)s"
    )
    group.add_argument(
        "--batch-size",
        type=positive_int,
        default=default.batch_size,
        help="images per step, over all processes together; an incomplete last batch of an epoch "
        "is dropped (default: %(default)s)",
    )
    group.add_argument(
        "--lr",
        type=positive_float,
        default=default.learning_rate,
        help="learning rate of Adam (default: %(default)s)",
    )
    group.add_argument(
        "--grad-clip",
        type=positive_float,
        metavar="NORM",
        help="maximum norm of the gradient (default: no clipping)",
    )
    group.add_argument(
        "--width",
        type=positive_int,
        default=32,
        help="width of the network (default: %(default)s)",
    )
    group.add_argument(
        "--latent",
        type=positive_int,
        default=16,
        help="channels of the network's code (default: %(default)s)",
    )
    group.add_argument("--device", help="cpu, cuda or cuda:<index> (default: cuda if available)")
    group.add_argument(
        "--amp",
        choices=tuple(AMP_TYPES),
        help="autocast to this dtype, float16 with a gradient scaler (default: no autocast)",
    )
    group.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile the network and the loss together, as one graph",
    )
    add_threads_option(group)


def _add_scoring_options(group: argparse._ArgumentGroup) -> None:
    default = Scoring()
    group.add_argument(
        "--score-metric",
        choices=("mse", "l1", "ssim"),
        default=default.metric,
        help="difference between image and reconstruction (default: %(default)s)",
    )
    group.add_argument(
        "--smooth-sigma",
        type=non_negative_float,
        default=default.smooth_sigma,
        help="standard deviation in pixels of the Gaussian that smooths the anomaly map "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--pooling",
        choices=("max", "mean", "topk"),
        default=default.pooling,
        help="how the map is reduced to the image's score (default: %(default)s)",
    )
    group.add_argument(
        "--topk",
        type=pixels,
        metavar="K",
        help="pixels that --pooling topk averages: an integer is a number of pixels, a decimal "
        "like 0.01 a fraction of the image; so 1 is one pixel and 1.0 the whole image "
        f"(default: {default.topk})",
    )


def _add_run_folder_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--out",
        type=Path,
        help="folder for checkpoints, metrics.json and report.html (default: runs/<data>)",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="resume the run in --out, which was started with the same options",
    )


def pixels(text: str) -> int | float:
    """Argument type: a number of pixels, or with a decimal point a fraction of the image."""
    return positive_int(text) if text.isdigit() else positive_float(text)


def loss_list(text: str) -> list[str]:
    """Argument type: names of losses, separated by commas."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in LOSSES:
            raise argparse.ArgumentTypeError(
                f"unknown loss {name!r}: choose from {', '.join(LOSSES)}"
            )
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} names a loss twice")
    return names


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options with defaults filled in, checked as far as possible without reading any file."""
    arguments = build_parser().parse_args(argv)
    if arguments.loss is None and arguments.compare is None:
        arguments.loss = "amplified-ssim"
    if arguments.normal_class is not None and arguments.data != "fashion-mnist":
        raise OptionError(
            f"--normal-class requires --data fashion-mnist, got --data {arguments.data}"
        )
    if arguments.topk is not None and arguments.pooling != "topk":
        raise OptionError(f"--topk requires --pooling topk, got --pooling {arguments.pooling}")
    arguments.nproc_per_node = process_count()
    if arguments.batch_size % arguments.nproc_per_node:
        raise OptionError(
            f"--batch-size must be a multiple of the {arguments.nproc_per_node} processes, "
            f"got {arguments.batch_size}"
        )
    if arguments.device is None:
        arguments.device = "cuda" if torch.cuda.is_available() else "cpu"
    check_device(arguments.device, arguments.nproc_per_node)
    arguments.out = arguments.out or Path("runs") / arguments.data
    return arguments


def check_device(name: str, count: int) -> None:
    """Raise OptionError unless each of `count` processes can use the device `name`."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise OptionError(f"--device must be cpu, cuda or cuda:<index>, got {name}")
    if device.type == "cpu":
        return
    if not torch.cuda.is_available():
        raise OptionError(f"--device {name}: PyTorch finds no CUDA device")
    if count > 1 and device.index is not None:
        raise OptionError(
            f"--device {name}: under torchrun each process uses its own device; use --device cuda"
        )
    if (device.index or 0) >= torch.cuda.device_count():
        raise OptionError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices"
        )


def run_options(arguments: argparse.Namespace) -> RunOptions:
    """The options of a run, grouped by subject."""
    scoring = Scoring()
    return RunOptions(
        losses=tuple(arguments.compare or [arguments.loss]),
        width=arguments.width,
        latent=arguments.latent,
        loss=LossSettings(
            **{field.name: getattr(arguments, field.name) for field in fields(LossSettings)}
        ),
        training=TrainingOptions(
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            learning_rate=arguments.lr,
            seed=arguments.seed,
            amp=arguments.amp,
            compile=arguments.compile,
            grad_clip=arguments.grad_clip,
        ),
        scoring=Scoring(
            metric=arguments.score_metric,
            smooth_sigma=arguments.smooth_sigma,
            pooling=arguments.pooling,
            topk=scoring.topk if arguments.topk is None else arguments.topk,
        ),
    )


def load_data(config: dict[str, Any]) -> AnomalyData:
    """The images; DataError where there are none, OptionError where they do not fill a batch."""
    data = data_sets.load_from_config(config)
    if len(data.train) < config["batch_size"]:
        raise OptionError(
            f"--batch-size must be at most the number of training images, {len(data.train)}, "
            f"got {config['batch_size']}"
        )
    return data


def run(arguments: argparse.Namespace) -> None:
    """Train, evaluate and report. Expects the arguments that `parse` returns."""
    # Where a run is stored, and whether it was resumed, does not affect its results.
    config: dict[str, Any] = {
        name: value for name, value in vars(arguments).items() if name not in ("out", "resume")
    }
    folder: Path = arguments.out
    metrics = metrics_to_resume(folder, config, arguments.resume)
    set_threads(arguments)
    torch.backends.cudnn.deterministic = True  # a resumed run must end with the same numbers
    data = load_data(config)
    with processes(torch.device(arguments.device)) as team:
        try:
            options = run_options(arguments)
            rehearse(data, options, team.device)
        except ValueError as error:  # raised by lamp_kernels; names the argument and its value
            raise OptionError(str(error)) from error
        metrics = begin(folder, metrics, config, data, options, team)
        if team.first and set(options.losses) <= set(metrics["arms"]):
            print(
                f"{PROGRAM}: the run in {folder}, started {metrics['environment']['date']}, is "
                "already finished: nothing to train; choose another --out to train again",
                file=sys.stderr,
            )
        train_losses(folder, metrics, data, options, team)
        if team.first:
            write_report(folder)
            print(results_table(metrics))
            print(f"\nreport: {folder / 'report.html'}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Exit code: 0 success, 1 training failed, 2 bad options or data, 130 interrupted.
    """
    try:
        run(parse(argv))
    except (OptionError, RunError, DataError, CheckpointError) as error:
        complain(PROGRAM, error)
        return 2
    except TrainingError as error:
        complain(PROGRAM, error)
        return 1
    except KeyboardInterrupt:
        complain(PROGRAM, "stopped; repeat the command with --resume to continue this run")
        return 130
    return 0
