"""Score image files with a threshold: decisions and overlays, alone or shared among processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uad.data.base import DataError
from uad.data.fit import restore
from uad.data.images import display
from uad.detector import Detector, NamedFile, Result
from uad.distributed import Processes
from uad.figures import MAP_LIMIT
from uad.scoring.overlay import overlay, overlay_name, resize_picture
from uad.scoring.table import ERROR, Row
from uad.threshold import Threshold, normal_images
from uad.wording import asked_percent, percent

TABLE, REPORT, OVERLAYS = "scores.csv", "report.html", "overlays"

FULL_SCALE = 2.0
"""The color scale of overlays ends at this multiple of the threshold."""


@dataclass(frozen=True, eq=False)
class Judge:
    """Decides about images and draws their overlays."""

    detector: Detector
    limit: Threshold | None
    """None for scores without decisions."""
    full: float
    """The map value at the upper end of the color scale."""
    folder: Path

    @property
    def threshold(self) -> float | None:
        """The score above which an image is anomalous."""
        return None if self.limit is None else self.limit.value

    def judge(self, files: Sequence[NamedFile]) -> list[Row]:
        """Score a batch of images and write their overlays."""
        return [self._judge(result) for result in self.detector.score_batch(files)]

    def _judge(self, result: Result) -> Row:
        if result.map is None:
            return Row.of(result, self.threshold)
        preparation = self.detector.preparation
        try:
            picture = resize_picture(display(result.path, preparation))
        except (DataError, OSError) as error:  # deleted or replaced since it was scored
            reason = str(error).removeprefix(f"{result.path}: ")
            return Row(result.name, None, self.threshold, ERROR, reason)
        values = restore(result.map, preparation, picture.size)
        drawn = overlay(picture, values, self.full, self.threshold)
        drawn.save(self.folder / OVERLAYS / overlay_name(result.name), quality=90, subsampling=0)
        return Row.of(result, self.threshold)


def full_scale(limit: Threshold | None, detector: Detector, files: Sequence[NamedFile]) -> float:
    """Where the color scale ends: at twice the threshold, or else at a percentile of some maps.

    files: the images whose maps count without a threshold.
    """
    if limit is not None:
        return FULL_SCALE * limit.value or 1.0
    maps = [result.map.numpy() for result in detector.score_batch(files) if result.map is not None]
    # Any positive number suits maps that are zero, and images that cannot be scored.
    return float(np.percentile(maps, MAP_LIMIT)) or 1.0 if maps else 1.0


def share(
    files: Sequence[NamedFile],
    work: Callable[[Sequence[NamedFile]], list[Row]],
    batch_size: int,
    team: Processes,
) -> Iterator[list[Row]]:
    """The rows of all files in order, some at a time, the same in every process.

    In each round every process works on one batch. The batches are the same for any number of
    processes, so the scores are too.
    """
    for start in range(0, len(files), batch_size * team.count):
        mine = start + batch_size * team.rank
        parts = team.gather(work(files[mine : mine + batch_size]))
        yield [row for part in parts for row in part]


def describe_threshold(limit: Threshold, source: str) -> str:
    """The threshold, where it comes from and what it promises, in one sentence."""
    return (
        f"{limit.value:.4g}, from {limit.count} normal images ({source}); expected false-positive "
        f"rate {percent(limit.rate)}, 95% interval {percent(limit.low)} to {percent(limit.high)}"
    )


def describe_missed_rate(limit: Threshold) -> str:
    """What to say if there are too few normal images for the rate asked for."""
    return (
        f"a false-positive rate of {asked_percent(limit.asked)} requires at least "
        f"{normal_images(limit.asked)} normal images, got {limit.count}: using "
        f"{percent(limit.rate)}, the lowest rate that they allow"
    )
