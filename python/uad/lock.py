"""Only one process at a time may write to a folder."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock, Timeout

from uad.checkpoint import WriteError, atomic_write

LOCK, OWNER = ".lock", ".owner.json"
"""The locked file, and a file that says who locked it. People may read the second one."""


class LockError(Exception):
    """A folder that another process writes to. The message names that process."""


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Make this process the only writer of `folder` within the block.

    Creates the folder; removes it again if nothing was written to it. The operating system
    releases the lock of a process that dies, so no lock is ever stale. LockError if another
    process holds the lock, OSError if the folder cannot be created or written.
    """
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise LockError(f"{folder} is in use by {owner(folder)}") from None
    except OSError as error:
        reason = error.strerror or error
        raise WriteError(f"{folder} cannot be written: {reason}") from error
    try:
        with atomic_write(folder / OWNER) as file:
            file.write(json.dumps(this_process()).encode())
        yield
    finally:
        (folder / OWNER).unlink(missing_ok=True)
        if is_unused(folder):
            (folder / LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # someone else may have put a file there just now
                folder.rmdir()
        lock.release()


def this_process() -> dict[str, str | int]:
    """What a second process is told about this one."""
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"process": os.getpid(), "host": socket.gethostname(), "started": started}


def owner(folder: Path) -> str:
    """The process that holds the lock, in words."""
    try:
        found = json.loads((folder / OWNER).read_text(encoding="utf-8"))
        return f"process {found['process']} on {found['host']}, started {found['started']}"
    except (OSError, ValueError, TypeError, KeyError):  # it has only just locked the folder
        return "another process"


def is_unused(folder: Path) -> bool:
    """Whether a folder holds nothing, apart from what a process leaves that is killed early."""
    return all(path.name in (LOCK, OWNER) or path.suffix == ".tmp" for path in folder.iterdir())
