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
from uad.overlay import full_scale
from uad.scoring.arrivals import Arrivals
from uad.scoring.folder import check_same, earlier_rows, prepare_out
from uad.scoring.judge import TABLE, Judge, color_scale
from uad.scoring.run import Run, choose_limit, find, normal_files
from uad.scoring.stamp import Stamp
from uad.scoring.state import State
from uad.scoring.table import ERROR, Row, Table, latest
from uad.wording import counted, float32_text

REPORT_SECONDS = 10.0
"""Minimum time between two reports while images arrive."""


def watch(run: Run) -> int:
    """Score the images in a folder as they arrive, until interrupted; returns the exit code.

    Continues the table in --out. Runs in one process.
    """
    options = run.options
    run.rows = [] if options.overwrite else earlier_rows(options.out)
    names = {row.file for row in run.rows}
    before = f"; {counted(len(names), 'image')} scored before" if names else ""
    run.introduce(f"watching {options.source}{before}")
    choose_limit(run, normal_files(run), None)
    limit = None if run.limit is None else run.limit.value
    state = State(run.detector.sha256, limit, None if limit is None else full_scale(limit))
    if not options.overwrite:
        state = check_same(options.out, state)
    prepare_out(options.out, options.overwrite, state)
    judge = Judge(run.detector, run.limit, state.full_scale or 1.0, options.out)
    arrivals, reports = Arrivals(lambda: _present(run), finished(run.rows)), _Reports(run)
    with closing(Table(options.out / TABLE)) as table, _stop_on_sigterm():
        try:
            for batch in _arriving(arrivals, options.batch_size, options.poll):
                if batch and state.full_scale is None:
                    judge = replace(judge, full=color_scale(None, run.detector, batch))
                    state = replace(state, full_scale=judge.full)
                    state.write(options.out)
                for row in judge.judge(batch):
                    table.append([row])
                    run.rows.append(row)
                    run.say(describe_row(row))
                reports.update(judge)
        except KeyboardInterrupt:
            return run.finish(judge)
    raise AssertionError("only an interruption ends the loop")


def finished(rows: Sequence[Row]) -> dict[str, Stamp]:
    """What need not be scored again after a restart; a file that had an error is tried again."""
    return {
        row.file: row.stamp
        for row in latest(rows)
        if row.decision != ERROR and row.stamp is not None
    }


def describe_row(row: Row) -> str:
    """One line about an image."""
    if row.score is None:
        return f"{row.file}: {row.decision}: {row.reason}"
    return f"{row.file}: {float32_text(row.score)} {row.decision}".rstrip()


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
