"""The progress of a command: one bar on a terminal, now and then a line in a log file."""

from __future__ import annotations

import os
import sys
from threading import RLock
from time import monotonic
from types import TracebackType

from tqdm import tqdm

LOG_SECONDS = 2.0
"""Minimum time between two lines of a log, so that short epochs do not fill it."""

DEFAULT_SIZE = {"ncols": 80, "nrows": 24}
"""Size of a terminal that does not tell its size, as in some containers."""

# The default lock also works between processes, by a semaphore that a killed process leaves behind.
tqdm.set_lock(RLock())


class Progress:
    """One bar for a whole command, with the time left.

    with Progress(total=losses * epochs * steps, unit="step") as progress:
        progress.skip(count)                    # work that an earlier command has done
        progress.advance()                      # one unit is done
        progress.report("mse: epoch 2/30, loss 0.0123")
        progress.report("mse: epoch 30/30, loss 0.0042", keep=True)
        progress.write("a warning")

    On a terminal, `report` sets the text in front of the bar. Elsewhere it prints a line, but at
    most one every `LOG_SECONDS`. With `keep` it always prints the line, above the bar if any.
    """

    def __init__(self, total: int, unit: str = "step", shown: bool = True) -> None:
        """shown: False prints nothing at all, for all processes but the first."""
        self.shown = shown
        self.last_line = -LOG_SECONDS
        self.bar = tqdm(
            total=total,
            unit=unit,
            smoothing=0.1,  # some losses take longer than others
            disable=None if shown else True,  # None disables the bar without a terminal
            **({"dynamic_ncols": True} if size_is_known() else DEFAULT_SIZE),
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def skip(self, count: int) -> None:
        """Count work that is already done, without counting it as fast."""
        if not self.bar.disable:
            self.bar.initial += count
            self.bar.n += count
            self.bar.refresh()

    def advance(self, count: int = 1) -> None:
        """Count work that was done just now."""
        self.bar.update(count)

    def report(self, text: str, keep: bool = False) -> None:
        """Say where the command is. keep: the line is to stay, at the end of a loss for example."""
        if not self.bar.disable:
            self.bar.set_description_str(text)
        if keep or (self.bar.disable and monotonic() - self.last_line >= LOG_SECONDS):
            self.write(text)
            self.last_line = monotonic()

    def write(self, line: str) -> None:
        """Print a line on stderr, above the bar if there is one."""
        if self.shown:
            self.bar.write(line, file=sys.stderr)

    def close(self) -> None:
        """Remove the bar; the lines that `write` printed stay."""
        self.bar.leave = False
        self.bar.close()


def size_is_known() -> bool:
    """False for a terminal that does not tell its size."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):  # not a terminal
        return True


def silent() -> Progress:
    """A progress that prints nothing."""
    return Progress(0, shown=False)
