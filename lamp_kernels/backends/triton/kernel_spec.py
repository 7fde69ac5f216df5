"""A loss as the kernels take it: numbers and constants, computed once for each spec."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from lamp_kernels.backends.base import WINDOW_SIZES
from lamp_kernels.backends.triton import borders, formulas
from lamp_kernels.ops import FlatSpec
from lamp_kernels.spec import (
    AMPLIFICATIONS,
    COMBINED,
    GMS_WINDOW_SIZE,
    METRICS,
    PADDINGS,
    LossSpec,
    Metric,
)

MAX_RADIUS = WINDOW_SIZES[-1] // 2  # the kernels take as many taps
BORDERS = {
    "reflect": borders.REFLECT.value,
    "valid": borders.VALID.value,
    "zeros": borders.ZEROS.value,
}


GMS = 1 << METRICS.index("gms")


class KernelSpec(NamedTuple):
    """A checked `FlatSpec`, translated."""

    metrics: int  # bit m: the loss has the term METRICS[m]
    metric_parameters: tuple[float, ...]  # one per term; a new value compiles the kernels again
    terms: int
    scale: float  # 1/data_range
    c1: float
    c2: float
    ssim_scale: float
    border: int
    radius: int
    margin: int  # rows and columns on each side that have no SSIM, or no GMS
    smallest_side: int  # of an image, in pixels
    taps: tuple[float, ...]  # MAX_RADIUS + 1, by their distance from the center
    rows_to_follow: int
    amplification: str
    amplification_constants: tuple[float, float, float]

    @property
    def has_ssim(self) -> bool:
        """Whether SSIM is a term."""
        return self.metrics & 1 == 1

    @property
    def has_gms(self) -> bool:
        """Whether GMS is the term."""
        return self.metrics == GMS


@lru_cache(maxsize=256)
def kernel_spec(spec: FlatSpec) -> KernelSpec:
    """What the kernels take for this spec, or a RuntimeError if they cannot compute it."""
    names: list[Metric] = [metric for metric in COMBINED if metric in spec.metrics.split("+")]
    if spec.metrics == "gms":
        names = ["gms"]
    if not names or "+".join(names) != spec.metrics:
        raise RuntimeError(
            f"expected gms, or metrics among {'+'.join(COMBINED)}, got {spec.metrics!r}"
        )
    metrics = sum(1 << METRICS.index(metric) for metric in names)
    if len(spec.metric_parameters) != len(names):
        raise RuntimeError("expected a parameter for each metric")
    padding = next((known for known in PADDINGS if known == spec.padding), None)
    if padding is None:
        raise RuntimeError(f"padding must be one of {', '.join(PADDINGS)}, got {spec.padding!r}")
    options = AMPLIFICATIONS.get(spec.amplification)  # type: ignore[call-overload]
    if options is None or len(options) != len(spec.amplification_parameters):
        raise RuntimeError(
            "expected a known amplification and its parameters, "
            f"got {spec.amplification!r} and {spec.amplification_parameters}"
        )
    has_ssim = metrics & 1 == 1
    taps = spec.taps if has_ssim else (1.0,)
    window_size = 2 * len(taps) - 1
    if has_ssim and window_size not in WINDOW_SIZES:
        raise RuntimeError(f"expected taps for an odd window size from 3 to {WINDOW_SIZES[-1]}")
    has_window = has_ssim or metrics == GMS
    radius = GMS_WINDOW_SIZE // 2 if metrics == GMS else len(taps) - 1
    least = LossSpec(window_size=window_size, padding=padding).smallest_side(names[0])
    return KernelSpec(
        metrics=metrics,
        metric_parameters=spec.metric_parameters,
        terms=len(names),
        scale=1.0 / spec.data_range,
        c1=spec.k1**2,
        c2=spec.k2**2,
        ssim_scale=spec.ssim_scale,
        border=BORDERS[padding],
        radius=radius,
        margin=radius if padding == "valid" else 0,
        smallest_side=least if has_window else 0,
        taps=(*taps, *[0.0] * (MAX_RADIUS + 1 - len(taps))),
        rows_to_follow=rows_to_follow(taps),
        amplification=spec.amplification,
        amplification_constants=formulas.amplification_constants(
            spec.amplification, spec.amplification_parameters
        ),
    )


def rows_to_follow(taps: Sequence[float]) -> int:
    """How many rows on the new side of an edge move a lane's shift of s there.

    taps: by their distance from the center.

    At an edge along y, windows of both sides are in progress. A window that sees much of both sides
    has a large variance and loses no digits. For any other window the shift must be close to its
    values. So the shift moves with the row at whose end a window has seen at least 1/200 of the new
    side, before that row is added. The windows beyond the edge have not seen much by then, unless
    sigma is small for the window: csrc/cuda/moments.cuh gives the cost. The rule there moves the
    shift after a row, and so counts one row less.
    """
    rows, seen = 0, 0.0
    for tap in reversed(taps):
        rows, seen = rows + 1, seen + tap
        if seen >= 0.005:
            break
    return rows
