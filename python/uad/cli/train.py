"""The command line of the training program: read, completed and checked.

Imports none of the packages of the extra "train", so that --help works without them; what the
program does is in train_run.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from uad.cli.arguments import OptionError, complain
from uad.cli.train_options import PROGRAM, build_parser
from uad.distributed import process_count
from uad.losses import LossSettings
from uad.options import ONE_CLASS, RunOptions, Scoring, TrainingOptions


def given_options(argv: Sequence[str] | None) -> dict[str, Any]:
    """The options on the command line, by name, without the defaults of the others."""
    parser = build_parser()
    absent = object()
    # argparse fills in a default only where the namespace has no value yet.
    blank = argparse.Namespace(**dict.fromkeys(vars(parser.parse_args([])), absent))
    parsed = vars(parser.parse_args(argv, blank))
    return {name: value for name, value in parsed.items() if value is not absent}


def complete(options: Mapping[str, Any]) -> argparse.Namespace:
    """Options with the defaults of those that are missing, checked without reading any file."""
    arguments = argparse.Namespace(**{**vars(build_parser().parse_args([])), **options})
    if arguments.loss is None and arguments.compare is None:
        arguments.loss = "amplified-ssim"
    if arguments.normal_class is not None and arguments.data not in ONE_CLASS:
        raise OptionError(
            f"--normal-class requires --data {' or '.join(ONE_CLASS)}, got --data {arguments.data}"
        )
    if arguments.topk is not None and arguments.pooling != "topk":
        raise OptionError(f"--topk requires --pooling topk, got --pooling {arguments.pooling}")
    if arguments.inpaint_loss != TrainingOptions.inpaint_loss and arguments.inpaint is None:
        raise OptionError(f"--inpaint-loss {arguments.inpaint_loss} requires --inpaint")
    arguments.nproc_per_node = process_count()
    if arguments.batch_size % arguments.nproc_per_node:
        raise OptionError(
            f"--batch-size must be a multiple of the {arguments.nproc_per_node} processes, "
            f"got {arguments.batch_size}"
        )
    if arguments.device is None:
        arguments.device = "cuda" if torch.cuda.is_available() else "cpu"
    check_device(arguments.device, arguments.nproc_per_node)
    arguments.out = out_folder(options)
    return arguments


def out_folder(options: Mapping[str, Any]) -> Path:
    """The run folder."""
    out: Path | None = options.get("out")
    return out or Path("runs") / options.get("data", "textures")


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


def run_options(arguments: argparse.Namespace, batch_size: int) -> RunOptions:
    """The options of a run, grouped by subject. batch_size: the effective one."""
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
            batch_size=batch_size,
            learning_rate=arguments.lr,
            seed=arguments.seed,
            amp=arguments.amp,
            compile=arguments.compile,
            grad_clip=arguments.grad_clip,
            inpaint=arguments.inpaint,
            inpaint_loss=arguments.inpaint_loss,
        ),
        scoring=Scoring(
            metric=arguments.score_metric,
            mean_filter=arguments.mean_filter,
            smooth_sigma=arguments.smooth_sigma,
            pooling=arguments.pooling,
            topk=scoring.topk if arguments.topk is None else arguments.topk,
        ),
        false_positive_rate=arguments.false_positive_rate,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Exit code: 0 success, 1 training failed or memory ran out, 2 bad options, files or data, 130
    interrupted.
    """
    try:
        options = given_options(argv)
    except OptionError as error:
        complain(PROGRAM, error)
        return 2
    from uad.cli.train_run import execute  # requires the extra "train"

    return execute(PROGRAM, options)
