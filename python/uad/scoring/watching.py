"""Scoring the images that arrive in a folder, until stopped."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import NoReturn

from uad.data.base import DataError
from uad.detector import NamedFile
from uad.scoring.arrivals import Arrivals
from uad.scoring.folder import earlier_rows, prepare_out
from uad.scoring.judge import TABLE, Judge, full_scale
from uad.scoring.run import Run, choose_limit, find, normal_files
from uad.scoring.table import ERROR, Row, Table
from uad.wording import counted

REPORT_SECONDS = 10.0
"""Minimum time between two reports while images arrive."""


def watch(run: Run) -> int:
    """Score the images in a folder as they arrive, until interrupted; returns the exit code.

    Continues the table in --out. Runs in one process.
    """
    options = run.options
    run.rows = [] if options.overwrite else earlier_rows(options.out)
    done = {row.file for row in run.rows}
    before = f"; {counted(len(done), 'image')} scored before" if done else ""
    run.introduce(f"watching {options.source}{before}")
    choose_limit(run, normal_files(run), None)
    prepare_out(options.out, options.overwrite)
    judge = Judge(run.detector, run.limit, full_scale(run.limit, run.detector, ()), options.out)
    scale_known = run.limit is not None
    arrivals, reports = Arrivals(lambda: _present(run), done), _Reports(run)
    with closing(Table(options.out / TABLE)) as table, _stop_on_sigterm():
        try:
            for batch in _arriving(arrivals, options.batch_size, options.poll):
                if batch and not scale_known:
                    judge = replace(judge, full=full_scale(None, run.detector, batch))
                    scale_known = True
                for row in judge.judge(batch):
                    table.append([row])
                    run.rows.append(row)
                    run.say(describe_row(row))
                    if row.decision == ERROR:
                        arrivals.failed(row.file)
                reports.update(judge)
        except KeyboardInterrupt:
            return run.finish(judge)
    raise AssertionError("only an interruption ends the loop")


def describe_row(row: Row) -> str:
    """One line about an image."""
    if row.score is None:
        return f"{row.file}: {row.decision}: {row.reason}"
    return f"{row.file}: {row.score:.4g} {row.decision}".rstrip()


def _arriving(arrivals: Arrivals, size: int, poll: float) -> Iterator[Sequence[NamedFile]]:
    """Batches of new files without end; an empty one whenever there is nothing to do."""
    while True:
        files = arrivals.poll()
        for start in range(0, len(files), size):
            yield files[start : start + size]
        yield ()
        time.sleep(poll)


def _present(run: Run) -> list[NamedFile]:
    """The images in the watched folder; none if it is empty, or away for now."""
    try:
        return find(run, run.options.places)[0]
    except (DataError, OSError):
        return []


class _Reports:
    """Writes the report again while images arrive, but not for each of them."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.rows = len(run.rows)
        self.last = -REPORT_SECONDS

    def update(self, judge: Judge) -> None:
        """Write the report if there are new rows and the last one is old enough."""
        now = time.monotonic()
        if len(self.run.rows) > self.rows and now - self.last >= REPORT_SECONDS:
            self.run.write_report(judge)
            self.rows, self.last = len(self.run.rows), now


@contextmanager
def _stop_on_sigterm() -> Iterator[None]:
    """Treat SIGTERM, with which a service manager stops a program, like Ctrl-C."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
