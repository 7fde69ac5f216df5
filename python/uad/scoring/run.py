"""A run of the scoring program: find the images, choose the threshold, score, report."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

import torch
from tqdm import tqdm

from uad import threshold_words
from uad.checkpoint import atomic_write
from uad.data.base import DataError
from uad.data.images import image_files
from uad.detector import Detector, NamedFile
from uad.distributed import Processes
from uad.lock import LockError, only_writer
from uad.progress import Progress
from uad.scoring.folder import PROGRAM, ScoreError, check_out, prepare_out
from uad.scoring.judge import (
    REPORT,
    TABLE,
    Judge,
    color_scale,
    share,
)
from uad.scoring.page import Session, describe_detector, page, tally
from uad.scoring.state import State
from uad.scoring.table import ERROR, Row, Table, latest, printable
from uad.threshold import Threshold, choose_threshold
from uad.wording import counted

Value = TypeVar("Value")

NAMED_AT_MOST = 5
"""Files that a warning or a list of errors names."""


@dataclass(frozen=True)
class ScoreOptions:
    """What to score, and where the results go."""

    places: tuple[Path, ...]
    """Images and folders; with `watch`, one folder."""
    out: Path
    watch: bool = False
    poll: float = 1.0
    """Seconds between two looks at a watched folder."""
    normal: Path | None = None
    """Folder of normal images for the threshold; None for the scores in the checkpoint."""
    rate: float | None = None
    """False-positive rate; None for the one chosen in training."""
    overwrite: bool = False
    batch_size: int = 16

    @property
    def source(self) -> str:
        """The places in words."""
        return ", ".join(map(str, self.places))

    @property
    def normal_source(self) -> str:
        """Where the normal images behind the threshold come from."""
        return "test images of the training run" if self.normal is None else f"in {self.normal}"


@dataclass
class Run:
    """What the program has found and decided so far."""

    options: ScoreOptions
    detector: Detector
    team: Processes
    found: str = ""
    limit: Threshold | None = None
    notices: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Print a line, above the progress bar if there is one; only the first process does."""
        if self.team.first:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    def warn(self, text: str) -> None:
        """Print a warning, and keep it for the report."""
        self.notices.append(text)
        if self.team.first:
            tqdm.write(f"{PROGRAM}: WARNING: {text}", file=sys.stderr)

    def warn_about_training_images(self, rows: Sequence[Row], what: str, why: str) -> None:
        """Warn if the network was trained on some of these images."""
        names = [row.file for row in rows if row.trained_on]
        if names:
            more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
            self.warn(
                f"{len(names)} of {len(rows)} {what} are training images: {why} "
                f"({', '.join(names[:NAMED_AT_MOST])}{more})"
            )

    def name_errors(self) -> None:
        """Print a line for each image that could not be scored, or for the first few of many."""
        if not self.team.first:
            return
        errors = [row for row in self.rows if row.decision == ERROR]
        for row in errors[:NAMED_AT_MOST]:
            print(f"{PROGRAM}: error: {row.file}: {row.reason}", file=sys.stderr)
        left = len(errors) - NAMED_AT_MOST
        if left > 0:
            where = f"listed in {self.options.out / TABLE}"
            print(f"{PROGRAM}: error: {counted(left, 'more image')}, {where}", file=sys.stderr)

    def introduce(self, found: str) -> None:
        """Print what was found and how it will be scored."""
        self.found = found
        where = f"{self.team.device}, {counted(torch.get_num_threads(), 'thread')}"
        if self.team.count > 1:
            where += f", {self.team.count} processes"
        self.say(f"{found}; {where}; out {self.options.out}")
        self.say(describe_detector(self.detector))

    def write_report(self, judge: Judge, unfinished: int = 0) -> None:
        """Write report.html, with the number of images that are left after an interruption."""
        options = self.options
        session = Session(
            options.source, self.found, options.normal_source, tuple(self.notices), unfinished
        )
        with atomic_write(options.out / REPORT) as file:
            file.write(page(latest(self.rows), judge, session).encode())

    def finish(self, judge: Judge) -> int:
        """Write the report, print the last line, return the exit code."""
        rows = latest(self.rows)
        self.warn_about_training_images(
            rows, "scored images", "how they score says nothing about new images"
        )
        if self.team.first:
            self.write_report(judge)
        self.say(f"{tally(rows)}; report: {self.options.out / REPORT}")
        # One process speaks for all: torchrun prints a traceback for each that returns 1.
        return int(self.team.first and any(row.decision == ERROR for row in rows))


def start(run: Run, action: Callable[[Run], int]) -> int:
    """Run `action` as the only writer of --out; returns the exit code."""
    options = run.options

    def lock() -> None:
        check_out(options.out, options.overwrite, continues=options.watch)
        stack.enter_context(only_writer(options.out))

    with ExitStack() as stack:
        by_first(run.team, lock)
        return action(run)


