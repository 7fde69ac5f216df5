"""Atomic files: after a crash a file has either its old content or its new, never a part of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch


class CheckpointError(Exception):
    """An unreadable checkpoint. The message names the file and says what to do."""


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that is renamed to `path` when the block ends without an exception."""
    # In the same folder, because a rename is atomic only within a file system.
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers, strings and containers of them, atomically."""
    with atomic_write(path) as file:
        torch.save(state, file)


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """What `save` wrote, with its tensors on `device`; CheckpointError if it cannot be read.

    Never runs code from the file.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # damaged bytes can raise almost any exception
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({type(error).__name__}); delete it and use "
            "--resume to train this loss from the beginning"
        ) from error
    return state
