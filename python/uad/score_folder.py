"""The folder that score.py writes to: whether it may be used, and what to remove or continue."""

from __future__ import annotations

from pathlib import Path

from uad.overlay import overlay_name
from uad.score_table import Row, TableError, read_table
from uad.scoring import OVERLAYS, REPORT, TABLE

PROGRAM = "score.py"


class ScoreError(Exception):
    """A folder for the results that cannot be used. The message says what to do."""


def check_out(folder: Path, overwrite: bool) -> None:
    """ScoreError unless results can go to this folder; removes earlier ones with --overwrite."""
    if folder.exists() and not folder.is_dir():
        raise ScoreError(f"--out must be a folder, got the file {folder}")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise ScoreError(
            f"--out {folder} is not empty: choose another folder, or add --overwrite to replace "
            f"the results of {PROGRAM} in it"
        )
    remove_results(folder)


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


def earlier_rows(folder: Path, overwrite: bool) -> list[Row]:
    """The rows after which --watch continues; ScoreError if the folder holds something else."""
    if overwrite or not (folder / TABLE).is_file():
        check_out(folder, overwrite)
        return []
    try:
        return read_table(folder / TABLE)
    except TableError as error:
        raise ScoreError(f"--out {folder}: {error}; add --overwrite to replace it") from error


def prepare_out(folder: Path) -> None:
    """Make the folders for the results."""
    (folder / OVERLAYS).mkdir(parents=True, exist_ok=True)
