"""The sources that the figures describe: digests, a copy of CUDA's, and the constants in it."""

import ast
import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from checkout import BENCH, ROOT

CSRC = ROOT / "csrc"
TRITON = ROOT / "lamp_kernels" / "backends" / "triton"
TWO_KERNEL = BENCH / "two_kernel.cu"

_INCLUDE = re.compile(r'^#include "(.+)"', re.MULTILINE)
# C++ tokens, longest first. Strings and comments come first: each may contain the other's marks.
_TOKEN = re.compile(
    r"""
    (?P<comment> //[^\n]* | /\*.*?\*/ )
  | (?P<newline> \n )
  | (?P<space>   \s )
  | (?P<token>
        (?:u8|[uUL])?R"(?P<mark>[^()\\\s]*)\(.*?\)(?P=mark)"
      | (?:u8|[uUL])?"(?:\\.|[^"\\\n])*"
      | (?:u8|[uUL])?'(?:\\.|[^'\\\n])+'
      | \.?\d(?:[eEpP][+-]|'?[\w.])*
      | (?<=define\ )[A-Za-z_]\w*\(
      | [A-Za-z_]\w*
      | <=>|<<=|>>=|\.\.\.|->\*|\+\+|--|->|<<|>>|&&|\|\||::|\#\#|[-+*/%&|^<>=!]=
      | .
    )
    """,
    re.VERBOSE | re.DOTALL,
)


def snapshot(folder: Path) -> Path:
    """Copy the kernels' sources, so that edits made meanwhile reach no figure."""
    copy = folder / "csrc"
    shutil.copytree(CSRC, copy)
    shutil.copy(TWO_KERNEL, folder)
    return copy


def digest(folder: Path) -> str:
    """A digest of the code in a snapshot that the kernels are compiled from; ignores comments."""
    found = hashlib.sha256()
    cuda = folder / "csrc" / "cuda"
    todo = [cuda / "variants.cuh", cuda / "plan.cu", folder / TWO_KERNEL.name]
    files: dict[Path, str] = {}
    while todo:
        path = todo.pop().resolve()
        if path not in files:
            files[path] = path.read_text("utf-8")
            todo += [path.parent / name for name in _INCLUDE.findall(files[path])]
    for path in sorted(files):
        found.update(code_of(files[path]).encode())
    return found.hexdigest()[:16]


def triton_digest(folder: Path = TRITON) -> str:
    """A digest of the Triton kernels, constants and tilings; ignores comments and docstrings."""
    found = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if path.name == "tiling.py":
            compiled: list[ast.AST] = [tree]
        else:
            constants = (ast.Assign, ast.AnnAssign)
            compiled = [n for n in tree.body if _is_kernel(n) or isinstance(n, constants)]
        for part in compiled:
            for node in ast.walk(part):
                if not isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
                    continue
                if ast.get_docstring(node) is not None:
                    del node.body[0]
            found.update(ast.unparse(part).encode())
    return found.hexdigest()[:16]


def _is_kernel(node: ast.AST) -> bool:
    """Whether Triton compiles this function."""
    return isinstance(node, ast.FunctionDef) and any(
        ast.unparse(decorator).split("(")[0] in ("triton.jit", "kernel")
        for decorator in node.decorator_list
    )


def code_of(text: str) -> str:
    """The tokens of C++ source, separated by spaces, with each preprocessor directive on a line.

    Texts that differ only in comments, white space and line breaks have the same code. A line break
    counts only where it ends a directive.
    """
    return "".join(_tokens(text.replace("\\\n", "")))


def _tokens(text: str) -> Iterator[str]:
    starts_line, in_directive = True, False
    for found in _TOKEN.finditer(text):
        if found.lastgroup == "newline":
            if in_directive:
                yield "\n"
            starts_line, in_directive = True, False
        elif found["token"] is not None:
            if starts_line and found["token"] == "#":
                in_directive = True
                yield "\n"
            starts_line = False
            yield found["token"] + " "


def constant(header: str | Path, name: str) -> float:
    """The value of a constant that a header of csrc/cuda, or another file, defines."""
    path = CSRC / "cuda" / header
    found = re.search(rf"\b{name} = ([\d.]+(?:e[+-]?\d+)?)", path.read_text(encoding="utf-8"))
    if found is None:
        raise ValueError(f"{path.relative_to(ROOT)} defines no {name}")
    return float(found[1])


def batch_sum_reads(tiles: int) -> int:
    """How often a thread that sums a batch waits for memory, reading four sums at a time."""
    names = ("kBatchThreads", "kMostBatchThreads", "kManyTiles")
    few, most, many = (int(constant("sums.h", name)) for name in names)
    return -(-tiles // (4 * (most if tiles > many else few)))
