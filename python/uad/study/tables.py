"""The tables of a study, once for Markdown and HTML alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from uad.html import html_table
from uad.study.arms import METRICS
from uad.study.experiment import SCORES
from uad.study.questions import (
    FIGURES,
    NAMES,
    Comparison,
    Contrast,
    by_score,
    log_contrast,
    log_error,
    primary,
)
from uad.study.statistics import Difference, Measure, Pair, by_class
from uad.study.stuck import FACTOR, is_stuck, stuck_share


@dataclass(frozen=True)
class Table:
    """Plain text in rows; the first column says what a row is about."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """With the caption as a paragraph above it."""
        lines = [self.heads, ["---", *["---:"] * (len(self.heads) - 1)], *self.rows]
        return f"{self.caption}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def html(self) -> str:
        """As an element of a page."""
        return html_table(self.heads, self.rows, self.caption)


def difference_table(comparisons: Sequence[Comparison]) -> Table:
    """One row a comparison, by the primary figure; all of one setting."""
    dataset = comparisons[0].setting.dataset
    score = next(iter(SCORES[dataset]))
    rows = []
    for comparison in comparisons:
        found = comparison.difference(primary(dataset))
        learning = comparison.without_stuck(primary(dataset))
        if found:
            rows.append(_row(title(comparison), found, comparison.identical))
        if learning:
            rows.append(_row(f"{title(comparison)}, without stuck runs", learning))
    heads = [
        "A against B", "pairs", "B: mean (sd)", "A: mean (sd)", "A - B", "95 % interval",
        "sd of A - B", "classes where A is higher",
    ]  # fmt: skip
    return Table(f"Image AUROC, score: {score}, the same for every loss", heads, rows)


def _row(name: str, found: Difference, instead: str | None = None) -> list[str]:
    """instead: what stands in place of the interval."""
    differences = [pair.difference for pair in found.pairs]
    count, of = found.classes_higher
    return [
        name,
        str(len(found.pairs)),
        spread(found.pairs, "before"),
        spread(found.pairs, "after"),
        signed(found.mean),
        instead or interval(found),
        f"{np.std(differences, ddof=1):.4f}" if len(differences) > 1 else "-",
        f"{count} of {of}",
    ]


def stuck_table(comparisons: Sequence[Comparison]) -> Table | None:
    """How many trainings learnt nothing, by loss; None if none did."""
    runs = {}
    for comparison in comparisons:
        runs[comparison.before] = comparison.runs_before
        runs[comparison.after] = comparison.runs_after
    rows = []
    for arm, results in runs.items():
        count, found = sum(result["stuck"] for result in results), stuck_share(results)
        if count:
            number = f"{count} of {len(results)}"
            rows.append([str(arm), number, share(found.mean), interval(found, share)])
    for comparison in comparisons:
        change = comparison.difference(is_stuck)
        if change and any(pair.stuck for pair in change.pairs):
            name = f"{comparison.after} minus {comparison.before}"
            number, mean = f"{len(change.pairs)} pairs", signed_share(change.mean)
            rows.append([name, number, mean, interval(change, signed_share)])
    caption = (
        "Stuck runs: trainings that learnt nothing, the error of normal images more than "
        f"{FACTOR:g} times its median over all runs of the same class and setting, at any learning "
        "rate; losses without any are not listed. Below, differences of the shares within pairs. "
        "Shares are means over the classes; intervals are of whole classes or of seeds, as above"
    )
    heads = ["loss", "stuck runs", "share", "95 % interval"]
    return Table(caption, heads, rows) if rows else None


def score_table(comparisons: Sequence[Comparison]) -> Table:
    """Amplified less plain by every figure under every score, a column a metric."""
    dataset = comparisons[0].setting.dataset
    measures = {
        f"{label}, score: {score}": by_score(figure, score)
        for figure, label in FIGURES.items()
        for score in SCORES[dataset]
    }
    caption = "Amplified minus plain, by every figure and score; 95 % interval in brackets"
    return _by_metric(caption, comparisons, measures, signed)


def error_table(comparisons: Sequence[Comparison]) -> Table:
    """Relative change of the reconstruction errors under amplification."""
    measures: dict[str, Measure] = {}
    for metric in METRICS:
        name = f"{NAMES[metric]} error"
        measures[f"{name} of normal images"] = log_error("normal", metric)
        measures[f"{name} of anomalous images"] = log_error("anomalous", metric)
        measures[f"{name}, anomalous over normal"] = log_contrast(metric)
    caption = (
        "How amplification changes the mean reconstruction error of test images, relative to the "
        "plain loss (geometric mean), without stuck runs; 95 % interval in brackets"
    )
    return _by_metric(caption, comparisons, measures, percent, with_stuck=False)


def contrast_table(contrasts: Sequence[Contrast]) -> Table:
    """How much more amplification changes in a wide code, by the primary score; of one data set."""
    dataset = contrasts[0].wide.setting.dataset
    score = next(iter(SCORES[dataset]))
    measures = {
        f"{label}, score: {score}": by_score(figure, score) for figure, label in FIGURES.items()
    }
    caption = (
        "Amplified minus plain with the wide code, less the same with the narrow one; above 0, "
        "amplification does more where the network can copy. 95 % interval in brackets"
    )
    return _by_metric(caption, contrasts, measures, signed)


def _by_metric(
    caption: str,
    comparisons: Sequence[Comparison] | Sequence[Contrast],
    measures: dict[str, Measure],
    form: Callable[[float], str],
    *,
    with_stuck: bool = True,
) -> Table:
    rows = []
    for name, measure in measures.items():
        found = [
            (None if with_stuck else comparison.without_stuck(measure))
            or comparison.difference(measure)
            for comparison in comparisons
        ]
        if any(found):
            rows.append(
                [name, *(f"{form(e.mean)} ({interval(e, form)})" if e else "-" for e in found)]
            )
    return Table(caption, ["", *(title(comparison) for comparison in comparisons)], rows)


def title(comparison: Comparison | Contrast) -> str:
    """A against B."""
    if isinstance(comparison, Contrast):
        return str(comparison)
    return f"{comparison.after} against {comparison.before}"


def signed(value: float) -> str:
    """+0.0123."""
    return f"{value:+.4f}"


def percent(logarithm: float) -> str:
    """+1.2 % for the logarithm of 1.012."""
    return f"{100 * math.expm1(logarithm):+.1f} %"


def share(value: float) -> str:
    """30 % for 0.3."""
    return f"{100 * value:.0f} %"


def signed_share(value: float) -> str:
    """-20 % for -0.2."""
    return f"{100 * value:+.0f} %"


def interval(found: Difference, form: Callable[[float], str] = signed) -> str:
    """Low to high, or why not."""
    if math.isnan(found.low):
        return "too few pairs"
    return f"{form(found.low)} to {form(found.high)}"


def spread(pairs: Sequence[Pair], side: str) -> str:
    """Mean over the classes, as of a difference, and in brackets the deviation over all runs."""
    classes = by_class(pairs, side)
    mean = np.mean([values.mean() for values in classes])
    runs = np.concatenate(classes)
    deviation = f"{runs.std(ddof=1):.3f}" if len(runs) > 1 else "-"
    return f"{mean:.4f} ({deviation})"
