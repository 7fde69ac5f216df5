"""Which content of a file was scored: its size and modification time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

LAST = 2**63 - 1
"""Nanoseconds that a datetime64 can hold, until the year 2262."""


@dataclass(frozen=True)
class Stamp:
    """Changes when a file is written again, or replaced by another one of the same name."""

    size: int
    """In bytes."""
    modified: int
    """In nanoseconds since 1970."""

    @property
    def time(self) -> str:
        """The modification time in UTC, like 2026-02-28T13:45:10.123456789."""
        return str(np.datetime64(self.modified, "ns"))

    @staticmethod
    def read(size: str, time: str) -> Stamp:
        """The stamp with this size and `time`; ValueError if they are something else."""
        return Stamp(int(size), int(np.datetime64(time, "ns").astype(np.int64)))


def stamp_of(path: Path) -> Stamp | None:
    """None for a file that is not there, or no longer."""
    try:
        status = path.stat()
    except OSError:
        return None
    return Stamp(status.st_size, max(-LAST, min(status.st_mtime_ns, LAST)))
