"""The folders of this checkout, and the only place in bench/ that changes the import path."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "bench"
PYTHON = ROOT / "python"  # the training program


def search_first(folder: Path) -> None:
    """Import from `folder` first, even if another version of a package is installed."""
    sys.path.insert(0, str(folder))


def python_path() -> dict[str, str]:
    """Environment variables that let a child process import the package, bench/ and python/."""
    places = [*map(str, (ROOT, BENCH, PYTHON)), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(place for place in places if place)}
