"""Files that are whole at any moment: a crash leaves the old content or the new, never a part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch


class CheckpointError(Exception):
    """A checkpoint that cannot be read. The message names the file and says what to do."""


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the name `path` when the block ends without an exception."""
    temporary = path.with_name(path.name + ".tmp")  # the same folder: a rename within one disk
    with temporary.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers, strings and containers of them."""
    with atomic_write(path) as file:
        torch.save(state, file)


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """What `save` wrote, its tensors on `device`. Runs no code from the file."""
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a damaged file raises whatever its bytes happen to hit
        raise CheckpointError(
            f"{path}: not a checkpoint that can be read ({type(error).__name__}); delete it, "
            "and --resume trains this loss from the beginning"
        ) from error
    return state
