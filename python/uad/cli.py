"""The command line of the training program."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from uad import data as data_sets
from uad.checkpoint import CheckpointError
from uad.data import AnomalyData, DataError
from uad.distributed import process_count, process_rank, processes
from uad.evaluation import Scoring
from uad.losses import LOSSES, LossOptions
from uad.report import write_report
from uad.run import RunError, RunOptions, begin, read_metrics, rehearse, train_losses
from uad.table import results_table
from uad.training import AMP_TYPES, TrainingError, TrainingOptions

PROGRAM = "train.py"

DESCRIPTION = """
Train reconstruction networks on normal images only and find the anomalies in test images by how
badly they are reconstructed. Scores are computed alike whatever the training loss, and the
network of the last epoch counts.
"""

EXAMPLES = f"""
examples:
  python python/{PROGRAM} --data textures --compare mse,amplified-mse
  python python/{PROGRAM} --data folder --root mvtec --category bottle cable --size 128
  torchrun --nproc-per-node=2 python/{PROGRAM} --data fashion-mnist --loss amplified-ssim
"""


class OptionError(Exception):
    """Options that do not go together. The message names them."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are exceptions."""

    def error(self, message: str) -> NoReturn:
        """Raise OptionError in place of usage and exit."""
        raise OptionError(f"{message} (see --help)")


def build_parser() -> argparse.ArgumentParser:
    """All options, their defaults and help texts."""
    training, loss, scoring = TrainingOptions(), LossOptions(), Scoring()
    parser = Parser(
        prog=PROGRAM,
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )

    group = parser.add_argument_group("data")
    group.add_argument(
        "--data", choices=data_sets.NAMES, default="textures", help="data set (default: textures)"
    )
    group.add_argument(
        "--root",
        help="folder of the files: needed by folder, whose layout is that of MVTec AD "
        "([<category>/]train/good, test/good, test/<defect>, ground_truth/<defect>); "
        "possible for fashion-mnist",
    )
    group.add_argument(
        "--category",
        nargs="+",
        metavar="NAME",
        help="categories of textures or folder, pooled "
        "(default: all textures; the root itself is the category)",
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
        help="side of the square images in pixels; those of folder are stretched to it "
        "(default: textures 64, fashion-mnist 28, folder 256)",
    )
    group.add_argument(
        "--channels", type=int, choices=(1, 3), help="grey or colour (default: as the images are)"
    )

    group = parser.add_argument_group("loss")
    losses = group.add_mutually_exclusive_group()
    losses.add_argument("--loss", choices=LOSSES, help="training loss (default: amplified-ssim)")
    losses.add_argument(
        "--compare",
        type=loss_list,
        metavar="A,B,...",
        help="several losses, trained from the same initial weights on the same batches in the "
        f"same order; of {', '.join(LOSSES)}",
    )
    group.add_argument(
        "--amplify-over",
        choices=("element", "image", "batch"),
        default=loss.amplify_over,
        help="amplify each element, the mean of each image, or the mean of the batch, which under "
        "torchrun is the local one, of one process (default: %(default)s)",
    )
    group.add_argument(
        "--eps",
        type=float,
        default=loss.eps,
        help="1/eps is the greatest slope of the amplification (default: %(default)s)",
    )
    group.add_argument(
        "--padding",
        choices=("reflect", "valid", "zeros"),
        default=loss.padding,
        help="border rule of SSIM (default: %(default)s)",
    )
    group.add_argument(
        "--window-size",
        type=positive_int,
        default=loss.window_size,
        help="side of the window of SSIM in pixels, odd (default: %(default)s)",
    )
    group.add_argument(
        "--backend",
        choices=("native", "triton", "reference"),
        help="what computes the loss (default: the fastest that is there)",
    )

    group = parser.add_argument_group("training")
    group.add_argument("--seed", type=seed, default=training.seed, help="default: %(default)s")
    group.add_argument(
        "--epochs", type=positive_int, default=training.epochs, help="default: %(default)s"
    )
    group.add_argument(
        "--batch-size",
        type=positive_int,
        default=training.batch_size,
        help="images in a step, over all processes together; the last ones of an epoch that do "
        "not fill a batch are dropped (default: %(default)s)",
    )
    group.add_argument(
        "--lr",
        type=positive_float,
        default=training.learning_rate,
        help="learning rate of Adam (default: %(default)s)",
    )
    group.add_argument(
        "--grad-clip",
        type=positive_float,
        metavar="NORM",
        help="greatest norm of the gradient (default: not clipped)",
    )
    group.add_argument(
        "--width", type=positive_int, default=32, help="of the network (default: %(default)s)"
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
        help="autocast to this type; float16 with a gradient scaler (default: float32 throughout)",
    )
    group.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile the network and the loss together, as one graph",
    )
    group.add_argument(
        "--threads", type=positive_int, help="threads on the CPU (default: PyTorch's choice)"
    )

    group = parser.add_argument_group("anomaly scores, the same for every loss")
    group.add_argument(
        "--score-metric",
        choices=("mse", "l1", "ssim"),
        default=scoring.metric,
        help="difference between image and reconstruction (default: %(default)s)",
    )
    group.add_argument(
        "--smooth-sigma",
        type=non_negative_float,
        default=scoring.smooth_sigma,
        help="of the Gaussian that smooths the anomaly map, in pixels (default: %(default)s)",
    )
    group.add_argument(
        "--pooling",
        choices=("max", "mean", "topk"),
        default=scoring.pooling,
        help="from the map to the score of the image (default: %(default)s)",
    )
    group.add_argument(
        "--topk",
        type=pixels,
        metavar="K",
        help="how many pixels --pooling topk takes: their number as an integer, or their share "
        f"of the image, like 0.01 (default: {scoring.topk})",
    )

    group = parser.add_argument_group("run folder")
    group.add_argument(
        "--out",
        type=Path,
        help="folder for checkpoints, metrics.json and report.html (default: runs/<data>)",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in --out, begun with the same options, where it was stopped",
    )
    return parser


