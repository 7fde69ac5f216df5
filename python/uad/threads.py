"""The same work on several files at once: decoding and compressing images release the GIL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Value = TypeVar("Value")

MOST_THREADS = 8
"""Each thread may hold a decoded image, which can take hundreds of megabytes."""


def in_threads(work: Callable[[Item], Value], items: Sequence[Item]) -> list[Value]:
    """work(item) for each item, in order, on as many threads as PyTorch uses (--threads)."""
    count = min(len(items), torch.get_num_threads(), MOST_THREADS)
    if count < 2:
        return list(map(work, items))
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, items))
