"""A process that interprets the kernels; skips every test here where Triton is not installed."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from lamp_kernels.backends import BACKENDS

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = BACKENDS["triton"].unavailable_reason()
    if reason is None:
        return
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


class Interpreter:
    """Calls functions of interpreted.py in a separate process, which many tests share.

    An access outside a tensor ends that process; the next test then starts a new one.
    """

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def __call__(self, function: Callable[..., Any], *arguments: Any, **others: Any) -> Any:
        """What the function returns."""
        if self._pool is None:
            self._start()
        try:
            return self._pool.submit(function, *arguments, **others).result()
        except BrokenProcessPool:
            self._pool = None
            raise

    def _start(self) -> None:
        import interpreted

        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        before = dict(os.environ)
        os.environ["TRITON_INTERPRET"] = "1"
        try:
            reason = self._pool.submit(interpreted.start).result()
        finally:
            os.environ.clear()
            os.environ.update(before)
        if reason is not None:
            self.stop()
            self._pool = None
            pytest.skip(reason)

    def stop(self) -> None:
        """End the process."""
        if self._pool is not None:
            self._pool.shutdown()


@pytest.fixture(scope="session")
def interpret() -> Iterator[Interpreter]:
    """Call it as interpret(function of interpreted.py, arguments)."""
    interpreter = Interpreter()
    yield interpreter
    interpreter.stop()
