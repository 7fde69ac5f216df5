"""The options of a run to resume: those in its metrics.json, checked like a command line's."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uad.cli.arguments import OptionError
from uad.distributed import process_count
from uad.run_folder import RunFolderError

EPOCHS, ROOT = "epochs", "root"
"""The only options that a resumed run may change: images may have moved, if they are the same."""


def resumed_options(
    parser: argparse.ArgumentParser,
    stored: Mapping[str, Any],
    given: Mapping[str, Any],
    path: Path,
) -> dict[str, Any]:
    """The stored options, with the number of epochs and the root that were given, if any.

    stored: "config" of the metrics.json at `path`. RunFolderError if one of them is invalid,
    OptionError if a given one differs, except for more epochs and for the root.
    """
    options = read_back(parser, stored, path)
    count = stored.get("nproc_per_node", 1)
    if count != process_count():
        raise OptionError(
            f"--resume: the run was started with --nproc-per-node {count}, not {process_count()}"
        )
    for name, value in given.items():
        raised = name == EPOCHS and value > options[name]
        if raised or name == ROOT:
            options[name] = value
        elif name in options and value != options[name]:
            raise OptionError(f"--resume: the run was started {difference(name, options, value)}")
    return options


def read_back(
    parser: argparse.ArgumentParser, stored: Mapping[str, Any], path: Path
) -> dict[str, Any]:
    """The stored options as the parser reads them, with defaults for options that are newer."""
    if "help" in stored:  # would print the help and end the program
        raise RunFolderError(f"{path}: config: no such option: --help")
    words = [word for name, value in stored.items() for word in command_line(name, value)]
    try:
        options = vars(parser.parse_args(words))
    except OptionError as error:
        raise RunFolderError(f"{path}: config: {error}") from error
    return {name: value for name, value in options.items() if name not in ("out", "resume")}


def command_line(name: str, value: Any) -> list[str]:
    """The words that give this option on a command line."""
    option = flag(name)
    if value is None or value is False or name == "nproc_per_node":  # that one is torchrun's
        return []
    if value is True:
        return [option]
    if isinstance(value, list) and name != "compare":
        return [option, *map(str, value)]
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return [f"{option}={text}"]  # in one word, because a value may begin with a dash


def difference(name: str, options: Mapping[str, Any], value: Any) -> str:
    """How a stored option differs from the given value."""
    before = options[name]
    if name == EPOCHS:
        return f"with --epochs {before}, which can only be raised, not lowered to {value}"
    if before is None or before is False:
        return f"without {flag(name)}, not with {shown(name, value)}"
    return f"with {shown(name, before)}, not {shown(name, value).removeprefix(flag(name)).strip()}"


def shown(name: str, value: Any) -> str:
    """An option as it would be typed."""
    return " ".join(command_line(name, value)).replace("=", " ", 1)


def flag(name: str) -> str:
    """The option's name on the command line."""
    return "--" + name.replace("_", "-")
