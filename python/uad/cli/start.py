"""Start a program of python/, and end it in one line if it is stopped or a package is missing.

Imports nothing that takes time, so that Ctrl-C is handled from the first moment on.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from types import FrameType

EXTRAS = {
    "PIL": "pillow",
    "filelock": "filelock",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "scipy": "scipy",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "tqdm": "tqdm",
}
"""Packages of the extra "train", by the name under which they are imported."""

REQUIRED = {"torch": "torch", "lamp_kernels": "lamp_kernels"}
"""The same for the packages without which there is not even help."""

INSTALL = "make setup, or pip install --no-build-isolation '.[train]', in the clone"


def start(name: str) -> int:
    """Run main() of uad.cli.<name>; return the exit code, 130 if interrupted."""
    program = f"{name}.py"
    first_process = os.environ.get("RANK", "0") == "0"
    # When Ctrl-C stops several processes, one speaks for all; the others may be waiting for it in
    # code that does not return to Python.
    signal.signal(signal.SIGINT, interrupt if first_process else signal.SIG_DFL)
    # If NumPy is missing, PyTorch warns on import, and this program says more about it.
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
    help_wanted = not {"-h", "--help"}.isdisjoint(sys.argv[1:])
    try:
        with help_without_extras() if help_wanted else nullcontext():
            code: int = import_module(f"uad.cli.{name}").main()
    except KeyboardInterrupt:
        print(f"{program}: stopped before it began; repeat the command", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        package = (EXTRAS | REQUIRED).get((error.name or "").partition(".")[0])
        if package is None:
            raise
        print(f"{program}: error: {package} is not installed: run {INSTALL}", file=sys.stderr)
        return 2
    return code


@contextmanager
def help_without_extras() -> Iterator[None]:
    """Replace packages that are missing while help is printed; then say how to install them."""
    missing = [name for name in EXTRAS if find_spec(name) is None]
    if not missing:
        yield
        return
    import_module("lamp_kernels")  # and PyTorch, which would use a stand-in for NumPy
    from uad.cli.stand_ins import stand_in_for  # takes time

    stand_in_for(missing)
    try:
        yield
    finally:
        print(f"\nNot installed: {', '.join(EXTRAS[name] for name in missing)}\nRun {INSTALL}")


def interrupt(number: int, frame: FrameType | None) -> None:
    """Stop the program; ignore further signals, which would disturb the cleaning up."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
