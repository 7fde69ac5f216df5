"""Files that arrive in a folder, each as soon as it is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from uad.detector import NamedFile
from uad.scoring.stamp import Stamp, stamp_of


class Arrivals:
    """Finds new and changed files by polling.

    A file counts as complete if its size and modification time are the same as in the previous
    poll. Each content is reported once: a file that is written again, or replaced by another of
    the same name, is a new file. Cameras reuse names, and a writer may have paused.
    """

    def __init__(
        self, find: Callable[[], Iterable[NamedFile]], done: Mapping[str, Stamp] | None = None
    ) -> None:
        """find: lists all files. done: what not to report, by name."""
        self.find = find
        self.done = dict(done or {})
        self.before: dict[str, Stamp] = {}

    def poll(self) -> list[NamedFile]:
        """The files that have been completed since the last call."""
        now: dict[str, Stamp] = {}
        ready = []
        for path, name in self.find():
            stamp = stamp_of(path)
            if stamp is None or self.done.get(name) == stamp:
                continue
            if self.before.get(name) == stamp:
                ready.append((path, name))
                self.done[name] = stamp
            else:
                now[name] = stamp
        self.before = now
        return ready
