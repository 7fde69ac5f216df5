"""Argument types, errors and messages that the command lines share."""

from __future__ import annotations

import argparse
import difflib
import math
import sys
from typing import Any

import torch

from uad.distributed import process_rank


class OptionParser(argparse.ArgumentParser):
    """A parser without abbreviations that suggests the nearest option for a misspelt one."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, **named})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in argparse, but a misspelt option is reported before any that is missing."""
        args = sys.argv[1:] if args is None else list(args)
        if self._subparsers is None:  # those parse their options themselves
            for word in args:
                name = word.partition("=")[0]
                if name.startswith("--") and name != "--" and name not in self.options:
                    self.error(f"no such option: {name}{self.suggestion(name)}")
        return super().parse_known_args(args, namespace)

    @property
    def options(self) -> list[str]:
        """All options, with their dashes."""
        return list(self._option_string_actions)

    def suggestion(self, name: str) -> str:
        """A question about the option that was perhaps meant."""
        near = difflib.get_close_matches(name, self.options, n=1)
        return f"; did you mean {near[0]}?" if near else ""


class OptionError(Exception):
    """Invalid options, or options that do not go together. The message names them."""


def positive_int(text: str) -> int:
    """Argument type: an integer of at least 1."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text!r}")
    return int(text)


def seed(text: str) -> int:
    """Argument type: an integer that every random number generator in use accepts as a seed."""
    if not text.isascii() or not text.isdigit() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"must be an integer from 0 to 2**32 - 1, got {text!r}")
    return int(text)


def positive_float(text: str) -> float:
    """Argument type: a finite number above 0."""
    value = non_negative_float(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"must be positive, got {text!r}")
    return value


def non_negative_float(text: str) -> float:
    """Argument type: a finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a finite number, 0 or more, got {text!r}")
    return value


def fraction(text: str) -> float:
    """Argument type: a number between 0 and 1, excluding both."""
    value = positive_float(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"must be below 1, got {text!r}")
    return value


def add_threads_option(parser: argparse._ActionsContainer) -> None:
    """Add the option that `set_threads` reads."""
    parser.add_argument(
        "--threads", type=positive_int, help="number of CPU threads (default: PyTorch's choice)"
    )


def set_threads(arguments: argparse.Namespace) -> None:
    """Make PyTorch use the number of CPU threads asked for, if any."""
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch, CUDA or NumPy could not allocate memory.

    For memory of the CPU, and where CUDA itself fails, PyTorch raises a more general error.
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    signs = ("DefaultCPUAllocator", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


def say(program: str, text: str) -> None:
    """Print a line on stderr; under torchrun the first process prints it, for all of them."""
    if process_rank() == 0:
        print(f"{program}: {text}", file=sys.stderr)


def complain(program: str, error: object) -> None:
    """Print an error as one line on stderr; under torchrun it names the process."""
    if isinstance(error, OSError) and error.filename is not None:
        error = f"{error.filename}: {error.strerror}"
    rank = process_rank()
    process = f" (process {rank})" if rank else ""
    print(f"{program}{process}: error: {error}", file=sys.stderr)
