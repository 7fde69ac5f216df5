"""report.html of scored images: the decisions, the most anomalous image first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

from uad import threshold_words
from uad.detector import Detector
from uad.html import document, html_table
from uad.overlay import overlay_name
from uad.overlay_legend import legend
from uad.scoring.judge import OVERLAYS, TABLE, Judge
from uad.scoring.table import ERROR, UNDECIDED, Row
from uad.threshold import ANOMALOUS, NORMAL
from uad.wording import counted, float32_text, sentence

STYLE = Path(__file__).with_name("page.css")

MOST_PICTURES = 1000
"""A page with more pictures than this is slow to open."""

ERRORS_SHOWN = 10
"""Of more errors than this, the others are folded away."""

EAGER = 24
"""Pictures that load at once; the others load when the reader scrolls to them."""

DECISIONS = {NORMAL: "normal", ANOMALOUS: "anomalous", UNDECIDED: "no threshold"}


@dataclass(frozen=True)
class Session:
    """What the report says besides the rows."""

    source: str
    """The folders and files that were scored."""
    found: str
    """How many images were found, and what was skipped."""
    normal: str
    """Where the normal images behind the threshold come from."""
    notices: tuple[str, ...]
    """Warnings."""
    unfinished: int = 0
    """How many images were left when the program was interrupted."""


def tally(rows: Sequence[Row]) -> str:
    """How many images are anomalous, normal, and errors."""
    numbers = {decision: sum(row.decision == decision for row in rows) for decision in
               (ANOMALOUS, NORMAL, UNDECIDED, ERROR)}  # fmt: skip
    parts = [f"{numbers[ANOMALOUS]:,} anomalous", f"{numbers[NORMAL]:,} normal"]
    if numbers[UNDECIDED]:
        parts = [f"{numbers[UNDECIDED]:,} scored without a threshold"] + [
            part for part in parts if not part.startswith("0 ")
        ]
    return f"{counted(len(rows), 'image')}: {', '.join(parts)}, {counted(numbers[ERROR], 'error')}"


def page(rows: Sequence[Row], judge: Judge, session: Session) -> str:
    """The whole document. rows: one for each image."""
    errors = [row for row in rows if row.decision == ERROR]
    scored = sorted(
        (row for row in rows if row.score is not None), key=lambda row: -(row.score or 0.0)
    )
    sections = {
        f"Images that could not be scored ({len(errors):,})": _errors(errors),
        f"Scored images ({len(scored):,}), most anomalous first": _gallery(scored, judge),
        "Network": _network(judge.detector),
    }
    title = f"Anomaly scores: {session.source}"
    return document(title, _lead(rows, judge, session), sections, STYLE.read_text("utf-8"))


def _lead(rows: Sequence[Row], judge: Judge, session: Session) -> str:
    notices = session.notices
    if session.unfinished:
        left = counted(session.unfinished, "image")
        notices = (f"The program was interrupted; {left} had not been scored", *notices)
    warnings = "".join(f"<p>{escape(sentence(notice))}</p>" for notice in notices)
    return (
        f'<p class="lead"><b>{escape(tally(rows))}.</b></p>\n'
        + (f'<div class="verdict" role="note">{warnings}</div>\n' if warnings else "")
        + f"<p>{_threshold(judge, session)}</p>\n"
        + f'<p class="note">{escape(session.found)}. All scores are in '
        f'<a href="{TABLE}">{TABLE}</a>.</p>\n'
    )


def _threshold(judge: Judge, session: Session) -> str:
    if judge.limit is None:
        return (
            "There is no threshold, because the checkpoint holds no scores of normal images. To "
            "get decisions, pass a folder of normal images with <code>--normal</code>."
        )
    limit = judge.limit
    return (
        "An image is called anomalous if its score exceeds the threshold, "
        f"{threshold_words.value(limit)}. It is set from the scores of "
        f"{counted(limit.count, 'normal image')} ({escape(session.normal)}). "
        f"{sentence(threshold_words.expected_rate(limit))} "
        f"{sentence(threshold_words.uncertainty(limit))}"
    )


def _errors(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    heads, lines = ["file", "reason"], [[row.file, row.reason] for row in rows]
    content = html_table(heads, lines[:ERRORS_SHOWN])
    if lines[ERRORS_SHOWN:]:
        rest = html_table(heads, lines[ERRORS_SHOWN:])
        left = counted(len(lines) - ERRORS_SHOWN, "more image")
        content += f"<details><summary>{left}</summary>\n{rest}</details>\n"
    return f'<div class="errors">{content}</div>\n'


def _gallery(rows: Sequence[Row], judge: Judge) -> str:
    if not rows:
        return ""
    figures = "\n".join(_figure(row, number) for number, row in enumerate(rows[:MOST_PICTURES]))
    left = len(rows) - MOST_PICTURES
    rest = (
        f"<p>The other {counted(left, 'image')} with lower scores are in "
        f'<a href="{TABLE}">{TABLE}</a>, and their pictures in {OVERLAYS}/.</p>\n'
        if left > 0
        else ""
    )
    return f'{legend(judge.threshold, judge.full)}<div class="gallery">\n{figures}\n</div>\n{rest}'


def _figure(row: Row, number: int) -> str:
    link = f"{OVERLAYS}/{quote(overlay_name(row.file))}"
    loading = "eager" if number < EAGER else "lazy"
    kind = row.decision or "undecided"
    return (
        f'<figure class="{kind}"><a href="{link}"><img src="{link}" loading="{loading}" '
        f'alt="Anomaly map over {escape(row.file)}"></a><figcaption>'
        f'<b class="file">{escape(row.file)}</b>'
        f'<span class="decision">{DECISIONS[row.decision]}</span>{_score(row)}'
        "</figcaption></figure>"
    )


def _score(row: Row) -> str:
    """What follows the decision: the score, also as a multiple of the threshold."""
    score, threshold = row.score or 0.0, row.threshold
    text = f"<br>score {float32_text(score)}"
    return f", {_multiple(score, threshold)}&times;\u00a0threshold{text}" if threshold else text


def _multiple(score: float, threshold: float) -> str:
    """score / threshold with as many digits as tell it from 1, but at least three."""
    ratio = score / threshold
    texts = [f"{ratio:.{digits}g}" for digits in range(3, 10)]
    return next((text for text in texts if text != "1"), texts[0])


def _network(detector: Detector) -> str:
    return f"<p>{escape(describe_detector(detector))}.</p>\n"


def describe_detector(detector: Detector) -> str:
    """The network and how images are prepared for it, in one line."""
    preparation = detector.preparation
    fitted = {"stretch": "stretched", "pad": "padded", "crop": "cropped"}[preparation.fit]
    white = "" if preparation.full_scale is None else f", white at {preparation.full_scale:g}"
    parameters = sum(each.numel() for each in detector.network.parameters())
    squares = "" if detector.inpaint is None else f", inpaints squares of {detector.inpaint} pixels"
    return (
        f"network trained with the loss {detector.loss} on {detector.data}; {parameters:,} "
        f"parameters{squares}; {'gray' if preparation.channels == 1 else 'color'} images {fitted} "
        f"to {preparation.size}x{preparation.size}{white}"
    )
