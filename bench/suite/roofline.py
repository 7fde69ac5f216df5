"""How close this library comes to the machine's peak, from the operation counts of its kernel.

SSIM with the gradient for one image, per element (one pixel of one channel), window 11:
- Multiply-adds: 14 one-dimensional convolutions of a plane (4 planes for the statistics and 3 for
  the gradient, each along x and along y) with 11 taps make 154. The pointwise formulas, including
  log and divisions, add about 60 operations, each counted as one.
- Bytes: two float32 images read, one gradient written, 12.
The counts ignore symmetric taps, which save multiplications but no additions, and the halos at
tile borders, which are computed twice.
"""

from collections.abc import Sequence

from suite.contestants import NATIVE, REFERENCE
from suite.measure import Row, digits
from suite.speed import BOTH

CONVOLUTIONS = 14
TAPS = 11
POINTWISE = 60
OPERATIONS = CONVOLUTIONS * TAPS + POINTWISE
BYTES = 12


def roofline(speed: Sequence[Row], peak: dict[str, float | str]) -> list[Row]:
    """Rows with the shares of the measured peaks that forward + backward reaches, by shape."""
    rows: list[Row] = []
    for row in speed:
        if row["contestant"] not in (NATIVE, REFERENCE) or row["pass"] != BOTH or "p50" not in row:
            continue
        per_second = row["elements"] / row["p50"]
        arithmetic = per_second * OPERATIONS
        traffic = per_second * BYTES
        rows.append(
            {
                "contestant": row["contestant"],
                "shape": row["shape"],
                "operations_per_element": OPERATIONS,
                "bytes_per_element": BYTES,
                "operations_per_s": digits(arithmetic),
                "bytes_per_s": digits(traffic),
                "share_of_arithmetic": digits(arithmetic / float(peak["multiply_adds_per_s"]), 3),
                "share_of_bandwidth": digits(traffic / float(peak["copy_bytes_per_s"]), 3),
            }
        )
    return rows
