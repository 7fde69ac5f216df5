"""What a report says about measuring detection if all test images are normal."""

from __future__ import annotations

from uad.evaluation import auroc_half_width
from uad.html import html_table
from uad.report.run import Run

EXAMPLE_AUROC = 0.95
COUNTS = (10, 20, 50, 100)


def needed(run: Run) -> str:
    """Which images to put where, and how many of them; empty if there are anomalous images."""
    if not run.good_only:
        return ""
    rows = [
        [f"{count} normal, {count} defective", f"± {half_width(count):.3f}"] for count in COUNTS
    ]
    return (
        "<p>A threshold only limits false alarms. To learn how many defects it catches, add images "
        "of defective parts to the data folder and train again:</p>\n"
        "<ul>\n"
        "<li><code>test/good/</code>: images of good parts that are not in train/good</li>\n"
        "<li><code>test/&lt;kind&gt;/</code>: images of one kind of defect, such as "
        "<code>test/scratch/001.png</code></li>\n"
        "<li><code>ground_truth/&lt;kind&gt;/&lt;stem&gt;_mask.png</code>, optional: a mask of the "
        "same size as the image, white where the part is defective, such as "
        "<code>ground_truth/scratch/001_mask.png</code>. It shows whether the network found the "
        "defect itself.</li>\n"
        "</ul>\n"
        f"{html_table(['test images', '95% interval'], rows, CAPTION)}"
        '<p class="note">1.96 times the standard error of Hanley and McNeil (The meaning and use '
        "of the area under a receiver operating characteristic (ROC) curve, Radiology 143, 1982, "
        "pages 29 to 36). Several images of one part count as one.</p>\n"
    )


CAPTION = f"Uncertainty of an image AUROC of {EXAMPLE_AUROC:g}"


def half_width(count: int) -> float:
    """Half the width of the 95% interval with so many images of each class."""
    return auroc_half_width(EXAMPLE_AUROC, count, count)
