"""How to read an overlay, as HTML: the same words and the same scale in every report."""

from __future__ import annotations

import matplotlib

from uad.figures import MAP_COLORS, MAP_LIMIT
from uad.wording import float32_text

COLORS = "The more opaque and the brighter the color, the higher the anomaly map."


def legend(threshold: float | None, full: float, truth: bool = False) -> str:
    """A paragraph and the color scale.

    threshold: None if there is no contour. full: value at the upper end of the scale. truth:
    whether masks are outlined.
    """
    if threshold is None:
        text = (
            f"{COLORS} The scale ends at {full:.3g}, the value that {100 - MAP_LIMIT:g}% of the "
            "pixels of the first batch exceed, so colors from different folders do not compare."
        )
        marks = f"<span>0</span><span>{full:.3g}</span>"
    else:
        text = (
            f"{COLORS} The white contour encloses the pixels above the threshold."
            f"{' The cyan outline is the ground truth.' if truth else ''} The score combines many "
            "pixels, so a normal image may have a contour too. The scale depends only on the "
            "threshold: pictures from two reports compare if both used the same one."
        )
        marks = (
            f"<span>0</span><span>threshold {float32_text(threshold)}</span>"
            f"<span>{float32_text(full)}</span>"
        )
    stops = ", ".join(
        matplotlib.colors.to_hex(matplotlib.colormaps[MAP_COLORS](step / 8)) for step in range(9)
    )
    bar = f'<i class="bar" style="background:linear-gradient(to right, {stops})"></i>'
    return (
        f'<p class="note">{text}</p>\n<div class="scale">{bar}<div class="marks">{marks}</div>'
        "</div>\n"
    )
