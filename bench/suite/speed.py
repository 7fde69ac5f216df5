"""Times of the losses by shape, by image size and by number of threads."""

from collections.abc import Iterable, Sequence
from math import prod

import torch

from suite.cases import LIMIT_BYTES, LIMIT_SECONDS, Shape, Size, shape_name, textured_pair
from suite.contestants import FLOOR, MSSSIM, NATIVE, REFERENCE, Contestant
from suite.measure import Entry, Row, interleave, progress, reason_of

FORWARD = "forward"
BOTH = "forward + backward"
PASSES = (BOTH, FORWARD)
SWEPT = (NATIVE, REFERENCE, MSSSIM, FLOOR)


def speed(contestants: Sequence[Contestant], size: Size) -> list[Row]:
    """Rows of all contestants for each shape: forward + backward, and forward only."""
    rows: list[Row] = []
    for shape in size.shapes:
        progress(f"speed, {shape_name(shape)}")
        # The compiler gives up on a function after compiling a few variants of it.
        torch.compiler.reset()
        entries, failed = entries_of(contestants, shape, PASSES)
        rows += failed + interleave(
            entries, budget=size.budget, min_rounds=size.min_rounds, max_rounds=size.max_rounds
        )
    return rows


def sweep(
    contestants: Sequence[Contestant], size: Size, bytes_per_element: dict[str, float]
) -> list[Row]:
    """Forward + backward on one single-channel image, for each side length.

    bytes_per_element: memory by contestant. Together with the time at the previous side it
    predicts which contestants would exceed the limits; these are skipped, with the reason.
    """
    rows: list[Row] = []
    last: dict[str, float] = {}  # seconds per element
    for side in size.sweep_sides:
        shape: Shape = (1, 1, side, side)
        progress(f"sweep, {side}")
        fitting = []
        for contestant in contestants:
            if contestant.name not in SWEPT:
                continue
            seconds = side * side * last.get(contestant.name, 0.0)
            memory = side * side * bytes_per_element.get(contestant.name, 0.0)
            reason = None
            if seconds > LIMIT_SECONDS:
                reason = f"would take {seconds:.0f} s, the limit is {LIMIT_SECONDS:.0f} s"
            elif memory > LIMIT_BYTES:
                reason = f"would take {memory / 1e9:.0f} GB, the limit is {LIMIT_BYTES / 1e9:.0f}"
            if reason is None:
                fitting.append(contestant)
            else:
                rows.append({**_label(contestant, shape, BOTH), "skipped": reason})
        entries, failed = entries_of(fitting, shape, (BOTH,))
        measured = interleave(
            entries, budget=size.sweep_budget, min_rounds=size.min_rounds, max_rounds=100
        )
        last |= {row["contestant"]: row["p50"] / side**2 for row in measured if "p50" in row}
        rows += failed + measured
    return rows


def equal_work(contestants: Sequence[Contestant], size: Size) -> list[Row]:
    """Forward + backward on batches of single-channel images with as many pixels as the largest.

    The sweep shows the time of one image, including call overhead; this shows the kernel's time
    per element.
    """
    progress("equal work")
    largest = max(size.sweep_sides)
    entries: list[Entry] = []
    for side in size.sweep_sides:
        chosen = [c for c in contestants if c.name == NATIVE]
        entries += entries_of(chosen, ((largest // side) ** 2, 1, side, side), (BOTH,))[0]
    return interleave(entries, budget=size.budget, min_rounds=size.min_rounds, max_rounds=30)


def thread_scaling(contestants: Sequence[Contestant], size: Size) -> list[Row]:
    """Forward + backward of this library on 1 thread and on all threads, taking turns.

    Each contestant runs by itself: after another one it would start with cold caches, and filling
    them is bound by memory bandwidth, which does not grow with the number of threads.
    """
    progress("thread scaling")
    most = torch.get_num_threads()
    rows: list[Row] = []
    try:
        for contestant in contestants:
            if contestant.name not in (NATIVE, REFERENCE):
                continue
            entries = []
            for threads in sorted({1, most}):
                some, _ = entries_of([contestant], size.main_shape, (BOTH,))
                for entry in some:
                    entry.label["threads"] = threads
                    entry.prepare = lambda threads=threads: torch.set_num_threads(threads)
                entries += some
            rows += interleave(
                entries,
                budget=size.budget / 4,
                min_rounds=size.min_rounds,
                max_rounds=size.max_rounds,
            )
    finally:
        torch.set_num_threads(most)
    return rows


def entries_of(
    contestants: Sequence[Contestant], shape: tuple[int, ...], passes: Iterable[str]
) -> tuple[list[Entry], list[Row]]:
    """Entries to time, and rows for the contestants that could not be set up."""
    input, target = textured_pair(shape)
    entries: list[Entry] = []
    failed: list[Row] = []
    for contestant in contestants:
        try:
            calls = contestant.setup(input, target)
        except Exception as error:  # one package that fails to import must not end the run
            reason = reason_of(error)
            failed += [{**_label(contestant, shape, p), "skipped": reason} for p in passes]
            continue
        for which in passes:
            call = calls.forward if which == FORWARD else calls.forward_backward
            entries.append(Entry(_label(contestant, shape, which), call))
    return entries, failed


def _label(contestant: Contestant, shape: tuple[int, ...], which: str) -> Row:
    return {
        "contestant": contestant.name,
        "version": contestant.version,
        "border": contestant.border,
        "shape": list(shape),
        "elements": prod(shape),
        "pass": which,
        "threads": contestant.threads or torch.get_num_threads(),
    }
