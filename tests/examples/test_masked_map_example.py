"""Runs examples/masked_map.py: what the README's picture shows is so, and the program draws it."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

pytestmark = pytest.mark.cpu_only("the example draws on the CPU")
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "masked_map.py"


def test_only_a_mask_keeps_the_label_from_its_surroundings():
    example = runpy.run_path(str(EXAMPLE))
    part = example["part"]()
    maps = example["maps"](part)
    peak = example["peak"]
    good = part.mask & ~example["near"](part.scratched)
    for values in (maps.whole, maps.hidden):
        assert peak(values, good) > 1.5 * peak(values, part.scratched)
    assert 10 * peak(maps.masked, good) < peak(maps.masked, part.scratched)
    assert peak(maps.masked, ~part.mask) == 0


def test_it_writes_a_picture(tmp_path):
    path = tmp_path / "map.png"
    command = [sys.executable, EXAMPLE, "--out", path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert done.stdout.splitlines()[-1] == f"wrote {path}"
