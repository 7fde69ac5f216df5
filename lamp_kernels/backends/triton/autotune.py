"""Tiles chosen by time, for who asks: LAMP_KERNELS_TRITON_AUTOTUNE=1 when Python starts.

Without it tiling.py chooses by count, and no call waits. With it the first call of a shape and a
set of options compiles and times every candidate, which takes seconds and synchronises with the
device; the process remembers the quickest. Sums are then added in that tile's order: bitwise equal
within a process, and perhaps other in their last digit in the next, where another tile has won.
"""

import os
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch

from lamp_kernels.backends.triton.interpreter import INTERPRETED

ENVIRONMENT_VARIABLE = "LAMP_KERNELS_TRITON_AUTOTUNE"
VALUE = os.environ.get(ENVIRONMENT_VARIABLE, "")
WARMUP, REPETITIONS = 5, 25  # milliseconds of each candidate

T = TypeVar("T", bound=Hashable)

_quickest: dict[Hashable, Any] = {}
_measuring = threading.Lock()  # two at once would measure one another


def wanted() -> bool:
    """Whether the environment asked for it; in Triton's interpreter there is nothing to measure."""
    if VALUE not in ("", "0", "1"):
        raise ValueError(f"{ENVIRONMENT_VARIABLE} must be 0 or 1, got {VALUE!r}")
    return VALUE == "1" and not INTERPRETED


def quickest(key: Hashable, candidates: Sequence[T], run: Callable[[T], object]) -> T:
    """The candidate whose run takes the least time, measured once for each key.

    `run` leaves the same behind for every candidate. While a CUDA graph is captured nothing can be
    measured: then it is what an earlier call found, else the first, which is the table's.
    """
    if key not in _quickest:
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            return candidates[0]
        with _measuring:
            if key not in _quickest:
                _quickest[key] = min(candidates, key=lambda one: milliseconds(lambda: run(one)))
    found: T = _quickest[key]
    return found


def milliseconds(run: Callable[[], object]) -> float:
    """The median time of a run on the current device."""
    from triton.testing import do_bench

    median: float = do_bench(run, warmup=WARMUP, rep=REPETITIONS, return_mode="median")
    return median
