"""The folder that score.py writes to: whether it may be used, and what to remove or continue."""

from __future__ import annotations

from pathlib import Path

from uad.lock import is_unused
from uad.scoring.judge import OVERLAYS, REPORT, TABLE
from uad.scoring.overlay import overlay_name
from uad.scoring.table import Row, TableError, read_table

PROGRAM = "score.py"


class ScoreError(Exception):
    """A folder for the results that cannot be used. The message says what to do."""


def check_out(folder: Path, overwrite: bool, continues: bool) -> None:
    """ScoreError unless results can go to this folder. Changes nothing.

    continues: whether it may hold a table of an earlier run.
    """
    if folder.exists() and not folder.is_dir():
        raise ScoreError(f"--out must be a folder, got the file {folder}")
    if overwrite or not folder.is_dir() or is_unused(folder):
        return
    if not (continues and (folder / TABLE).is_file()):
        raise ScoreError(
            f"--out {folder} is not empty: choose another folder, or add --overwrite to replace "
            f"the results of {PROGRAM} in it"
        )


def earlier_rows(folder: Path) -> list[Row]:
    """The rows of an earlier run; ScoreError if the table is not one of this program."""
    if not (folder / TABLE).is_file():
        return []
    try:
        return read_table(folder / TABLE)
    except TableError as error:
        raise ScoreError(f"--out {folder}: {error}; add --overwrite to replace it") from error


def prepare_out(folder: Path, overwrite: bool) -> None:
    """Make the folders for the results; remove those of an earlier run with `overwrite`."""
    if overwrite:
        remove_results(folder)
    (folder / OVERLAYS).mkdir(parents=True, exist_ok=True)


def remove_results(folder: Path) -> None:
    """Remove what this program wrote to the folder, and nothing else."""
    try:
        rows = read_table(folder / TABLE)
    except (OSError, TableError):
        rows = []
    for row in rows:
        (folder / OVERLAYS / overlay_name(row.file)).unlink(missing_ok=True)
    for name in (TABLE, REPORT):
        (folder / name).unlink(missing_ok=True)
