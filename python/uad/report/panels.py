"""One test image: the picture, its reconstruction, and its anomaly map laid over the picture."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uad.overlay import full_scale, overlay, resize_picture

LONG_SIDE = 512
"""Limit of the long side of a panel in pixels. Reports hold dozens of these pictures."""

GAP = 32
"""Panels are this many times as wide as the gap between them."""


def panels(
    original: NDArray[np.uint8],
    reconstruction: NDArray[np.uint8],
    anomaly_map: NDArray[np.float32],
    mask: NDArray[np.bool_] | None,
    threshold: float,
) -> Image.Image:
    """Three panels, side by side, without any text.

    original, reconstruction: (C, H, W). anomaly_map: (H, W). mask: (H, W), None if it is unknown.
    """
    shown = [resize_picture(_picture(each), LONG_SIDE) for each in (original, reconstruction)]
    size = shown[0].size
    values = Image.fromarray(anomaly_map).resize(size, Image.Resampling.BILINEAR)
    truth = None if mask is None else Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
    drawn = overlay(
        shown[0],
        np.asarray(values),
        full_scale(threshold),
        threshold,
        None if truth is None else np.asarray(truth),
    )
    return _side_by_side([*shown, drawn])


def jpeg(picture: Image.Image) -> bytes:
    """The content of a JPEG file, in which thin colored lines stay sharp."""
    buffer = io.BytesIO()
    picture.save(buffer, "jpeg", quality=90, subsampling=0)
    return buffer.getvalue()


def _picture(image: NDArray[np.uint8]) -> Image.Image:
    levels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(levels)).convert("RGB")


def _side_by_side(pictures: list[Image.Image]) -> Image.Image:
    width, height = pictures[0].size
    step = width + max(1, width // GAP)
    whole = Image.new("RGB", (step * (len(pictures) - 1) + width, height), "white")
    for place, each in enumerate(pictures):
        whole.paste(each, (place * step, 0))
    return whole
