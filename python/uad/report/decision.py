"""What a report says about the decision: the threshold, the mistakes at it, and their pictures."""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

from uad import threshold_words
from uad.data import GOOD
from uad.evaluation import defect_kinds
from uad.evaluation_files import EXTREMES
from uad.html import html_table, picture
from uad.overlay import full_scale
from uad.overlay_legend import legend
from uad.report.panels import jpeg, panels
from uad.report.run import Run
from uad.report.scores_csv import SCORES
from uad.threshold import ANOMALOUS
from uad.threshold import decision as decide
from uad.wording import asked_percent, bold, counted, float32_text, percent, sentence


def decision(run: Run) -> str:
    """The thresholds of all losses, then the mistakes of each; empty without a normal image."""
    if not run.thresholds:
        return ""
    arms = sorted(run.arms, key=lambda arm: arm not in run.leaders)  # the best first
    many = len(arms) > 1
    parts = []
    for number, arm in enumerate(arms):
        content = confusion_table(run, arm) + mistakes(run, arm)
        if many:
            opened = " open" if number == 0 else ""
            content = (
                f"<details{opened}><summary>{bold(arm)}: {outcome(run, arm)}</summary>\n"
                f"{content}</details>\n"
            )
        parts.append(content)
    return threshold_text(run) + threshold_table(run) + "".join(parts)


def outcome(run: Run, arm: str) -> str:
    """The counts at the threshold in a few words."""
    above, anomalous = run.detected(arm), run.anomalous
    alarms = counted(int(above[~anomalous].sum()), "false alarm")
    if run.good_only:
        return alarms
    return f"{above[anomalous].sum():,} of {anomalous.sum():,} anomalous images detected, {alarms}"


def threshold_text(run: Run) -> str:
    """Where the thresholds come from, and what they promise."""
    threshold = next(iter(run.thresholds.values()))  # its rate and count are the same for all
    held_out = run.metrics["data"].get("held_out", 0)
    origin = counted(threshold.count, "normal test image")
    if held_out:
        share = "all" if held_out == threshold.count else f"{held_out:,}"
        origin += f" ({share} of them held out from the training images)"
    text = (
        "<p>An image is called anomalous if its score exceeds the threshold. The threshold is set "
        f"for a false-positive rate of {asked_percent(run.rate)} (--false-positive-rate) from the "
        f"scores of {origin}. {sentence(threshold_words.expected_rate(threshold))} "
        f"{sentence(threshold_words.uncertainty(threshold))} More normal test images narrow this "
        "range.</p>\n"
    )
    if not threshold.met:
        text += f"<p><b>{sentence(threshold_words.too_few_images(threshold))}</b></p>\n"
    names = ", ".join(f"<code>{escape(arm)}/{SCORES}</code>" for arm in run.arms)
    if all("files" in arrays for arrays in run.evaluations.values()):
        text += f"<p>Every test image with its score and decision: {names}.</p>\n"
    best = escape(next(iter(run.leaders or run.arms)))
    return text + (
        "<p>Apply the threshold to new images with <code>python python/score.py "
        f"RUN/{best}/checkpoint.pt IMAGES --out SCORES</code>, where RUN is the folder of this "
        "report.</p>\n"
    )


def threshold_table(run: Run) -> str:
    """One row per loss."""
    heads = ["training loss", "threshold"]
    heads += [] if run.good_only else ["detected"]
    rows = []
    for arm, threshold in run.thresholds.items():
        above = run.detected(arm)
        row = [arm, float32_text(threshold.value)]
        if not run.good_only:
            row.append(_of(above[run.anomalous]))
        rows.append([*row, _of(above[~run.anomalous])])
    return html_table([*heads, "false alarms"], rows) + (
        '<p class="note">The false alarms are counted among the same normal images that set the '
        "threshold, so they agree with the rate by construction and do not test it.</p>\n"
    )


def _of(marks: NDArray[np.bool_]) -> str:
    """Like "52 of 60 (86.7%)"."""
    return f"{marks.sum():,} of {len(marks):,} ({percent(float(marks.mean()))})"


