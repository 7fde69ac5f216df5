"""A pytest plugin that writes each outcome at once, as a line of JSON: pytest -p device.reporter.

The outcomes before a crash or a timeout are therefore known.
"""

import json
from pathlib import Path
from typing import Any

import pytest

TEXT = 1500  # characters kept from the end of a failure, where the error is


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the output file."""
    parser.addoption("--gpu-report", type=Path, help="write the outcomes to this file")


def pytest_configure(config: pytest.Config) -> None:
    """Write only if a file is named; under pytest-xdist the controller writes for all workers."""
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
    if isinstance(report.longrepr, tuple):  # a skip: file, line, reason
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return report.longreprtext[-TEXT:]
