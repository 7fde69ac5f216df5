"""A pytest plugin that writes each outcome at once, a line of JSON each: pytest -p device.reporter.

What a process had done when it crashed or was killed is then known all the same.
"""

import json
from pathlib import Path
from typing import Any

import pytest

TEXT = 1500  # characters of a failure that are kept: its end, which has the error


def pytest_addoption(parser: pytest.Parser) -> None:
    """The file that the lines go to."""
    parser.addoption("--gpu-report", type=Path, help="write the outcomes to this file")


def pytest_configure(config: pytest.Config) -> None:
    """Write only where a file is named; under pytest-xdist its controller hears of every test."""
    if hasattr(config, "workerinput"):
        return
    path = config.getoption("--gpu-report")
    if path is not None:
        config.pluginmanager.register(_Reporter(path))


class _Reporter:
    def __init__(self, path: Path) -> None:
        self._path = path

    def _write(self, **fields: Any) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(fields) + "\n")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write(what="start", test=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self._write(
                what="test",
                test=report.nodeid,
                outcome=report.outcome,
                seconds=round(report.duration, 3),
                text=_text(report),
            )

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.outcome != "passed":
            self._write(
                what="module", test=report.nodeid, outcome=report.outcome, text=_text(report)
            )

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self._write(what="end", status=int(exitstatus))


def _text(report: pytest.TestReport | pytest.CollectReport) -> str:
    if report.outcome == "passed":
        return ""
    if isinstance(report.longrepr, tuple):  # file, line and reason of a skip
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return report.longreprtext[-TEXT:]
