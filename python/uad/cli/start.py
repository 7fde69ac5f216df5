"""Start a program of python/, and end it in one line if it is stopped or a package is missing.

Imports nothing that takes time, so that Ctrl-C is handled from the first moment on.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from importlib import import_module
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


def start(name: str) -> int:
    """Run main() of uad.cli.<name>; return the exit code, 130 if interrupted."""
    program = f"{name}.py"
    first_process = os.environ.get("RANK", "0") == "0"
    # When Ctrl-C stops several processes, one speaks for all; the others may be waiting for it in
    # code that does not return to Python.
    signal.signal(signal.SIGINT, interrupt if first_process else signal.SIG_DFL)
    # If NumPy is missing, PyTorch warns on import, and this program says more about it.
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
    try:
        code: int = import_module(f"uad.cli.{name}").main()
    except KeyboardInterrupt:
        print(f"{program}: stopped before it began; repeat the command", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        package = EXTRAS.get((error.name or "").partition(".")[0])
        if package is None:
            raise
        print(
            f'{program}: error: the package {package} is missing: run pip install "lamp_kernels'
            '[train]", or in a checkout make setup or pip install -e ".[train]"',
            file=sys.stderr,
        )
        return 2
    return code


def interrupt(number: int, frame: FrameType | None) -> None:
    """Stop the program; ignore further signals, which would disturb the cleaning up."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
