"""Optional packages that some tests compare with or read data from."""

import importlib
import importlib.util
from typing import Any

import pytest


class _Missing:
    """Stands in for a package that is not installed: the test that uses it is skipped."""

    def __init__(self, package: str) -> None:
        self._reason = f"{package} is not installed; requirements-dev.txt has it"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pytest and copy look up such names on a module's objects
            raise AttributeError(name)
        pytest.skip(self._reason)


def optional(module: str) -> Any:
    """Return the module, or a stand-in that skips each test using it if it is not installed.

    A missing package thus skips only the tests that need it, not their whole file. A package that
    is installed but cannot be imported is still an error.
    """
    package = module.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        return _Missing(package)
    return importlib.import_module(module)
