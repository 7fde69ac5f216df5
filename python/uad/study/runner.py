"""The runs of a grid, several processes side by side, each finished run kept at once."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from uad.study.experiment import run
from uad.study.grid import RunSpec
from uad.study.results import ResultsFile, spec_of

LOG_SECONDS = 30.0
"""Between two lines of progress where there is no terminal."""


def run_study(specs: Sequence[RunSpec], path: Path, *, processes: int, root: Path | None) -> int:
    """Make the runs that the results file at `path` does not have; how many there were to make.

    Each process computes with one thread: runs of small networks side by side are faster than one
    run on many threads, and their results do not depend on how many there are.
    """
    with ResultsFile(path) as results:
        done = {spec_of(result).key for result in results.results}
        missing = [spec for spec in specs if spec.key not in done]
        with tqdm(
            total=len(specs),
            initial=len(specs) - len(missing),
            unit="run",
            desc=path.stem,
            mininterval=0.1 if sys.stderr.isatty() else LOG_SECONDS,
            smoothing=0.05,  # runs of different blocks differ in length
        ) as progress:
            for result in _run_all(missing, processes, root):
                results.append(result)
                progress.update()
    return len(missing)


def _run_all(
    specs: Sequence[RunSpec], processes: int, root: Path | None
) -> Iterator[dict[str, Any]]:
    """Results as they come."""
    if processes == 1:
        torch.set_num_threads(1)
        yield from (run(spec, root) for spec in specs)
        return
    # spawned: a forked child of a process with PyTorch's threads may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, begin) as pool:
        futures = [pool.submit(run, spec, root) for spec in specs]
        try:
            yield from (future.result() for future in as_completed(futures))
        finally:
            pool.shutdown(cancel_futures=True)  # an error ends the study after runs under way


def begin() -> None:
    """What each process does first."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent tells nobody: its processes would finish their run and wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # from a thread, sys.exit would end the thread alone
