"""Atomic files: after a crash a file has either its old content or its new, never a part of it."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch


class CheckpointError(Exception):
    """An unusable checkpoint. The message names the file and says what to do."""


class WriteError(OSError):
    """A file that cannot be written, on a full disk for example. The message names it."""


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that is renamed to `path` when the block ends without an exception.

    WriteError if the file cannot be written; then whatever was at `path` is still there.
    """
    # In the same folder, because a rename is atomic only within a file system.
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise WriteError(f"{path}: cannot be written: {reason}") from error
        raise


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers, strings and containers of them, atomically."""
    # Through memory, because torch.save turns a full disk into an error that names no file.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """What `save` wrote, with its tensors on `device`; CheckpointError if it cannot be read.

    Never runs code from the file.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # damaged bytes can raise almost any exception
        raise unusable(path, f"not a readable checkpoint ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise unusable(path, "not a checkpoint of train.py")
    return state


def unusable(path: Path, reason: str) -> CheckpointError:
    """The error for a checkpoint that cannot be used, with what to do about it."""
    return CheckpointError(
        f"{path}: {reason}; delete it and use --resume to train this loss from the beginning"
    )


def in_one_line(error: Exception) -> str:
    """The message of an exception of PyTorch or Python, which may have several lines or a key."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(":")