def confusion_table(run: Run, arm: str) -> str:
    """Images above the threshold and below it, by kind."""
    above, kinds = run.detected(arm), run.kinds
    rows = []
    for kind in defect_kinds(kinds.tolist()):
        chosen = above[kinds == kind]
        rows.append([kind, *_counts(chosen), f"{(~chosen).sum():,} missed"])
    if len(rows) > 1:
        chosen = above[run.anomalous]
        rows.append(["all defects", *_counts(chosen), f"{(~chosen).sum():,} missed"])
    chosen = above[~run.anomalous]
    rows.append([GOOD, *_counts(chosen), counted(int(chosen.sum()), "false alarm")])
    heads = ["kind", "images", "above threshold", "at or below", "mistakes"]
    return html_table(heads, rows, f"Test images at the threshold of {arm}")


def _counts(above: NDArray[np.bool_]) -> list[str]:
    return [f"{len(above):,}", f"{above.sum():,}", f"{(~above).sum():,}"]


def mistakes(run: Run, arm: str) -> str:
    """The worst misses and false alarms with pictures; empty for a run of an older version."""
    arrays = run.evaluations[arm]
    if "extreme_indices" not in arrays:
        return ""
    above = run.detected(arm)
    places = arrays["extreme_indices"]
    marks = [(place, bool(run.anomalous[index])) for place, index in enumerate(places)]
    text = ""
    for anomalous, noun, which, none in (
        (
            True, "missed image", "the lowest scores of all anomalous images",
            "No anomalous image is missed; these have the lowest scores",
        ),
        (
            False, "false alarm", "the highest scores of all normal images",
            "No normal image is a false alarm; these have the highest scores",
        ),
    ):  # fmt: skip
        shown = [place for place, marked in marks if marked == anomalous]
        wrong = [place for place in shown if above[places[place]] != anomalous]
        total = int((above != run.anomalous)[run.anomalous == anomalous].sum())
        if shown:
            text += _group(
                run, arm, wrong or shown, _heading(total, noun, which) if wrong else none
            )
    truth = "extreme_masks" in arrays and not run.good_only
    threshold = run.thresholds[arm].value
    return text + (
        '<p class="note">Each with the picture, the reconstruction, and the anomaly map over the '
        f"picture.</p>\n{legend(threshold, full_scale(threshold), truth)}"
    )


def _heading(total: int, noun: str, which: str) -> str:
    if total > EXTREMES:
        return f"The worst {EXTREMES} of {counted(total, noun)}: {which}"
    return f"{counted(total, noun)}: {which}"


def _group(run: Run, arm: str, places: list[int], heading: str) -> str:
    cards = "".join(card(run, arm, place) for place in places)
    return f'<h3>{escape(heading)}</h3>\n<div class="cards">\n{cards}</div>\n'


def card(run: Run, arm: str, place: int) -> str:
    """One of the extremes: picture, reconstruction, overlay, name and score."""
    arrays, threshold = run.evaluations[arm], run.thresholds[arm].value
    index = int(arrays["extreme_indices"][place])
    known = "extreme_masks" in arrays and bool(arrays["extreme_annotated"][place])
    drawn = panels(
        arrays["extreme_originals"][place],
        arrays["extreme_reconstructions"][place],
        arrays["extreme_maps"][place],
        arrays["extreme_masks"][place] if known else None,
        threshold,
    )
    name = str(arrays["files"][index]) if "files" in arrays else f"test image {index}"
    kind, score = str(run.kinds[index]), arrays["scores"][index]
    sign = ">" if decide(score, threshold) == ANOMALOUS else "\u2264"
    missing = "" if known or kind == GOOD or "extreme_masks" not in arrays else ", no mask"
    caption = (
        f"<b>{escape(name)}</b><br>{escape(kind)}{missing}, score {float32_text(score)} {sign} "
        f"{float32_text(threshold)}"
    )
    return picture(jpeg(drawn), "jpeg", f"{name} with its overlay", caption, "card")
