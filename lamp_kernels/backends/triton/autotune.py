"""Opt-in tile autotuning: set LAMP_KERNELS_TRITON_AUTOTUNE=1 before Python starts.

Without it tiling.py chooses tiles by a model, and no call waits. With it the first call for a shape
and a set of options compiles and times every candidate, which takes seconds and synchronizes with
the device; the process remembers the fastest. Sums are then added in that tile's order: bitwise
equal within a process, but the last digit may differ in the next process, where another tile may
win. GMS has one tiling, which is not measured.
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
_measuring = threading.Lock()  # two at once would disturb each other


def wanted() -> bool:
    """Whether the environment requests it; in Triton's interpreter there is nothing to measure."""
    if VALUE not in ("", "0", "1"):
        raise ValueError(f"{ENVIRONMENT_VARIABLE} must be 0 or 1, got {VALUE!r}")
    return VALUE == "1" and not INTERPRETED


def quickest(key: Hashable, candidates: Sequence[T], run: Callable[[T], object]) -> T:
    """The candidate whose run takes the least time, measured once for each key.

    `run` must have the same effect for every candidate. Nothing can be measured while a CUDA graph
    is being captured: then this returns what an earlier call found, or else the first candidate,
    which is the choice of tiling.py.
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
