"""Where the parts of this checkout are, and how Python finds those that are not installed."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "bench"
PYTHON = ROOT / "python"  # the training program


def search_first(folder: Path) -> None:
    """Let imports find what is in `folder`, also where another version of it is installed."""
    sys.path.insert(0, str(folder))


def python_path() -> dict[str, str]:
    """The environment in which a child process finds the package, bench/ and python/."""
    places = [*map(str, (ROOT, BENCH, PYTHON)), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(place for place in places if place)}