def positive_int(text: str) -> int:
    """Type of an option."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text!r}")
    return int(text)


def seed(text: str) -> int:
    """Type of an option."""
    if not text.isascii() or not text.isdigit() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"must be an integer from 0 to 2**32 - 1, got {text!r}")
    return int(text)


def positive_float(text: str) -> float:
    """Type of an option."""
    value = non_negative_float(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"must be positive, got {text!r}")
    return value


def non_negative_float(text: str) -> float:
    """Type of an option."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a finite number, 0 or more, got {text!r}")
    return value


def pixels(text: str) -> int | float:
    """Type of an option: an integer number, or a share with a decimal point."""
    return positive_int(text) if text.isdigit() else positive_float(text)


def loss_list(text: str) -> list[str]:
    """Type of an option: names of losses, separated by commas."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in LOSSES:
            raise argparse.ArgumentTypeError(
                f"{name!r} is no loss: choose from {', '.join(LOSSES)}"
            )
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} names a loss twice")
    return names


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options, completed and checked as far as they can be without reading anything."""
    arguments = build_parser().parse_args(argv)
    if arguments.loss is None and arguments.compare is None:
        arguments.loss = "amplified-ssim"
    if arguments.normal_class is not None and arguments.data != "fashion-mnist":
        raise OptionError(f"--normal-class is of fashion-mnist, not of --data {arguments.data}")
    if arguments.topk is not None and arguments.pooling != "topk":
        raise OptionError(f"--topk has no meaning with --pooling {arguments.pooling}")
    arguments.nproc_per_node = process_count()
    if arguments.batch_size % arguments.nproc_per_node:
        raise OptionError(
            f"--batch-size {arguments.batch_size} does not divide "
            f"by the {arguments.nproc_per_node} processes"
        )
    if arguments.device is None:
        arguments.device = "cuda" if torch.cuda.is_available() else "cpu"
    check_device(arguments.device, arguments.nproc_per_node)
    arguments.out = arguments.out or Path("runs") / arguments.data
    return arguments


