"""The messages of `make test-aarch64` without the cross-compiler or the emulator."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("aarch64.py")
FAILING = "#!/bin/sh\necho 'Reading'; echo 'E: Unable to locate package qemu-user' >&2\nexit 100\n"


def run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program with only `path` on PATH."""
    return subprocess.run(
        [sys.executable, PROGRAM, *arguments],
        env=os.environ | {"PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("arguments", "status"), [((), 0), (("--required",), 1)])
def test_it_names_missing_programs(tmp_path, arguments, status):
    done = run(tmp_path, *arguments)
    assert done.returncode == status
    assert done.stdout.startswith(
        "aarch64: not tested, aarch64-linux-gnu-g++ and qemu-aarch64 not found; install the"
    )


def test_it_says_why_they_could_not_be_installed(tmp_path):
    assert "(installing them requires root and apt-get)" in run(tmp_path, "--install").stdout
    if os.geteuid() != 0:
        return
    (tmp_path / "apt-get").write_text(FAILING)
    (tmp_path / "apt-get").chmod(0o755)
    done = run(tmp_path, "--install")
    assert done.returncode == 0
    assert "failed: E: Unable to locate package qemu-user)" in done.stdout
