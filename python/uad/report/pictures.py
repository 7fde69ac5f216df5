"""The figures of a report with their captions, as HTML."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from uad import figures
from uad.html import html_table, picture
from uad.landscape import table as landscapes
from uad.report.run import Run


def pictures(run: Run, grid: bytes) -> str:
    """The picture grid, given as a PNG, with its caption."""
    truth = "masks" in run.examples
    if run.good_only:
        use = "Whatever stands out in these maps would be a false alarm."
    else:
        use = (
            "A loss works well if its maps of defective images stand out from its maps of normal "
            "images."
        )
    caption = (
        "Test images, chosen by their position in the test set and not by their scores"
        f"{'; the second column outlines the ground truth' if truth else ''}. All anomaly maps of "
        "all losses share a color scale: brighter pixels are reconstructed worse. The scale ends "
        f"at the value that {100 - figures.MAP_LIMIT:g}% of these pixels exceed. {use}"
    )
    style = "large" if len(run.arms) > 1 else ""
    return picture(grid, "png", "Originals, reconstructions and anomaly maps", caption, style)


def score_figures(run: Run) -> str:
    """How the scores of normal and anomalous images are distributed."""
    thresholds = {arm: threshold.value for arm, threshold in run.thresholds.items()}
    if run.good_only:
        caption = "Scores of the normal test images."
    else:
        caption = (
            "Scores of normal images (gray) and of anomalous images (color); the less they "
            "overlap, the better."
        )
    if thresholds:
        caption += " An image to the right of the dashed line, the threshold, is called anomalous."
    if len(run.arms) > 1:
        caption += " All losses use the same bins."
    histograms = _drawing(
        figures.score_histograms(run.scores, run.anomalous, thresholds),
        "Histograms of the anomaly scores of each loss", caption,
    )  # fmt: skip
    if run.anomalous.all() or run.good_only:
        return histograms
    curves = _drawing(
        figures.roc_curves(run.scores, run.anomalous),
        "ROC curves of all losses",
        "Fraction of anomalous images that are detected against fraction of normal images that are "
        "falsely reported, for every threshold of the score. The dotted line is guessing.",
    )
    return f'<div class="pair">{histograms}{curves}</div>\n'


def training_figures(arms: Mapping[str, Any]) -> str:
    """How the training went."""
    histories = {arm: content["history"] for arm, content in arms.items()}
    losses = _drawing(
        figures.loss_curves(histories),
        "Training losses over the epochs",
        "Each training loss relative to its value in epoch 1, on a logarithmic axis. Different "
        "losses measure different things, so the curves show whether a run has converged, "
        "not which loss is better.",
    )
    if any(any(history["tangent_share"]) for history in histories.values()):
        tangent = _drawing(
            figures.tangent_curves(histories),
            "Fraction of elements on the tangent over the epochs",
            "Fraction of elements with an error above 1&nbsp;&minus;&nbsp;eps, in the last batch "
            "of each epoch. There the amplification continues as a straight line, its tangent. For "
            "a plain loss: the elements that would be there if it were amplified.",
        )
    else:
        tangent = (
            "<p>No element was on the tangent of the amplification in the last batch of any epoch, "
            "that is, none had an error above 1&nbsp;&minus;&nbsp;eps. Where all errors are small, "
            "amplification hardly changes them.</p>\n"
        )
    return f'<div class="pair">{losses}{tangent}</div>\n'


def _drawing(figure: Figure, alternative: str, caption: str) -> str:
    return picture(figures.encode(figure, "svg"), "svg+xml", alternative, caption)


def landscape(folder: Path) -> str:
    """What landscape.py wrote into the run folder; empty if it wrote nothing."""
    tables = landscapes.read_tables(folder)
    if not tables:
        return ""
    caption = (
        "The training loss around the trained weights: on the plane of two random directions, and "
        "along several. A step of 1 is as long as the weights themselves. The planes in a row "
        "share a logarithmic color scale."
    )
    content = (folder / landscapes.PICTURE).read_bytes()
    return picture(content, "png", "Loss landscapes", caption, "large") + "".join(
        html_table(each.heads, each.rows) + f'<p class="note">{escape(each.caption)}</p>\n'
        for each in tables
    )
