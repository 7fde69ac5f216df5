"""Parses machine code as printed by cuobjdump: instructions and their kinds, loops, paths.

From sm_70 on, an instruction has 128 bits; bits 105 to 121 tell the scheduler how long to stall
after it and on which of six scoreboards to wait. NVIDIA does not document them; this layout was
found by Jia et al., "Dissecting the NVIDIA Volta GPU Architecture via Microbenchmarking" (2018).
"""

import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

_FUNCTION = re.compile(r"^\s*Function : (\S+)")
_FIRST = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;\s*/\*\s*0x([0-9a-f]{16})\s*\*/")
_SECOND = re.compile(r"^\s*/\*\s*0x([0-9a-f]{16})\s*\*/")
_GUARD = re.compile(r"^@!?U?P[T0-9]\s+")
_UNIFORM_BRANCH = re.compile(r"^BRA\.U\s+!?UP[0-9]")  # from sm_100 on, the guard follows
_TARGET = re.compile(r"0x([0-9a-f]+)")

NO_SCOREBOARD = 7

# The kinds of instructions, in the order of the tables.
KINDS = (
    "ffma",
    "fadd_fmul",
    "imad",
    "integer",
    "select",
    "move",
    "uniform",
    "mufu",
    "convert",
    "fp64",
    "lds",
    "sts",
    "ldg",
    "stg",
    "copy",
    "constant",
    "control",
)


@dataclass(frozen=True)
class Instruction:
    """One instruction with its scheduling control bits."""

    address: int
    text: str
    stall: int = 1  # cycles until the warp's next instruction
    write: int = NO_SCOREBOARD  # scoreboard that is set until the result is available
    read: int = NO_SCOREBOARD  # scoreboard that is set until the operands are read
    wait: int = 0  # bit mask of scoreboards that must be clear before it starts

    @property
    def operation(self) -> str:
        """The mnemonic with its suffixes, without a guard."""
        return _GUARD.sub("", self.text).split()[0].rstrip(",")

    @property
    def name(self) -> str:
        """The mnemonic without suffixes."""
        return self.operation.split(".")[0]

    @property
    def kind(self) -> str:
        """One of KINDS."""
        return _kind(self.name, self.operation, self.text)

    @property
    def unconditional(self) -> bool:
        """Whether it has no guard."""
        return not (_GUARD.match(self.text) or _UNIFORM_BRANCH.match(self.text))

    @property
    def target(self) -> int | None:
        """The address that a branch jumps to."""
        found = _TARGET.search(self.text) if self.name == "BRA" else None
        return int(found[1], 16) if found else None

    @property
    def goes_to(self) -> int | None:
        """The target of a branch or call; nvcc also leaves loops by calls that do not return."""
        found = _TARGET.search(self.text) if self.name in ("BRA", "CALL") else None
        return int(found[1], 16) if found else None

    @property
    def bytes(self) -> int:
        """Bytes that a load or store accesses per thread."""
        parts = self.operation.split(".")
        return 16 if "128" in parts else 8 if "64" in parts else 4


def _kind(name: str, operation: str, text: str) -> str:
    if name in ("FFMA", "FFMA2", "FFMA32I"):
        return "ffma"
    if name in ("FADD", "FMUL", "FADD2", "FMUL2", "FADD32I", "FMUL32I"):
        return "fadd_fmul"
    # The compiler moves constants and registers with any free unit, including arithmetic ones.
    if name in ("MOV", "MOV32I", "CS2R") or operation.startswith("IMAD.MOV"):
        return "move"
    if name.startswith("HFMA2") and "-RZ, RZ" in text:
        return "move"
    for kind, names in _NAMES.items():
        if name in names:
            return kind
    if name in ("F2F", "F2I", "I2F"):
        return "fp64" if "F64" in operation else "convert"
    return "uniform" if name.startswith("U") else "integer"


