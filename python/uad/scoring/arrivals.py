"""Files that arrive in a folder, each as soon as it is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from uad.detector import NamedFile

Stamp = tuple[int, int]
"""Size and modification time of a file."""


class Arrivals:
    """Finds new files by polling.

    A file counts as complete if its size and modification time are the same as in the previous
    poll. Each name is reported once; after `failed`, again when the file has changed.
    """

    def __init__(self, find: Callable[[], Iterable[NamedFile]], done: Iterable[str] = ()) -> None:
        """find: lists all files. done: names not to report."""
        self.find = find
        self.done: dict[str, Stamp | None] = dict.fromkeys(done)
        self.before: dict[str, Stamp] = {}

    def poll(self) -> list[NamedFile]:
        """The files that have been completed since the last call."""
        now: dict[str, Stamp] = {}
        ready = []
        for path, name in self.find():
            if name in self.done and self.done[name] is None:
                continue
            stamp = _stamp(path)
            if stamp is None:
                continue
            now[name] = stamp
            if self.before.get(name) == stamp and self.done.get(name) != stamp:
                ready.append((path, name))
        self.before = now
        self.done |= dict.fromkeys((name for _, name in ready), None)
        return ready

    def failed(self, name: str) -> None:
        """Report this file again if it changes: its writer may have paused."""
        self.done[name] = self.before[name]


def _stamp(path: Path) -> Stamp | None:
    """None for a file that has been removed."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
