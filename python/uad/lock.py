"""Only one process at a time may write to a folder, or to a file."""

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
    """A folder or file that another process writes to. The message names that process."""


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Make this process the only writer of `folder` within the block.

    Creates the folder; removes it again if nothing was written to it. The operating system
    releases the lock of a process that dies, so no lock is ever stale. LockError if another
    process holds the lock, OSError if the folder cannot be created or written.
    """
    lock = _acquire(folder, folder / LOCK, folder / OWNER)
    try:
        _introduce(folder / OWNER)
        yield
    finally:
        (folder / OWNER).unlink(missing_ok=True)
        if is_unused(folder):
            (folder / LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # someone else may have put a file there just now
                folder.rmdir()
        lock.release()


@contextmanager
def only_writer_of(path: Path) -> Iterator[None]:
    """Make this process the only writer of the file `path` within the block.

    For processes that write different files in the same folder, which is created. The file itself
    is not opened, and nothing is left next to it. LockError if another process holds the lock,
    WriteError if the folder cannot be created or written.
    """
    file, owner_file = (path.with_name(f".{path.name}{end}") for end in (LOCK, OWNER))
    lock = _acquire(path, file, owner_file)
    try:
        _introduce(owner_file)
        yield
    finally:
        owner_file.unlink(missing_ok=True)
        with suppress(OSError):  # Windows does not remove an open file
            file.unlink(missing_ok=True)
        lock.release()


def _acquire(what: Path, file: Path, owner_file: Path) -> FileLock:
    """Lock `what` by locking `file`; if another process did, `owner_file` says which one."""
    lock = FileLock(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise LockError(f"{what} is in use by {_owner(owner_file)}") from None
    except OSError as error:
        reason = error.strerror or error
        raise WriteError(f"{what} cannot be written: {reason}") from error
    return lock


def _introduce(owner_file: Path) -> None:
    """Write down that this process holds the lock."""
    with atomic_write(owner_file) as file:
        file.write(json.dumps(this_process()).encode())


def this_process() -> dict[str, str | int]:
    """What a second process is told about this one."""
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"process": os.getpid(), "host": socket.gethostname(), "started": started}


def owner(folder: Path) -> str:
    """The process that holds the lock of a folder, in words."""
    return _owner(folder / OWNER)


def _owner(owner_file: Path) -> str:
    try:
        found = json.loads(owner_file.read_text(encoding="utf-8"))
        return f"process {found['process']} on {found['host']}, started {found['started']}"
    except (OSError, ValueError, TypeError, KeyError):  # it has only just got the lock
        return "another process"


def is_unused(folder: Path) -> bool:
    """Whether a folder holds nothing, apart from what a process leaves that is killed early."""
    return all(path.name in (LOCK, OWNER) or path.suffix == ".tmp" for path in folder.iterdir())
