"""What a block of a streaming kernel executes for its tile, the common way, found in machine code.

A tile is walked through row by row, in two loops that follow one another: until windows are full
there is no result to compute. Around each is a loop whose turns end where something changes that
holds for many rows: which way rows of pixels follow one another, or the levels of the rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gpu.build import GRADIENTS_KERNEL
from gpu.devices import Target
from gpu.sass import Instruction, longest_path, loops
from gpu.schedule import cycles, cycles_of_turn


@dataclass(frozen=True)
class TileCode:
    """Instructions of one warp, the longest ways.

    full, warming: of a turn of a loop over rows, with and without a result; as a rule a row.
    before: from the kernel's start to the first row, with a turn of the loop around.
    between: of a turn of the loop around, beside the rows.
    after: behind the last row.
    """

    before: list[Instruction]
    warming: list[Instruction]
    between: list[Instruction]
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
        # The gradients' last rows fetch nothing more. They have been taken for full ones, and
        # nothing comes after them.
        after: list[Instruction] = []
        if kernel != GRADIENTS_KERNEL:
            after = _behind(code, around)
        return cls(
            before=longest_path(code, 0, lambda i: i.address == warming[0].address)[:-1],
            warming=warming,
            between=[i for i in longest_path(around) if not first <= i.address <= last],
            full=full,
            after=after,
        )

    def cycles_beside_rows(self, turns: int, owners: Sequence[int], target: Target) -> float:
        """Of a tile, with one warp of each of the blocks named on a scheduler.

        turns: of the loop around the rows, beside the first.
        """
        trace = [*self.before, *self.between * turns, *self.after]
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
    """What a warp executes for a row the common way: of a full loop, and of the one that warms up.

    Of the loops over rows that read and whose way has an instruction of the kind `result`, the one
    with the shortest; and of those without, that with the shortest which reads as much. Rows at the
    end, for which nothing is read any more, are taken for full ones.
    """
    bodies = row_loops(code)
    # A table has the types of images: not the common way.
    bodies = [body for body in bodies if all(i.name != "BRX" for i in body)]
    ways = sorted((longest_path(body) for body in bodies), key=len)

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
