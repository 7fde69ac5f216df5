"""Make the runs of a grid in parallel processes, saving each run as soon as it finishes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from uad.progress import Progress
from uad.study.experiment import run
from uad.study.results import ResultsFile, spec_of
from uad.study.spec import RunSpec
from uad.study.statistics import Result


def run_study(specs: Sequence[RunSpec], path: Path, *, processes: int, root: Path | None) -> int:
    """Make the runs that the results file at `path` does not contain; return their number.

    Each process uses one thread: several runs of small networks in parallel are faster than one run
    on many threads, and their results do not depend on the number of processes.
    """
    with ResultsFile(path) as results:
        missing = runs_missing(specs, results.results)
        with Progress(len(specs), "run") as progress:
            done = len(specs) - len(missing)
            progress.skip(done)
            for number, result in enumerate(_run_all(missing, processes, root), done + 1):
                results.append(result)
                progress.advance()
                progress.report(f"{path.stem}: {number}/{len(specs)} runs, last {_name(result)}")
    return len(missing)


def _name(result: Result) -> str:
    """A run in a few words."""
    return f"{result['normal_class']} {result['loss']} seed {result['seed']}"


def runs_missing(specs: Sequence[RunSpec], results: Sequence[Result]) -> list[RunSpec]:
    """The runs that these lines of a results file do not contain."""
    done = {spec_of(result).key for result in results}
    return [spec for spec in specs if spec.key not in done]


def _run_all(
    specs: Sequence[RunSpec], processes: int, root: Path | None
) -> Iterator[dict[str, Any]]:
    """Results in the order in which the runs finish."""
    if processes == 1:
        torch.set_num_threads(1)
        yield from (run(spec, root) for spec in specs)
        return
    # Spawned, because a forked child of a process with PyTorch's threads may hang.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(processes, context, begin) as pool:
        with _interrupts_ignored():  # workers inherit this, so Ctrl-C reaches this process alone
            futures = [pool.submit(run, spec, root) for spec in specs]
        try:
            yield from (future.result() for future in as_completed(futures))
        except KeyboardInterrupt:
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()  # their runs would be lost anyway
            raise
        finally:
            pool.shutdown(cancel_futures=True)  # after an error, only runs under way are finished


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def begin() -> None:
    """Initialize a worker process."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Exit when the parent dies; otherwise workers would finish their run and then wait forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # in a thread, sys.exit would end only the thread
