"""The benchmarks: python -m device.timing --device cuda ...

Measures the time on the device with CUDA events: forward + backward and forward only, with a cold
and a warm cache, in float32 and, for this library, in the half-precision dtypes. Also measures the
peak memory bandwidth (with a copy), the host time of a call, and memory. On the CPU it measures the
same with the wall clock and does not flush caches.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from statistics import median
from time import perf_counter
from typing import Any

import torch
from suite.cases import Shape, shape_name, textured_pair
from suite.contestants import (
    COMPILED,
    FLOOR,
    FUSED,
    NATIVE,
    NATIVE_ZEROS,
    ON_GPU,
    REFERENCE,
    TEXTBOOK,
    TRITON,
    Contestant,
    select,
)
from suite.measure import Entry, Row, digits, interleave, progress, reason_of, wall_clock
from suite.peak import COPIED
from suite.speed import BOTH, FORWARD
from torch import Tensor

from device.program import Program

# The most informative first, in case time runs out.
SHAPES: tuple[Shape, ...] = (
    (8, 3, 256, 256),
    (1, 3, 1080, 1920),
    (64, 1, 28, 28),
    (1, 3, 2160, 3840),
    (4, 3, 1024, 1024),
)
QUICK_SHAPES: tuple[Shape, ...] = ((2, 1, 32, 32),)
QUICK_NAMES = (NATIVE, REFERENCE, TEXTBOOK, FLOOR)
HALVES = (torch.float16, torch.bfloat16)
SMALL: Shape = (1, 1, 32, 32)  # dominated by call overhead; as in bench/overhead.py
COMPILING = 25.0  # seconds, a first estimate; compiling takes by far the longest
COLD, WARM = "cold", "warm"
TENSORS = {BOTH: 3, FORWARD: 2}  # two images read, one gradient written
FORWARD_TOO = (NATIVE, NATIVE_ZEROS, TRITON, FUSED, REFERENCE, FLOOR)
WARM_TOO = (NATIVE, NATIVE_ZEROS, TRITON, FUSED)


class Clock:
    """The wall clock, for calls that return only after they are computed."""

    how = "the wall clock; caches are not flushed between calls"

    def __call__(self, entry: Entry) -> float:
        """Seconds per call."""
        return wall_clock(entry)

    def wait(self) -> None:
        """Wait until all calls are computed."""


class CudaClock(Clock):
    """CUDA events around a call whose launches are all queued before the first one starts.

    A sleep kernel keeps the device busy while the host queues the call, so that only the device's
    work is measured, without gaps where it would wait for the host. Before that, the device reads a
    buffer larger than its cache: every call then finds the images in memory, as in training, and
    because the buffer is only read, nothing has to be written back during the call. An entry that
    is to have a warm cache is called twice instead, and the second call is timed.
    """

    def __init__(self, device: torch.device) -> None:
        cache = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)
        self._buffer = torch.ones(max(2 * cache, 256 * 2**20) // 4, device=device)
        self._sum = torch.zeros((), device=device)
        self._queueing: dict[int, float] = {}  # seconds, by entry
        self._cycles_per_second = self._measure_sleep()
        self.how = (
            "CUDA events around a call queued in advance; before each call the cache is flushed by "
            f"reading {4 * self._buffer.numel() // 2**20} MiB"
        )

    def __call__(self, entry: Entry) -> float:
        """Seconds that one call takes on the device."""
        if entry.label.get("cache") == WARM:
            entry.call()
        else:
            torch.sum(self._buffer, 0, out=self._sum)
        # Sleep twice as long as queueing took last time; the first call is a warm-up anyway.
        ahead = min(2.0 * self._queueing.get(id(entry), 0.0) + 2e-5, 0.05)
        torch.cuda._sleep(int(ahead * self._cycles_per_second))
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun = perf_counter()
        start.record()
        result = entry.call()
        end.record()
        self._queueing[id(entry)] = perf_counter() - begun
        end.synchronize()
        del result
        return float(start.elapsed_time(end)) / 1e3

    def wait(self) -> None:
        """Wait until the device is idle."""
        torch.cuda.synchronize()

    @staticmethod
    def _measure_sleep() -> float:
        cycles = 20_000_000
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for _ in range(2):  # the first one loads the kernel
            start.record()
            torch.cuda._sleep(cycles)
            end.record()
            end.synchronize()
        return cycles / (float(start.elapsed_time(end)) / 1e3)


class Timing(Program):
    """Measures bandwidth, host time, speed and memory, in this order."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._clock = CudaClock(self.device) if self.device.type == "cuda" else Clock()
        only = QUICK_NAMES if self.quick else None
        self._taken, skipped = select(only, among=ON_GPU, device=self.device.type)
        if self.quick:
            self._taken = [c for c in self._taken if c.name in QUICK_NAMES]
        self._compiling = COMPILING
        self.results |= {
            "how": self._clock.how,
            "skipped": skipped,
            "copy": {},
            "speed": [],
            "host": [],
            "memory": [],
        }

    def parts(self) -> None:
        """Measure all parts."""
        self._copy()
        self.write()
        self._host()
        self.write()
        shapes = QUICK_SHAPES if self.quick else SHAPES
        for index, shape in enumerate(shapes):
            entries = self._speed(shape, len(shapes) - index)
            self.write()
            if index == 0:
                self._memory(shape, entries)

    def _interleave(self, entries: Sequence[Entry], budget: float) -> list[Row]:
        low, high = (2, 5) if self.quick else (5, 100)
        return interleave(
            entries,
            budget=max(budget, 0.0),
            min_rounds=low,
            max_rounds=high,
            sample=self._clock,
            shortest=0.0,
        )

    def _copy(self) -> None:
        progress("copy")
        count = COPIED // 16 if self.quick else COPIED
        source = torch.rand(count, device=self.device)
        destination = torch.empty_like(source)
        entry = Entry({"what": "copy"}, partial(destination.copy_, source))
        (row,) = self._interleave([entry], 2.0)
        moved = 2 * 4 * count
        self.results["copy"] = {
            **row, "bytes": moved, "bytes_per_s": digits(moved / row["p50"])
        }  # fmt: skip

    def _host(self) -> None:
        """Measure the host time of a call on an idle device, and the time until it is computed."""
        progress("host")
        input, target = self._pair(SMALL, torch.float32)
        for contestant in self._taken:
            if contestant.name not in (NATIVE, TRITON, REFERENCE, FLOOR):
                continue
            label = {"contestant": contestant.name, "shape": list(SMALL), "pass": BOTH}
            try:
                call = contestant.setup(input, target).forward_backward
                times = [self._times_of(call) for _ in range(20 if self.quick else 220)]
            except Exception as error:  # continue with the others
                self.results["host"].append({**label, "skipped": reason_of(error)})
                continue
            times = times[len(times) // 10 :]  # the first calls initialize things
            returned, computed = (digits(median(column)) for column in zip(*times, strict=True))
            self.results["host"].append(
                {**label, "returned_s": returned, "computed_s": computed, "calls": len(times)}
            )

    def _times_of(self, call: Callable[[], Any]) -> tuple[float, float]:
        self._clock.wait()
        start = perf_counter()
        result = call()
        returned = perf_counter()
        self._clock.wait()
        computed = perf_counter()
        del result
        return returned - start, computed - start

    def _speed(self, shape: Shape, shapes_left: int) -> list[Entry]:
        progress(f"speed, {shape_name(shape)}")
        torch.compiler.reset()  # it gives up on a function after compiling a few variants of it
        entries: list[Entry] = []
        for contestant in self._taken:
            if contestant.name == COMPILED:
                self._add_compiled(entries, contestant, shape, shapes_left)
            else:
                self._add(entries, contestant, shape, torch.float32)
                if contestant.name in FORWARD_TOO:
                    self._add(entries, contestant, shape, torch.float32, which=FORWARD)
                if contestant.name in WARM_TOO and self.device.type == "cuda":
                    self._add(entries, contestant, shape, torch.float32, cache=WARM)
        for dtype in HALVES:
            for contestant in self._taken:
                if contestant.name in (NATIVE, TRITON):
                    self._add(entries, contestant, shape, dtype)
        budget = 0.5 * self.left() / shapes_left
        for row in self._interleave(entries, min(budget, 8.0)):
            if "p50" in row:
                row["bytes_per_s"] = digits(row["bytes"] / row["p50"])
                row["share_of_copy"] = digits(
                    row["bytes_per_s"] / self.results["copy"]["bytes_per_s"], 3
                )
            self.results["speed"].append(row)
        return entries

    def _add(
        self,
        entries: list[Entry],
        contestant: Contestant,
        shape: Shape,
        dtype: torch.dtype,
        *,
        which: str = BOTH,
        cache: str = COLD,
    ) -> Entry | None:
        label = {
            "contestant": contestant.name,
            "version": contestant.version,
            "border": contestant.border,
            "shape": list(shape),
            "dtype": str(dtype).removeprefix("torch."),
            "elements": prod(shape),
            "bytes": TENSORS[which] * dtype.itemsize * prod(shape),
            "pass": which,
            "cache": cache if self.device.type == "cuda" else "not flushed",
        }
        try:
            passes = contestant.setup(*self._pair(shape, dtype))
            call = passes.forward_backward if which == BOTH else passes.forward
        except Exception as error:  # one package that fails to import must not end the run
            self.results["speed"].append({**label, "skipped": reason_of(error)})
            return None
        entries.append(Entry(label, call))
        return entries[-1]

    def _add_compiled(
        self, entries: list[Entry], contestant: Contestant, shape: Shape, shapes_left: int
    ) -> None:
        """Compile it now if time allows; compiling takes too long to be part of a warm-up."""
        entry = self._add(entries, contestant, shape, torch.float32)
        if entry is None:
            return
        reason = None
        if self.quick:
            reason = "compiling takes too long for a quick run"
        elif self.left() - self._compiling < 6.0 * shapes_left:
            reason = f"no time left to compile it, which takes about {self._compiling:.0f} s"
        start = perf_counter()
        if reason is None:
            try:
                entry.call()
            except Exception as error:
                reason = reason_of(error)
            self._compiling = perf_counter() - start
        if reason is not None:
            entries.remove(entry)
            self.results["speed"].append({**entry.label, "skipped": reason})

    def _memory(self, shape: Shape, entries: Sequence[Entry]) -> None:
        """Measure the peak bytes per element that forward + backward needs beyond the images."""
        if self.device.type != "cuda":
            self.results["memory"].append({"skipped": "not available on the CPU: CUDA memory"})
            return
        progress("memory")
        for entry in entries:
            label = {key: entry.label[key] for key in ("contestant", "shape", "dtype", "pass")}
            try:
                torch.cuda.synchronize()
                before = torch.cuda.memory_allocated()
                torch.cuda.reset_peak_memory_stats()
                result = entry.call()
                torch.cuda.synchronize()
                most = torch.cuda.max_memory_allocated() - before
                del result
            except Exception as error:
                self.results["memory"].append({**label, "skipped": reason_of(error)})
                continue
            self.results["memory"].append(
                {**label, "bytes_per_element": digits(most / prod(shape), 3)}
            )

    def _pair(self, shape: Shape, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if getattr(self, "_made", None) != (shape, dtype):
            self._made = shape, dtype
            self._images = [image.to(self.device) for image in textured_pair(shape, dtype=dtype)]
        input, target = self._images
        return input, target


if __name__ == "__main__":
    Timing.main(__doc__)
