"""The folder that score.py writes to: whether it may be used, and what to remove or continue."""

from __future__ import annotations

from pathlib import Path

from uad.lock import is_unused
from uad.overlay import overlay_name
from uad.run_folder import CHECKPOINT, METRICS
from uad.scoring.judge import OVERLAYS, REPORT, TABLE
from uad.scoring.state import STATE, State, read_state
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
    if not folder.is_dir() or is_unused(folder):
        return
    for name in (METRICS, CHECKPOINT):
        if (folder / name).exists():
            raise ScoreError(
                f"--out {folder} belongs to train.py: it holds {name}; choose another folder"
            )
    own = read_state(folder) is not None
    # Without the state, files with these names are somebody else's, and would be lost.
    for name in (STATE, TABLE, REPORT):
        if (folder / name).exists() and not own:
            raise ScoreError(
                f"--out {folder}: {name} was not written by {PROGRAM} and is not replaced: choose "
                "another folder"
            )
    if overwrite:
        earlier_rows(folder)
    elif not (continues and own):
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
        raise ScoreError(f"--out {folder}: {error}; choose another folder") from error


def check_same(folder: Path, now: State) -> State:
    """The state to continue with; ScoreError if the results there were made in another way."""
    before = read_state(folder) or now
    difference = before.contradiction(now)
    if difference:
        raise ScoreError(
            f"--out {folder} holds results made with {difference}: choose another folder, or add "
            "--overwrite to replace them"
        )
    return before


def prepare_out(folder: Path, overwrite: bool, state: State) -> None:
    """Make the folders for the results; remove those of an earlier run with `overwrite`."""
    if overwrite:
        remove_results(folder)
    (folder / OVERLAYS).mkdir(parents=True, exist_ok=True)
    state.write(folder)


def remove_results(folder: Path) -> None:
    """Remove what this program wrote to the folder, and nothing else."""
    if read_state(folder) is None:
        return
    for row in earlier_rows(folder):
        (folder / OVERLAYS / overlay_name(row.file)).unlink(missing_ok=True)
    for name in (TABLE, REPORT, STATE):
        (folder / name).unlink(missing_ok=True)
