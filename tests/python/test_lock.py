"""One writer per folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest
from uad.checkpoint import WriteError
from uad.cli import train as cli
from uad.lock import LockError, only_writer, only_writer_of

HOLD = """
import sys, time
from pathlib import Path
from uad.lock import only_writer

with only_writer(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that has locked the folder "run"."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_a_second_writer_is_told_about_the_first(other, options, tmp_path, capsys):
    for more in ([], ["--resume"]):
        assert cli.main([*options, *more]) == 2
        error = capsys.readouterr().err
        name = f"process {other.pid} on {socket.gethostname()}, started 20"
        assert error.startswith(f"train.py: error: {tmp_path / 'run'} is in use by {name}")
        assert error.count("\n") == 1


def test_the_lock_of_a_killed_process_is_free(other, tmp_path):
    other.send_signal(signal.SIGKILL)
    other.wait()
    with only_writer(tmp_path / "run"):
        assert f'"process": {os.getpid()}' in (tmp_path / "run" / ".owner.json").read_text()


def test_an_owner_that_cannot_be_read_is_another_process(other, tmp_path):
    (tmp_path / "run" / ".owner.json").write_text("{")
    with (
        pytest.raises(LockError, match="is in use by another process"),
        only_writer(tmp_path / "run"),
    ):
        raise AssertionError("locked")


def test_an_unused_folder_is_removed_again(tmp_path):
    with only_writer(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
    assert not (tmp_path / "run").exists()
    with only_writer(tmp_path / "run"):
        (tmp_path / "run" / "result").touch()
    assert [path.name for path in (tmp_path / "run").iterdir() if path.name != ".lock"] == [
        "result"
    ]


HOLD_FILE = HOLD.replace("only_writer", "only_writer_of")


def test_a_second_writer_of_a_file_is_told_about_the_first(tmp_path):
    path = tmp_path / "run" / "study.jsonl"
    command = [sys.executable, "-c", HOLD_FILE, str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        holder = f"study.jsonl is in use by process {process.pid} on {socket.gethostname()}, "
        with pytest.raises(LockError, match=holder), only_writer_of(path):
            raise AssertionError("locked")
        with only_writer_of(path.with_name("other.jsonl")):  # in the same folder
            pass
        process.kill()
        process.wait()
    with only_writer_of(path):
        assert f'"process": {os.getpid()}' in (
            path.with_name(".study.jsonl.owner.json").read_text()
        )
    assert list(path.parent.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(WriteError, match="file/run cannot be written: Not a directory"),
        only_writer(tmp_path / "file" / "run"),
    ):
        raise AssertionError("locked")
