"""The command line of the export program."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from uad.cli.arguments import OptionError, OptionParser, complain, say
from uad.detector import DetectorError, find_checkpoint, load_detector
from uad.exporting import SUFFIXES, ExportError, export, metadata, missing_packages
from uad.run_folder import CHECKPOINT

PROGRAM = "export.py"


def build_parser() -> argparse.ArgumentParser:
    """All options with their help texts."""
    parser = OptionParser(
        prog=PROGRAM,
        description="Export a network trained by train.py, with its anomaly map and score, to one "
        "file. Its input is images, float32 (N, C, S, S) in [0, 1]; its outputs are map (N, S, S) "
        "and score (N,). The file is checked against PyTorch before it is written.",
    )
    parser.add_argument("run", type=Path, help=f"run folder, or {CHECKPOINT}")
    parser.add_argument("--loss", help="which network of a run folder (default: the only one)")
    parser.add_argument(
        "--format",
        choices=tuple(SUFFIXES),
        required=True,
        help="onnx requires the packages onnx and onnxscript, and is checked with onnxruntime if "
        "that is installed; torch writes a .pt2 for torch.export.load, which needs PyTorch alone",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="the file, .onnx or .pt2 (default: network.* beside the checkpoint)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it exists")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Export the network and print what was checked."""
    check_packages(arguments.format)
    checkpoint = checkpoint_of(arguments)
    out: Path = arguments.out or checkpoint.with_name(f"network{SUFFIXES[arguments.format]}")
    check_out(out, arguments.format, arguments.overwrite)
    detector = load_detector(checkpoint)
    check = export(detector, arguments.format, out, checkpoint.resolve().parent.parent)
    print(f"{checkpoint}: loss {detector.loss}, trained on {detector.data}")
    print(f"checked with {check.runtime} on {check.images}")
    print(f"greatest difference from PyTorch: {check.difference:.2g} of the greatest value")
    described = ", ".join(
        f"{key} {value}" for key, value in metadata(detector).items() if value is not None
    )
    if detector.threshold() is None:
        say(PROGRAM, "WARNING: the file has no threshold, because training has not finished")
    print(f"{out}: {out.stat().st_size:,} bytes; {described}")


def check_packages(kind: str) -> None:
    """OptionError if a package is missing, with what to install."""
    missing = missing_packages(kind)
    if missing:
        raise OptionError(
            f"--format {kind} requires {' and '.join(missing)}: run pip install {' '.join(missing)}"
        )


def check_out(out: Path, kind: str, overwrite: bool) -> None:
    """OptionError unless the file can be written."""
    suffix = SUFFIXES[kind]
    if out.suffix != suffix:
        raise OptionError(f"--out must end in {suffix} for --format {kind}, got {out}")
    if not out.parent.is_dir():
        raise OptionError(f"--out {out}: no such folder: {out.parent}")
    if out.exists() and not overwrite:
        raise OptionError(f"--out {out} exists: choose another name, or add --overwrite")


def checkpoint_of(arguments: argparse.Namespace) -> Path:
    """The checkpoint that the options mean."""
    if arguments.loss is None:
        return find_checkpoint(arguments.run)
    if not arguments.run.is_dir():
        raise OptionError(f"--loss requires a run folder, got {arguments.run}")
    return find_checkpoint(arguments.run / arguments.loss / CHECKPOINT)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Exit code: 0 success, 1 the exported file differs from PyTorch or cannot be made, 2 bad options
    or files, 130 interrupted.
    """
    try:
        run(build_parser().parse_args(argv))
    except (OptionError, DetectorError, OSError) as error:
        complain(PROGRAM, error)
        return 2
    except ExportError as error:
        complain(PROGRAM, error)
        return 1
    except KeyboardInterrupt:
        complain(PROGRAM, "stopped; nothing was written")
        return 130
    return 0
