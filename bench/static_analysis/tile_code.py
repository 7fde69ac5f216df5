"""Finds the common path of a streaming kernel in its machine code: what a block runs for its tile.

A block processes its tile row by row, in consecutive loops: until the windows are full, there is no
result to compute. Each is nested in an outer loop; an iteration of that ends where rows are
mirrored and, for the losses, where the sums are added up in float64.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from static_analysis.build import GRADIENTS_KERNEL
from static_analysis.devices import Target
from static_analysis.sass import Instruction, longest_path, loops, shortest_path
from static_analysis.schedule import cycles, cycles_of_iteration
from static_analysis.sources import constant


@dataclass(frozen=True)
class TileCode:
    """Instructions of one warp.

    before: from the start of the kernel to the first row, passing through each loop once.
    loops_before: the shortest iteration of each of these loops.
    full, warming: one iteration of the loop over rows with a result, and of the loop over warm-up
        rows without one; usually a single row.
    across: from the last warm-up row to the first row with a result, within one run of rows.
    between, between_in_run: one iteration of the loop around the rows with a result, without the
        rows: with a new run of rows, and within a run.
    after: after the last row.
    """

    kernel: str
    before: list[Instruction]
    loops_before: list[list[Instruction]]
    warming: list[Instruction]
    across: list[Instruction]
    between: list[Instruction]
    between_in_run: list[Instruction]
    full: list[Instruction]
    after: list[Instruction]

    @classmethod
    def of(cls, kernel: str, code: Sequence[Instruction]) -> "TileCode":
        """Find the parts in a kernel's machine code."""
        # Rows with a result take reciprocals (losses) or write (gradients).
        full, warming = common_rows(code, "stg" if kernel == GRADIENTS_KERNEL else "mufu")
        first, last = full[0].address, full[-1].address
        around = min(
            (
                body
                for body in loops(code)
                if body[0].address <= first and body[-1].address >= last and len(body) > len(full)
                if any(i.address < first or i.address > last for i in body)
            ),
            key=len,
        )

        def without_rows(path: Iterable[Instruction]) -> list[Instruction]:
            return [i for i in path if not first <= i.address <= last]

        before = longest_path(code, 0, lambda i: i.address == warming[0].address)[:-1]
        on_way = {i.address for i in before}
        loops_before = [
            shortest_path(body)
            for body in loops(code)
            if body[0].address in on_way and body[-1].address in on_way
        ]
        # The last rows of the gradients fetch nothing. They count as full rows, and nothing follows
        # them.
        after: list[Instruction] = []
        if kernel != GRADIENTS_KERNEL:
            after = _behind(code, around)
        place = {i.address: k for k, i in enumerate(code)}
        across = shortest_path(code, place[warming[-1].address], lambda i: i.address == first)
        return cls(
            kernel,
            before=before,
            loops_before=loops_before,
            warming=warming,
            across=across[1:-1],
            between=without_rows(longest_path(around)),
            between_in_run=without_rows(shortest_path(around)),
            full=full,
            after=after,
        )

    def outside_rows(self, full_rows: int, columns: int, warps: int) -> list[Instruction]:
        """All instructions of a tile outside its rows. columns: of the tile, per thread."""
        trace = list(self.before)
        for iteration in self.loops_before:
            trace += iteration * (self._iterations(iteration, columns, warps) - 1)
        # One iteration starts a new run at the edge of the image. In addition, the losses have one
        # iteration per kFlushEvery rows, and the gradients have one for the rows that fetch nothing.
        few = 1
        if self.kernel != GRADIENTS_KERNEL:
            few = -(-full_rows // int(constant("device.cuh", "kFlushEvery"))) - 1
        return [*trace, *self.across, *self.between, *self.between_in_run * few, *self.after]

    def _iterations(self, iteration: Sequence[Instruction], columns: int, warps: int) -> int:
        """Iterations of a loop before the rows."""
        if self.kernel == GRADIENTS_KERNEL:
            ahead = any(i.kind in ("copy", "ldg") for i in iteration)
            return int(constant("ssim_gradients.cuh", "kAhead")) if ahead else 1
        if any(i.kind == "ldg" for i in iteration):
            return columns  # the centers
        if any(i.kind == "lds" for i in iteration):
            return max(warps - 1, 1)  # the sums of a block
        return 1

    def cycles_outside_rows(
        self,
        full_rows: int,
        columns: int,
        warps: int,
        owners: Sequence[int],
        target: Target,
    ) -> float:
        """Cycles of `outside_rows`, with one warp of each block on the scheduler."""
        trace = self.outside_rows(full_rows, columns, warps)
        return float(max(cycles([trace] * len(owners), target, owners)))


def _behind(code: Sequence[Instruction], loop: Sequence[Instruction]) -> list[Instruction]:
    """The longest path from a loop to where threads exit."""
    outside = [i for i in code if not loop[0].address <= i.address <= loop[-1].address]
    place = {i.address: k for k, i in enumerate(outside)}
    starts = {place[i.goes_to] for i in loop if i.goes_to in place}
    if not loop[-1].unconditional:
        starts.add(next(k for k, i in enumerate(outside) if i.address > loop[-1].address))
    ways = (longest_path(outside, start, lambda i: i.name == "EXIT") for start in starts)
    return max(ways, key=len)


def rows_of(iteration: Sequence[Instruction]) -> int:
    """The rows in one iteration of a loop over rows, which has a barrier per row."""
    return sum(i.name == "BAR" for i in iteration)


def cycles_of_row(iteration: Sequence[Instruction], owners: Sequence[int], target: Target) -> float:
    """Steady-state cycles per row, with one warp of each block on the scheduler."""
    return cycles_of_iteration(iteration, owners, target) / rows_of(iteration)


def row_loops(code: Sequence[Instruction]) -> list[list[Instruction]]:
    """The innermost loops that contain a barrier."""
    bodies = [body for body in loops(code) if any(i.name == "BAR" for i in body)]

    def within(one: Sequence[Instruction], other: Sequence[Instruction]) -> bool:
        inside = one[0].address >= other[0].address and one[-1].address <= other[-1].address
        return inside and len(one) < len(other)

    inner = [body for body in bodies if not any(within(one, body) for one in bodies)]
    if not inner:
        raise ValueError("no loop contains a barrier")
    return inner


def common_rows(
    code: Sequence[Instruction], result: str
) -> tuple[list[Instruction], list[Instruction]]:
    """The common paths of a warp through the loop over full rows and the loop over warm-up rows.

    Candidates for the first are loops over rows that load and contain an instruction of the kind
    `result`; candidates for the second lack it and load as much per row. The path with the fewest
    instructions per row is taken. Rows at the end, which load nothing, count as full rows.
    """
    bodies = row_loops(code)
    # Branches by table select the dtype of the images: not the common path.
    bodies = [body for body in bodies if all(i.name != "BRX" for i in body)]
    ways = sorted((longest_path(body) for body in bodies), key=lambda way: len(way) / rows_of(way))

    def has_result(way: Sequence[Instruction]) -> bool:
        return any(i.kind == result for i in way)

    def reads(way: Sequence[Instruction]) -> float:
        return sum(i.kind in ("ldg", "copy") for i in way) / rows_of(way)

    full = next((way for way in ways if has_result(way) and reads(way)), None)
    if full is None:
        raise ValueError(f"no loop over rows both loads and has {result}")
    for way in ways:
        if not has_result(way) and reads(way) == reads(full):
            return full, way
    raise ValueError(f"no loop over rows lacks {result} and loads as much as the full one")
