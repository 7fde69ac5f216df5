"""What a block of a streaming kernel executes for its tile, the common way, found in machine code.

A tile is walked through row by row, in loops that follow one another: until windows are full there
is no result to compute. Around each is a loop, of which a turn ends where rows are mirrored, and
for the losses where their sums are taken to float64.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from static_analysis.build import GRADIENTS_KERNEL
from static_analysis.devices import Target
from static_analysis.sass import Instruction, longest_path, loops, shortest_path
from static_analysis.schedule import cycles, cycles_of_turn
from static_analysis.sources import constant


@dataclass(frozen=True)
class TileCode:
    """Instructions of one warp.

    before: from the kernel's start to the first row, once through each loop.
    loops_before: of these loops, the shortest turn of each.
    full, warming: of a turn of a loop over rows, with and without a result; as a rule a row.
    across: from the last row that warms up to the first one with a result, in one run of rows.
    between, between_in_run: of a turn of the loop around the rows with a result, beside the rows:
        with a new run of rows, and without.
    after: behind the last row.
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
        """Of a kernel's machine code."""
        # Losses take reciprocals, gradients are written.
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
        # The gradients' last rows fetch nothing more. They have been taken for full ones, and
        # nothing comes after them.
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

    def beside_rows(self, full_rows: int, columns: int, warps: int) -> list[Instruction]:
        """All that a tile takes beside its rows; columns: of the tile, for each thread."""
        trace = list(self.before)
        for turn in self.loops_before:
            trace += turn * (self._turns(turn, columns, warps) - 1)
        # A turn with a new run at the edge of the image. Losses: one every so many rows; the
        # gradients: one for the rows that fetch nothing.
        few = 1
        if self.kernel != GRADIENTS_KERNEL:
            few = -(-full_rows // int(constant("device.cuh", "kFlushEvery"))) - 1
        return [*trace, *self.across, *self.between, *self.between_in_run * few, *self.after]

    def _turns(self, turn: Sequence[Instruction], columns: int, warps: int) -> int:
        """Of a loop before the rows."""
        if self.kernel == GRADIENTS_KERNEL:
            ahead = any(i.kind in ("copy", "ldg") for i in turn)
            return int(constant("ssim_gradients.cuh", "kAhead")) if ahead else 1
        if any(i.kind == "ldg" for i in turn):
            return columns  # the shifts
        if any(i.kind == "lds" for i in turn):
            return max(warps - 1, 1)  # sums of a block
        return 1

    def cycles_beside_rows(
        self,
        full_rows: int,
        columns: int,
        warps: int,
        owners: Sequence[int],
        target: Target,
    ) -> float:
        """Of that, with one warp of each of the blocks named on a scheduler."""
        trace = self.beside_rows(full_rows, columns, warps)
        return float(max(cycles([trace] * len(owners), target, owners)))


def _behind(code: Sequence[Instruction], loop: Sequence[Instruction]) -> list[Instruction]:
    """The longest way from a loop to where threads leave."""
    outside = [i for i in code if not loop[0].address <= i.address <= loop[-1].address]
    place = {i.address: k for k, i in enumerate(outside)}
    starts = {place[i.goes_to] for i in loop if i.goes_to in place}
    if not loop[-1].unconditional:
        starts.add(next(k for k, i in enumerate(outside) if i.address > loop[-1].address))
    ways = (longest_path(outside, start, lambda i: i.name == "EXIT") for start in starts)
    return max(ways, key=len)


def rows_of(turn: Sequence[Instruction]) -> int:
    """Of a turn of a loop over rows: it has a barrier for each."""
    return sum(i.name == "BAR" for i in turn)


def cycles_of_row(turn: Sequence[Instruction], owners: Sequence[int], target: Target) -> float:
    """In the long run, with one warp of each of the blocks named on a scheduler."""
    return cycles_of_turn(turn, owners, target) / rows_of(turn)


def row_loops(code: Sequence[Instruction]) -> list[list[Instruction]]:
    """The innermost loops with a barrier in them."""
    bodies = [body for body in loops(code) if any(i.name == "BAR" for i in body)]

    def within(one: Sequence[Instruction], other: Sequence[Instruction]) -> bool:
        inside = one[0].address >= other[0].address and one[-1].address <= other[-1].address
        return inside and len(one) < len(other)

    inner = [body for body in bodies if not any(within(one, body) for one in bodies)]
    if not inner:
        raise ValueError("no loop holds a barrier")
    return inner


def common_rows(
    code: Sequence[Instruction], result: str
) -> tuple[list[Instruction], list[Instruction]]:
    """What a warp executes for rows the common way: of a full loop, and of the one that warms up.

    Of the loops over rows that read and whose way has an instruction of the kind `result`, the one
    with the shortest for a row; and of those without, that with the shortest which reads as much.
    Rows at the end, for which nothing is read any more, are taken for full ones.
    """
    bodies = row_loops(code)
    # A table has the types of images: not the common way.
    bodies = [body for body in bodies if all(i.name != "BRX" for i in body)]
    ways = sorted((longest_path(body) for body in bodies), key=lambda way: len(way) / rows_of(way))

    def has_result(way: Sequence[Instruction]) -> bool:
        return any(i.kind == result for i in way)

    def reads(way: Sequence[Instruction]) -> float:
        return sum(i.kind in ("ldg", "copy") for i in way) / rows_of(way)

    full = next((way for way in ways if has_result(way) and reads(way)), None)
    if full is None:
        raise ValueError(f"no loop over rows reads and has {result}")
    for way in ways:
        if not has_result(way) and reads(way) == reads(full):
            return full, way
    raise ValueError(f"no loop over rows is without {result} and reads as much as the full one")