_NAMES = {
    "imad": {"IMAD"},
    "select": {"FSEL", "FSETP", "FSET", "FMNMX", "FMNMX3", "FCHK"},
    "mufu": {"MUFU"},
    "fp64": {"DADD", "DMUL", "DFMA", "DSETP", "DMNMX"},
    "lds": {"LDS"},
    "sts": {"STS"},
    "ldg": {"LDG"},
    "stg": {"STG"},
    "copy": {"LDGSTS"},  # from device to shared memory
    "constant": {"LDC", "ULDC", "LDCU"},
    "control": {
        *("BRA", "BSSY", "BSYNC", "BREAK", "BAR", "EXIT", "NOP", "CALL", "RET", "WARPSYNC"),
        *("YIELD", "DEPBAR", "LDGDEPBAR", "BMOV", "BRX", "JMP", "ACQBULK"),
    },
}


def parse(text: str) -> dict[str, list[Instruction]]:
    """Parse the output of `cuobjdump -sass`: the instructions of each function by mangled name."""
    functions: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    lines = text.splitlines()
    for i, line in enumerate(lines):
        if found := _FUNCTION.match(line):
            current = functions.setdefault(found[1], [])
        elif found := _FIRST.match(line):
            second = _SECOND.match(lines[i + 1]) if i + 1 < len(lines) else None
            if second is None:
                raise ValueError(f"the second half of an instruction is missing: {line.strip()}")
            bits = int(second[1], 16) >> 41
            current.append(
                Instruction(
                    address=int(found[1], 16),
                    text=found[2],
                    stall=bits & 15,
                    write=bits >> 5 & 7,
                    read=bits >> 8 & 7,
                    wait=bits >> 11 & 63,
                )
            )
    return functions


def loops(code: Sequence[Instruction]) -> list[list[Instruction]]:
    """The loop bodies in order, each from the target of a backward branch to that branch."""
    found = []
    for branch in code:
        target = branch.target
        # A branch to itself is padding after a function's end.
        if target is not None and target < branch.address:
            found.append([i for i in code if target <= i.address <= branch.address])
    return found


def _ends_block(i: Instruction) -> bool:
    return i.unconditional and i.name in ("BRA", "BRX", "EXIT")


def _successors(code: Sequence[Instruction]) -> list[list[int]]:
    """The possible successors of each instruction; those of a branch by table are unknown."""
    place = {i.address: k for k, i in enumerate(code)}
    found = []
    for k, i in enumerate(code):
        ways = [k + 1] if k + 1 < len(code) and not _ends_block(i) else []
        if i.goes_to in place:
            ways.append(place[i.goes_to])
        found.append(ways)
    return found


def longest_path(
    code: Sequence[Instruction],
    start: int = 0,
    ends: Callable[[Instruction], bool] | None = None,
) -> list[Instruction]:
    """The longest path from an instruction to the last one, or to one for which `ends` is true.

    Passes through each loop once. Includes whatever a warp may skip, such as the pixels that only
    the first warps of a block read, or the logarithm, but never two mutually exclusive branches.
    """
    follow = _successors(code)
    last = len(code) - 1
    length = [0] * len(code)
    after: list[int | None] = [None] * len(code)
    opened, done = {start}, set()
    stack = [start]
    while stack:
        k = stack[-1]
        # Instructions that are open but not done lie behind a backward edge.
        ahead = next((one for one in follow[k] if one not in opened), None)
        if ahead is not None:
            opened.add(ahead)
            stack.append(ahead)
            continue
        stack.pop()
        done.add(k)
        ways = [way for way in follow[k] if way in done and length[way]]
        if ways:
            way = max(ways, key=lambda one: length[one])
            after[k], length[k] = way, 1 + length[way]
        if (ends(code[k]) if ends else k == last) and not length[k]:
            length[k] = 1
    if not length[start]:
        raise ValueError("no path leads from the first instruction to an end")
    path: list[Instruction] = []
    at: int | None = start
    while at is not None:
        path.append(code[at])
        at = after[at]
    return path