def check_device(name: str, count: int) -> None:
    """OptionError unless each of `count` processes can have the device."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError(f"--device {name}: cpu, cuda or cuda:<index> is possible") from error
    if device.type not in ("cpu", "cuda"):
        raise OptionError(f"--device {name}: cpu, cuda or cuda:<index> is possible")
    if device.type == "cpu":
        return
    if not torch.cuda.is_available():
        raise OptionError(f"--device {name}: this PyTorch finds no CUDA device")
    if count > 1 and device.index is not None:
        raise OptionError(f"--device {name}: under torchrun each process takes its own, say cuda")
    if (device.index or 0) >= torch.cuda.device_count():
        raise OptionError(f"--device {name}: there are {torch.cuda.device_count()} CUDA devices")


def run_options(arguments: argparse.Namespace) -> RunOptions:
    """The options of a run, by subject."""
    scoring = Scoring()
    return RunOptions(
        losses=tuple(arguments.compare or [arguments.loss]),
        width=arguments.width,
        latent=arguments.latent,
        loss=LossOptions(
            amplify_over=arguments.amplify_over,
            eps=arguments.eps,
            padding=arguments.padding,
            window_size=arguments.window_size,
            backend=arguments.backend,
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


def load_data(arguments: argparse.Namespace) -> AnomalyData:
    """The images; DataError or OptionError where there are none or too few."""
    data = data_sets.load(
        arguments.data,
        root=None if arguments.root is None else Path(arguments.root),
        category=arguments.category,
        size=arguments.size,
        channels=arguments.channels,
        seed=arguments.seed,
        normal_class=arguments.normal_class or 0,
    )
    if len(data.train) < arguments.batch_size:
        raise OptionError(
            f"--batch-size {arguments.batch_size} is more than "
            f"the {len(data.train)} training images"
        )
    return data


def run(arguments: argparse.Namespace) -> None:
    """Train, evaluate, report. Arguments as `parse` returns them."""
    # where a run lies and how it came to its end are not what defines it
    config: dict[str, Any] = {
        name: value for name, value in vars(arguments).items() if name not in ("out", "resume")
    }
    folder: Path = arguments.out
    metrics = read_metrics(folder, config, arguments.resume)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.deterministic = True  # a resumed run ends with the same numbers
    data = load_data(arguments)
    with processes(torch.device(arguments.device)) as team:
        try:
            options = run_options(arguments)
            rehearse(data, options, team.device)
        except ValueError as error:  # of the library: it names argument and value
            raise OptionError(str(error)) from error
        metrics = begin(folder, metrics, config, data, options, team)
        if team.first and set(options.losses) <= set(metrics["arms"]):
            print(
                f"{PROGRAM}: {folder} holds this run, begun {metrics['environment']['date']} and "
                "finished: nothing to train; choose another --out to train again",
                file=sys.stderr,
            )
        train_losses(folder, metrics, data, options, team)
        if team.first:
            write_report(folder)
            print(results_table(metrics))
            print(f"\nreport: {folder / 'report.html'}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program. 0: done, 1: training failed, 2: bad options or data, 130: interrupted."""
    try:
        run(parse(argv))
    except (OptionError, RunError, DataError, CheckpointError) as error:
        complain(error)
        return 2
    except TrainingError as error:
        complain(error)
        return 1
    except KeyboardInterrupt:
        complain("stopped; the same options with --resume continue this run")
        return 130
    return 0


def complain(error: object) -> None:
    """One line to the error stream, which under torchrun says whose it is."""
    rank = process_rank()
    process = f" (process {rank})" if rank else ""
    print(f"{PROGRAM}{process}: error: {error}", file=sys.stderr)
