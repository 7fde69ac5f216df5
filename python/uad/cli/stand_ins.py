"""Stand-ins for packages that are not installed, so that --help works without them.

A program's parser needs the names in its other modules, such as the list of kinds of figures, but
none of the functions. So while help is printed, missing packages are replaced with modules in which
every name exists.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from unittest.mock import MagicMock


class StandIn(ModuleType):
    """A module in which every name exists and stands for anything."""

    def __getattr__(self, name: str) -> MagicMock:
        """Any name that is not set, except those that Python itself looks for."""
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock(name=f"{self.__name__}.{name}")


class StandInFinder(MetaPathFinder, Loader):
    """Finds a stand-in for each of the given packages and their submodules."""

    def __init__(self, packages: Iterable[str]) -> None:
        self.packages = frozenset(packages)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The import system calls this for a module that is not loaded yet."""
        if fullname.partition(".")[0] not in self.packages:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> StandIn:
        """The import system calls this with what `find_spec` returned."""
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """The import system calls this to fill the module, which has nothing to fill in."""


def stand_in_for(packages: Iterable[str]) -> None:
    """Let every later import of these packages succeed."""
    sys.meta_path.insert(0, StandInFinder(packages))
