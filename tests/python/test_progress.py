"""The progress of a command, on a terminal and in a log file."""

from __future__ import annotations

import io
import sys

import pytest
from uad import progress
from uad.progress import Progress, silent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def use_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make stderr a terminal. Not a fixture, because pytest sets stderr again after those."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_one_bar_shows_the_epoch_and_the_time_left(monkeypatch):
    terminal = use_terminal(monkeypatch)
    with Progress(total=4) as bar:
        bar.skip(1)
        bar.report("mse: epoch 1/2, loss 0.5")
        bar.advance()
        bar.report("mse: epoch 2/2, loss 0.4", keep=True)
        shown = str(bar.bar)
    assert shown.startswith("mse: epoch 2/2, loss 0.4:  50%|")
    assert " 2/4 [" in shown
    lines = [line.strip() for line in terminal.getvalue().replace("\r", "\n").splitlines()]
    assert lines.count("mse: epoch 2/2, loss 0.4") == 1  # above the bar
    assert "mse: epoch 1/2, loss 0.5" not in lines  # only in the bar
    assert lines[-1] == ""  # the bar is gone


def test_a_log_gets_a_line_now_and_then(capsys, monkeypatch):
    now = 100.0
    monkeypatch.setattr(progress, "monotonic", lambda: now)
    with Progress(total=9) as log:
        for epoch in range(1, 8):
            log.report(f"epoch {epoch}", keep=epoch == 7)
            now += progress.LOG_SECONDS / 2
    assert capsys.readouterr().err.splitlines() == ["epoch 1", "epoch 3", "epoch 5", "epoch 7"]


def test_a_silent_progress_prints_nothing(monkeypatch):
    terminal = use_terminal(monkeypatch)
    with silent() as nothing:
        nothing.advance()
        nothing.report("epoch 1", keep=True)
        nothing.write("line")
    assert terminal.getvalue() == ""
