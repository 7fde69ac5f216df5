"""Write the report of a run folder again: `python -m uad.report RUN` in the folder `python/`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from uad.lock import LockError, only_writer
from uad.report.page import write_report
from uad.run_folder import RunFolderError, read_metrics


def main(arguments: Sequence[str]) -> int:
    """Write the report of the run folder given as the only argument."""
    if len(arguments) != 1:
        print("usage: python -m uad.report RUN", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    try:
        read_metrics(folder)  # before the lock, which would create a folder that is missing
        with only_writer(folder):
            print(write_report(folder))
    except (RunFolderError, LockError, OSError) as error:
        print(f"uad.report: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
