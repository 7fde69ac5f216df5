"""How near this library comes to what the machine can do, by counts of its one-pass kernel.

SSIM with its gradient for one image, per element (a pixel of a channel), window 11:
- Multiply-adds: 14 convolutions of a plane along one axis (4 planes to statistics and 3 planes
  back, each along x and along y) of 11 taps make 154; the pointwise formulas, with log and
  divisions, about 60 operations more, each counted as one.
- Bytes: two float32 images read, one gradient written, 12.
Symmetric taps and halos at tile borders are not in the count: the first need fewer multiplies
for the same additions, the second is work done twice.
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
    """Share of the measured peaks that a forward + backward reaches, by shape."""
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
