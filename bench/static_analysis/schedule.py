"""Simulates a scheduler of a multiprocessor: the cycles that it takes for its warps.

The compiled code specifies how long a warp stalls after each instruction, and for which results it
waits. The simulation issues one instruction per cycle, from a warp that is ready and whose unit is
free. The code does not specify memory latency (two constants below) or the behavior of caches (not
simulated: no instruction cache misses, no bank conflicts, no full queues).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from static_analysis.devices import Target
from static_analysis.sass import NO_SCOREBOARD, Instruction

# Latencies in cycles. Microbenchmarks of these generations (Jia et al. 2018, Luo et al.,
# arXiv:2402.13499) find 22 to 33 for shared memory and about as many for the other units whose
# results are awaited on a scoreboard, and 450 to 600 for an unloaded DRAM.
NEAR_LATENCY = 30
FAR_LATENCY = 600
OPERANDS_READ = 15

_AWAITS = re.compile(r"^DEPBAR\.LE SB\d, 0x([0-9a-f]+)")


@dataclass(frozen=True)
class _Step:
    stall: int
    waits: tuple[int, ...]
    write: int
    read: int
    unit: str
    busy: float
    latency: int
    barrier: bool
    copies: bool  # to shared memory, without a destination register
    ends_copies: bool
    awaits_copies: int | None  # waits for all but this many groups


def _unit(i: Instruction, target: Target) -> tuple[str, float]:
    """The unit that an instruction occupies, and for how many cycles."""
    lanes = target.schedulers * 32
    if i.kind in ("ffma", "fadd_fmul"):
        packed = 2 if i.name in ("FFMA2", "FADD2", "FMUL2") else 1
        return "float32", packed * lanes / target.float32
    if i.kind == "imad" or i.operation.startswith("IMAD"):
        # In the multiply-add unit or, if that has 32 lanes, in half of it.
        unit = "float32" if target.float32 == target.integer else "half"
        return unit, lanes / target.integer
    if i.kind in ("integer", "select", "move"):
        return "integer", lanes / target.integer
    if i.kind in ("mufu", "convert"):
        return "special", lanes / target.special
    if i.kind == "fp64":
        return "float64", lanes / target.float64
    if i.kind in ("lds", "sts", "ldg", "stg", "copy"):
        # One 128-byte access per cycle, shared by all schedulers.
        return "memory", target.schedulers * i.bytes * 32 / 128
    return "none", 0.0


def _step(i: Instruction, target: Target) -> _Step:
    unit, busy = _unit(i, target)
    far = i.kind in ("ldg", "copy")
    ends = i.name == "LDGDEPBAR"
    awaits = _AWAITS.search(i.text)
    return _Step(
        stall=max(i.stall, 1),
        waits=tuple(b for b in range(6) if i.wait >> b & 1),
        write=NO_SCOREBOARD if ends else i.write,  # a counter, not a flag
        read=i.read,
        unit=unit,
        busy=busy,
        latency=FAR_LATENCY if far else NEAR_LATENCY,
        barrier=i.name == "BAR",
        copies=i.kind == "copy",
        ends_copies=ends,
        awaits_copies=int(awaits[1], 16) if awaits else None,
    )


def unit_cycles(code: Sequence[Instruction], target: Target) -> dict[str, float]:
    """Cycles for which one warp's instructions occupy each unit, and the issue slots."""
    busy = {"issue": float(len(code))}
    for i in code:
        unit, taken = _unit(i, target)
        if unit != "none":
            busy[unit] = busy.get(unit, 0.0) + taken
    return busy


def cycles(
    traces: Sequence[Sequence[Instruction]],
    target: Target,
    blocks: Sequence[int] | None = None,
    starts: Sequence[int] | None = None,
) -> list[int]:
    """The cycle in which each warp of one scheduler finishes its trace.

    blocks: the block of each warp, which shares its barriers; one block for all if not given.
    starts: the cycles in which the warps start.
    """
    n = len(traces)
    known: dict[int, _Step] = {}
    steps = [[known.setdefault(id(i), _step(i, target)) for i in trace] for trace in traces]
    block = list(blocks) if blocks is not None else [0] * n
    ready = [float(s) for s in starts] if starts is not None else [0.0] * n
    position = [0] * n
    boards = [[0.0] * 8 for _ in range(n)]
    stopped = [False] * n  # at a barrier
    copied = [0.0] * n  # when all copies so far have arrived ...
    groups: list[list[float]] = [[] for _ in range(n)]  # ... and those of each group
    free: dict[str, float] = {}
    done = [0] * n
    left = [w for w in range(n) if steps[w]]
    now, last = 0.0, -1

    def earliest(w: int) -> float:
        step = steps[w][position[w]]
        at = max(ready[w], free.get(step.unit, 0.0))
        for b in step.waits:
            at = max(at, boards[w][b])
        if step.awaits_copies is not None and len(groups[w]) > step.awaits_copies:
            at = max(at, groups[w][-1 - step.awaits_copies])
        return at

    while left:
        running = [w for w in left if not stopped[w]]
        if not running:
            raise ValueError("a warp ended before a barrier at which its block waits")
        times = {w: earliest(w) for w in running}
        possible = [w for w in running if times[w] <= now]
        if not possible:
            now = min(times.values())
            possible = [w for w in running if times[w] <= now]
        # Keep issuing from the same warp while it is ready; otherwise take the one farthest behind.
        w = last if last in possible else min(possible, key=lambda v: (ready[v], v))
        step = steps[w][position[w]]
        ready[w] = now + step.stall
        if step.unit != "none":
            free[step.unit] = now + step.busy
        if step.write != NO_SCOREBOARD:
            boards[w][step.write] = max(boards[w][step.write], now + step.busy + step.latency)
        if step.read != NO_SCOREBOARD:
            boards[w][step.read] = max(boards[w][step.read], now + step.busy + OPERANDS_READ)
        if step.copies:
            copied[w] = max(copied[w], now + step.busy + step.latency)
        if step.ends_copies:
            groups[w].append(copied[w])
        position[w] += 1
        if step.barrier:
            stopped[w] = True
            mates = [v for v in left if block[v] == block[w]]
            if all(stopped[v] for v in mates):
                for v in mates:
                    stopped[v] = False
                    ready[v] = max(ready[v], now + step.stall)
        if position[w] == len(steps[w]):
            done[w] = int(now) + 1
            left.remove(w)
        last = w
        now += 1
    return done


def cycles_of_iteration(
    body: Sequence[Instruction], blocks: Sequence[int], target: Target
) -> float:
    """Steady-state cycles per iteration of a loop, with one warp of each block on the scheduler."""
    few, many = 2, 8
    start = [40 * b for b in blocks]
    first, last = (
        max(cycles([list(body) * iterations] * len(blocks), target, blocks, start))
        for iterations in (few, many)
    )
    return (last - first) / (many - few)


def cycles_of_blocks(traces: Sequence[Sequence[Instruction]], blocks: int, target: Target) -> float:
    """Steady-state cycles per block, with `blocks` concurrent ones whose warps run these traces.

    Blocks follow one another without a pause and out of step, as in the middle of a launch.
    """
    few, many = 2, 6
    ends = []
    for rounds in (few, many):
        all_traces, owner, start = [], [], []
        length = max(len(trace) for trace in traces)
        for b in range(blocks):
            for trace in traces:
                all_traces.append(list(trace) * rounds)
                owner.append(b)
                start.append(b * length)
        ends.append(max(cycles(all_traces, target, owner, start)))
    return (ends[1] - ends[0]) / (many - few)
