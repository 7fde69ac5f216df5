"""The clock: contestants take turns in one process, so that machine drift affects all alike."""

import gc
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from suite.cases import LIMIT_SECONDS

Row = dict[str, Any]
_START = perf_counter()
SHORTEST = 2e-3  # seconds; shorter calls are repeated within one sample


@dataclass
class Entry:
    """A call to time, and the fields that identify it in its row.

    prepare, if given, runs untimed before each turn.
    """

    label: Row
    call: Callable[[], Any]
    prepare: Callable[[], None] | None = None
    calls: int = 1  # per sample


def interleave(
    entries: Sequence[Entry],
    *,
    budget: float,
    min_rounds: int,
    max_rounds: int,
    limit: float = LIMIT_SECONDS,
    sample: Callable[[Entry], float] | None = None,
    shortest: float = SHORTEST,
) -> list[Row]:
    """Time the entries round-robin; each row is a label and quantiles of the seconds per call.

    Two warm-up turns come first: one compiles and allocates, the next shows how long a turn takes
    and thus how many rounds fit into `budget` seconds. An entry that fails, or takes more than
    `limit` seconds, is not measured; its row gives the reason as "skipped".

    sample: measures the seconds per call; the default is the wall clock. shortest: 0 for one call
    per sample, however short.
    """
    sample = sample or wall_clock
    rows: dict[int, Row] = {}
    turn: dict[int, float] = {}
    for index, entry in enumerate(entries):
        try:
            sample(entry)
            start = perf_counter()
            seconds = sample(entry)
            untimed = max(0.0, perf_counter() - start - seconds)  # the untimed part of a turn
        except Exception as error:  # one failing contestant must not end the run
            rows[index] = {**entry.label, "skipped": reason_of(error)}
            continue
        if seconds > limit:
            reason = f"one call takes {seconds:.0f} s, the limit is {limit:.0f} s"
            rows[index] = {**entry.label, "skipped": reason}
            continue
        entry.calls = max(1, round(shortest / max(seconds, 1e-7)))
        turn[index] = entry.calls * seconds + untimed

    fitting = int(budget / max(sum(turn.values()), 1e-9))
    rounds = max(min_rounds, min(max_rounds, fitting))
    samples: dict[int, list[float]] = {index: [] for index in turn}
    order = list(turn)
    gc.collect()
    for number in range(rounds):
        shift = number % max(len(order), 1)  # so that no entry always follows the same one
        for index in order[shift:] + order[:shift]:
            samples[index].append(sample(entries[index]))
    for index in order:
        label = entries[index].label
        rows[index] = {**label, "rounds": rounds, "calls": entries[index].calls}
        rows[index] |= quantiles(samples[index])
    return [rows[index] for index in sorted(rows)]


def quantiles(samples: Sequence[float]) -> dict[str, float]:
    """p10, p50 and p90 of at least two samples, to four significant digits."""
    cuts = statistics.quantiles(samples, n=10, method="inclusive")
    return {"p10": digits(cuts[0]), "p50": digits(cuts[4]), "p90": digits(cuts[8])}


def digits(value: float, count: int = 4) -> float:
    """`value` rounded to `count` significant digits, more than a measurement resolves."""
    return float(f"{value:.{count}g}")


def reason_of(error: Exception) -> str:
    """An error as a row's "skipped" reports it: its type and its first line, shortened."""
    line = (str(error).splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {line}"


def progress(text: str) -> None:
    """Report progress on stderr; stdout is for the tables."""
    print(f"[{perf_counter() - _START:4.0f} s] {text}", file=sys.stderr, flush=True)


def wall_clock(entry: Entry) -> float:
    """Seconds per call, averaged over the calls of one sample."""
    if entry.prepare is not None:
        entry.prepare()
    start = perf_counter()
    for _ in range(entry.calls):
        entry.call()
    return (perf_counter() - start) / entry.calls
