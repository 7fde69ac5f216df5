"""Score image files with a threshold: decisions and overlays, alone or shared among processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from uad.data.base import DataError
from uad.data.fit import restore
from uad.data.images import prepare_and_display
from uad.detector import Detector, NamedFile, Result, reason
from uad.distributed import Processes
from uad.figures import MAP_LIMIT
from uad.overlay import full_scale, overlay, overlay_name, resize_picture
from uad.scoring.stamp import Stamp, stamp_of
from uad.scoring.table import Row
from uad.threads import in_threads
from uad.threshold import Threshold

TABLE, REPORT, OVERLAYS = "scores.csv", "report.html", "overlays"


@dataclass(frozen=True)
class Reading:
    """What is needed of an image file, which is read once."""

    stamp: Stamp | None
    image: Tensor | str
    """The prepared image, or why there is none."""
    picture: Image.Image | None
    """To draw the overlay on, in the overlay's size."""


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
        readings = in_threads(self._read, files)
        results = self.detector.results(files, [reading.image for reading in readings])
        return in_threads(self._row, list(zip(results, readings, strict=True)))

    def _read(self, file: NamedFile) -> Reading:
        path, _ = file
        stamp = stamp_of(path)  # before the content, so that a later change is noticed
        try:
            image, picture = prepare_and_display(path, self.detector.preparation)
        except (DataError, OSError) as error:
            return Reading(stamp, reason(error, path), None)
        return Reading(stamp, image, resize_picture(picture).convert("RGB"))

    def _row(self, scored: tuple[Result, Reading]) -> Row:
        result, reading = scored
        if result.map is not None and reading.picture is not None:
            values = restore(result.map, self.detector.preparation, reading.picture.size)
            drawn = overlay(reading.picture, values, self.full, self.threshold)
            path = self.folder / OVERLAYS / overlay_name(result.name)
            drawn.save(path, quality=90, subsampling=0)
        return Row.of(result, self.threshold, reading.stamp)


def color_scale(limit: Threshold | None, detector: Detector, files: Sequence[NamedFile]) -> float:
    """Where the color scale ends; without a threshold, at a percentile of the maps of `files`."""
    if limit is not None:
        return full_scale(limit.value)
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