def score(run: Run) -> int:
    """Score all images in the places given; returns the exit code."""
    options, team = run.options, run.team
    files, skipped = find_shared(run, options.places)
    folders = counted(len({path.parent for path, _ in files}), "folder")
    run.introduce(f"{counted(len(files), 'image')} in {folders}{_after(skipped)}")
    normal = normal_files(run)
    with Progress(len(normal) + len(files), "image", shown=team.first) as progress:
        choose_limit(run, normal, progress.advance)
        full = color_scale(run.limit, run.detector, files[: options.batch_size])
        judge = Judge(run.detector, run.limit, full, options.out)
        # All processes write overlays into the folder.
        state = State(run.detector.sha256, judge.threshold, full)
        by_first(team, lambda: prepare_out(options.out, options.overwrite, state))
        with _table(run) as table:
            try:
                for rows in share(files, judge.judge, options.batch_size, team):
                    if table is not None:
                        table.append(rows)
                    run.rows += rows
                    progress.advance(len(rows))
            except KeyboardInterrupt:
                if team.first:
                    run.write_report(judge, unfinished=len(files) - len(run.rows))
                raise
    run.name_errors()
    return run.finish(judge)


@contextmanager
def _table(run: Run) -> Iterator[Table | None]:
    """scores.csv, open for appending; None in the processes that do not write it."""
    table = Table(run.options.out / TABLE) if run.team.first else None
    try:
        yield table
    finally:
        if table is not None:
            table.close()


def by_first(team: Processes, action: Callable[[], Value]) -> Value:
    """The value of `action`, which the first process computes for all.

    If it fails, the other processes end without a word, because the first one reports the error.
    """
    value, error = None, None
    if team.first:
        try:
            value = action()
        except (ScoreError, LockError, DataError, OSError) as caught:
            error = caught
    value, failed = team.gather((value, error is not None))[0]
    if error is not None:
        raise error
    if failed:
        raise SystemExit(2)
    return cast(Value, value)


# --- images -------------------------------------------------------------------------------------


def find(run: Run, places: Sequence[Path]) -> tuple[list[NamedFile], str]:
    """The images in `places` without those in --out, with unique names; what was skipped."""
    listing = image_files(places)
    own = run.options.out.resolve()
    inside: dict[str, bool] = {}  # by folder, because resolving every file takes long
    files = []
    for path, name in listing.files:
        folder = os.path.dirname(path)
        if folder not in inside:
            resolved = Path(folder).resolve()
            inside[folder] = own in (resolved, *resolved.parents)
        if not inside[folder]:
            files.append((path, name))
    return unique_names(files), listing.skipped


def find_shared(run: Run, places: Sequence[Path]) -> tuple[list[NamedFile], str]:
    """The same, found by the first process for all; DataError if there are no images."""
    files, skipped = by_first(run.team, lambda: find(run, places))
    own = run.options.out.resolve()
    if not files and any(own in (place.resolve(), *place.resolve().parents) for place in places):
        raise DataError(
            f"--out {run.options.out} holds the images themselves: choose another folder"
        )
    if not files:
        raise DataError(f"{', '.join(map(str, places))}: no images found{_after(skipped)}")
    return files, skipped


def unique_names(files: Iterable[NamedFile]) -> list[NamedFile]:
    """Each path once, even if it is in two of the places, with a name that can be printed.

    Two links to one file are two images: a data set of DVC or git-annex consists of links.
    """
    here = os.getcwd()
    by_path: dict[str, NamedFile] = {}
    for path, name in files:
        by_path.setdefault(os.path.join(here, path), (path, printable(name)))
    return list(by_path.values())


def _after(skipped: str) -> str:
    return f"; {skipped}" if skipped else ""


# --- threshold ----------------------------------------------------------------------------------


def normal_files(run: Run) -> list[NamedFile]:
    """The images in the folder that --normal names; empty without it."""
    return [] if run.options.normal is None else find_shared(run, [run.options.normal])[0]


def choose_limit(
    run: Run, normal: Sequence[NamedFile], advance: Callable[[int], object] | None
) -> None:
    """Choose the threshold from the normal images or else from the checkpoint, and print it.

    advance: called with a number of images that have been scored.
    """
    rate = run.options.rate
    rate = run.detector.false_positive_rate if rate is None else rate
    if normal:
        run.limit = choose_threshold(score_normal(run, normal, advance), rate)
    else:
        run.limit = run.detector.threshold(rate)
    if run.limit is None:
        run.warn(
            "no threshold: the checkpoint holds no scores of normal images, perhaps because its "
            "training has not finished. Only scores and maps are written; for decisions, pass "
            "--normal FOLDER"
        )
        return
    if not run.limit.met:
        run.warn(threshold_words.too_few_images(run.limit))
    run.say(f"threshold {threshold_words.one_line(run.limit, run.options.normal_source)}")


def score_normal(
    run: Run, normal: Sequence[NamedFile], advance: Callable[[int], object] | None
) -> list[float]:
    """The scores of normal images; warns about those that cannot be read, or were trained on."""

    def work(files: Sequence[NamedFile]) -> list[Row]:
        return [Row.of(result, None) for result in run.detector.score_batch(files)]

    rows: list[Row] = []
    for some in share(normal, work, run.options.batch_size, run.team):
        rows += some
        if advance is not None:
            advance(len(some))
    for row in rows:
        if row.decision == ERROR:
            run.warn(f"--normal: {row.file} is left out of the threshold: {row.reason}")
    scores = [row.score for row in rows if row.score is not None]
    if not scores:
        raise DataError(f"--normal {run.options.normal}: none of the images can be scored")
    run.warn_about_training_images(
        rows,
        "normal images behind the threshold",
        "they score lower than new ones, so the threshold is too low",
    )
    return scores
