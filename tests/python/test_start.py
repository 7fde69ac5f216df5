"""How the programs of python/ start: without the extra "train", and when stopped at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from uad.cli.start import EXTRAS, INSTALL

PROGRAMS = sorted((Path(__file__).resolve().parents[2] / "python").glob("*.py"))

# The only way to be without packages that are installed: the finder of files does not find them.
WITHOUT_EXTRAS = """
import runpy, sys
from importlib.machinery import PathFinder

find = PathFinder.find_spec
missing = sys.argv.pop(1).split(",")

def find_spec(name, *rest):
    return None if name.partition(".")[0] in missing else find(name, *rest)

PathFinder.find_spec = find_spec
del sys.argv[0]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_without(missing: str, program: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_EXTRAS, missing, str(program), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_every_program_is_found():
    assert {"train.py", "score.py", "study.py", "landscape.py"} <= {path.name for path in PROGRAMS}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_help_works_without_the_extras_and_says_how_to_install_them(program):
    done = run_without(",".join(EXTRAS), program, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith(f"usage: {program.name} ")
    *_, missing, install = done.stdout.splitlines()
    assert missing == f"Not installed: {', '.join(EXTRAS.values())}"
    assert install == f"Run {INSTALL}"


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_without_a_package_a_program_ends_in_one_line(program):
    done = run_without("numpy", program)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"{program.name}: error: numpy is not installed: run make")
    assert done.stderr.count("\n") == 1
