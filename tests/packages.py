"""Packages that some tests compare with or read data from, which may be missing where tests run."""

import importlib
import importlib.util
from typing import Any

import pytest


class _Missing:
    """Stands in for a package that is not installed: the test that uses it is skipped."""

    def __init__(self, package: str) -> None:
        self._reason = f"{package} is not installed; requirements-dev.txt has it"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pytest and copy look for such names in what a module holds
            raise AttributeError(name)
        pytest.skip(self._reason)


def optional(module: str) -> Any:
    """The module, or what skips each test that uses it where its package is not installed.

    So one missing package costs the tests that need it, and not the file that they stand in. A
    package that is installed and does not import is an error, as ever.
    """
    package = module.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        return _Missing(package)
    return importlib.import_module(module)
