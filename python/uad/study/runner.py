"""The runs of a grid, several processes side by side, each finished run kept at once."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

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
        # spawned: a forked child of a process with PyTorch's threads may hang
        with ProcessPoolExecutor(
            processes, multiprocessing.get_context("spawn"), initializer=_prepare
        ) as pool:
            futures = {pool.submit(run, spec, root): spec for spec in missing}
            progress = tqdm(
                total=len(specs),
                initial=len(specs) - len(missing),
                unit="run",
                desc=path.stem,
                mininterval=0.1 if sys.stderr.isatty() else LOG_SECONDS,
                smoothing=0.05,  # runs of different blocks differ in length
            )
            try:
                for future in as_completed(futures):
                    results.append(future.result())
                    progress.update()
            finally:
                pool.shutdown(cancel_futures=True)  # an error ends the study after runs under way
                progress.close()
    return len(missing)


def _prepare() -> None:
    torch.set_num_threads(1)
