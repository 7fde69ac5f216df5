"""The machine's peak performance, measured: multiply-adds and bytes per second."""

import ctypes
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from suite.cases import Size
from suite.measure import Entry, digits, interleave, progress

SOURCE = Path(__file__).with_name("peak.c")
COPIED = 64 * 2**20  # floats, far more than fit in any cache
ROUNDS = 40_000_000  # about 50 ms, because torch's idle threads keep spinning for a while


def peak(size: Size) -> dict[str, float | str]:
    """Multiply-adds per second in registers and in a matrix product; bytes per second of a copy.

    Measured in float32, on as many threads as the contestants use, and taken at the p10 of the
    times: the speed of an undisturbed machine. Without a C compiler the peak is that of the matrix
    product alone, and "how" says so. A matrix product may stay far below the processor's peak:
    on some processors torch's uses half the vector width.
    """
    progress("peak of the machine")
    threads = torch.get_num_threads()
    side = size.matmul_side
    a, b = torch.rand(2, side, side).unbind()
    source = torch.rand(COPIED)
    destination = torch.empty_like(source).zero_()
    product = torch.empty(side, side)
    entries = [
        Entry({"what": "matmul"}, lambda: torch.mm(a, b, out=product)),
        Entry({"what": "copy"}, lambda: destination.copy_(source)),
    ]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(threads) as pool:
        library = _compiled(Path(folder))
        counts = [ctypes.c_double() for _ in range(threads)]
        if library is not None:

            def chains() -> None:  # ctypes releases the GIL, so the calls run in parallel
                list(pool.map(lambda count: library.chains(ROUNDS, ctypes.byref(count)), counts))

            entries.append(Entry({"what": "chains"}, chains))
        rows = interleave(entries, budget=5.0, min_rounds=5, max_rounds=20)
    seconds = {row["what"]: row["p10"] for row in rows}
    by_product = side**3 / seconds["matmul"]
    if library is None:
        highest = by_product
        how = f"torch's matrix product of side {side} (no C compiler found)"
    else:
        highest = sum(count.value for count in counts) / seconds["chains"]
        how = "chains of multiply-adds"
    return {
        "multiply_adds_per_s": digits(highest),
        "matrix_product_per_s": digits(by_product),
        "copy_bytes_per_s": digits(2 * 4 * COPIED / seconds["copy"]),
        "how": (
            f"float32, {threads} threads: {how}; "
            f"copy of {4 * COPIED // 2**20} MiB, counting bytes read and written"
        ),
    }


def _compiled(folder: Path) -> ctypes.CDLL | None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    library = folder / "peak.so"
    flags = ["-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", str(library), str(SOURCE)], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.chains.argtypes = [ctypes.c_long, ctypes.POINTER(ctypes.c_double)]
    loaded.chains.restype = ctypes.c_float
    return loaded