def shortest_path(
    code: Sequence[Instruction],
    start: int = 0,
    ends: Callable[[Instruction], bool] | None = None,
) -> list[Instruction]:
    """The shortest such path, without anything that a warp may skip."""
    follow = _successors(code)
    last = len(code) - 1
    before: dict[int, int | None] = {start: None}
    reached = deque([start])
    while reached:
        at = reached.popleft()
        if ends(code[at]) if ends else at == last:
            path = []
            step: int | None = at
            while step is not None:
                path.append(code[step])
                step = before[step]
            return path[::-1]
        for way in follow[at]:
            if way not in before:
                before[way] = at
                reached.append(way)
    raise ValueError("no path leads from the first instruction to an end")


def until_exit(code: Sequence[Instruction]) -> list[Instruction]:
    """The code up to the point where all threads have exited; after it come rare subroutines."""
    for i, instruction in enumerate(code):
        if instruction.name == "EXIT" and instruction.unconditional:
            return list(code[: i + 1])
    return list(code)


def without_calls(code: Sequence[Instruction]) -> list[Instruction]:
    """Drop short sections that call a subroutine, such as the slow path of a division."""
    skipped: set[int] = set()
    for i, branch in enumerate(code):
        target = branch.target
        if target is None or target <= branch.address or branch.unconditional:
            continue
        inside = [j for j in code[i + 1 :] if j.address < target]
        if any(j.name == "CALL" for j in inside) and len(inside) < 8:
            skipped.update(j.address for j in inside)
    return [i for i in code if i.address not in skipped]


def unrolled(code: Sequence[Instruction], iterations: Sequence[int]) -> list[Instruction]:
    """What a warp executes with the given iterations of each loop; the loops must not be nested."""
    bodies = loops(code)
    if len(bodies) != len(iterations):
        raise ValueError(f"iterations must cover {len(bodies)} loops, got {len(iterations)}")
    executed: list[Instruction] = []
    at = code[0].address if code else 0
    for body, times in zip(bodies, iterations, strict=True):
        executed += [i for i in code if at <= i.address < body[0].address]
        executed += body * times
        at = body[-1].address + 1
    return executed + [i for i in code if i.address >= at]


@dataclass(frozen=True)
class Counts:
    """Instructions of each kind, 128-byte shared memory accesses, and bytes of global memory."""

    kinds: dict[str, float]
    shared_wavefronts: float  # per warp; each takes the shared memory one cycle
    global_bytes: float  # per thread

    @property
    def instructions(self) -> float:
        """The number of all instructions."""
        return sum(self.kinds.values())

    @property
    def multiply_adds(self) -> float:
        """float32 multiplications, additions and fused multiply-adds."""
        return self.kinds.get("ffma", 0) + self.kinds.get("fadd_fmul", 0)

    def as_row(self) -> dict[str, float]:
        """All counts as plain values for JSON."""
        return {
            **self.kinds,
            "instructions": self.instructions,
            "multiply_adds": self.multiply_adds,
            "shared_wavefronts": self.shared_wavefronts,
            "global_bytes": self.global_bytes,
        }

    def __add__(self, other: "Counts") -> "Counts":
        kinds = {k: self.kinds.get(k, 0) + other.kinds.get(k, 0) for k in KINDS}
        return Counts(
            kinds,
            self.shared_wavefronts + other.shared_wavefronts,
            self.global_bytes + other.global_bytes,
        )

    def __mul__(self, factor: float) -> "Counts":
        kinds = {k: factor * n for k, n in self.kinds.items()}
        return Counts(kinds, factor * self.shared_wavefronts, factor * self.global_bytes)


def count(code: Iterable[Instruction]) -> Counts:
    """Count one pass through the code; a packed pair of operations (FFMA2) counts as two."""
    kinds: Counter[str] = Counter()
    wavefronts = moved = 0
    for i in code:
        kinds[i.kind] += 2 if i.name in ("FFMA2", "FADD2", "FMUL2") else 1
        if i.kind in ("lds", "sts", "copy"):
            wavefronts += i.bytes * 32 // 128
        if i.kind in ("ldg", "stg", "copy"):
            moved += i.bytes
    return Counts({k: float(kinds.get(k, 0)) for k in KINDS}, float(wavefronts), float(moved))
