"""The tables of a study, for both Markdown and HTML."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from uad.options import ERROR_NAMES
from uad.study.experiment import SCORES, UNSMOOTHED
from uad.study.measures import FIGURES, by_score, log_contrast, log_error, primary, primary_score
from uad.study.method import plural
from uad.study.questions import Comparison, Contrast
from uad.study.statistics import Difference, Measure, Pair, by_class
from uad.study.stuck import FACTOR, is_stuck, stuck_share
from uad.table import Table

INTERVAL, TOO_FEW = "95% interval", "too few pairs"
NOTHING = ("-", TOO_FEW)
"""Cells that say nothing; a column that holds nothing else is left out."""
BRACKETS = ", with the 95% interval in brackets"


def difference_table(comparisons: Sequence[Comparison]) -> Table:
    """One row per comparison, by the primary figure. comparisons: of one setting."""
    dataset = comparisons[0].setting.dataset
    score = primary_score(dataset)
    rows = []
    for comparison in comparisons:
        found = comparison.difference(primary(dataset))
        learning = comparison.without_stuck(primary(dataset))
        if found:
            rows.append(_row(title(comparison), found, comparison.identical))
        if learning:
            rows.append(_row(f"{title(comparison)}, without stuck runs", learning))
    brackets = "" if _all_single(comparisons) else " (sd)"
    remarks = {comparison.identical for comparison in comparisons} | {TOO_FEW}
    bounded = any(row[5] not in remarks for row in rows)
    heads = [
        "A against B", "pairs", f"B: mean{brackets}", f"A: mean{brackets}", "A - B",
        INTERVAL if bounded else "remark",
        "sd of A - B", "classes where A is higher",
    ]  # fmt: skip
    caption = f'Image AUROC under the score "{score_title(score)}", the same for every loss.'
    return _without_empty_columns(Table(caption, heads, rows))


def _all_single(comparisons: Sequence[Comparison]) -> bool:
    """Whether every comparison has one pair, so that nothing has a standard deviation."""
    found = (each.difference(primary(each.setting.dataset)) for each in comparisons)
    return all(each is None or len(each.pairs) == 1 for each in found)


def _without_empty_columns(table: Table) -> Table:
    """The table without columns in which no row says anything."""
    kept = [
        place
        for place in range(len(table.heads))
        if any(row[place] not in NOTHING for row in table.rows)
    ]
    rows = [[row[place] for place in kept] for row in table.rows]
    return Table(table.caption, [table.heads[place] for place in kept], rows)


def _row(name: str, found: Difference, instead: str | None = None) -> list[str]:
    """instead: a remark that replaces the interval."""
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
    """The number of stuck runs by loss; None if there are none."""
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
            number, mean = plural(len(change.pairs), "pair"), signed_share(change.mean)
            rows.append([name, number, mean, interval(change, signed_share)])
    bounded = any(row[-1] not in NOTHING for row in rows)
    caption = (
        "Stuck runs: runs that learned nothing, with an error on normal images of more than "
        f"{FACTOR:g} times its median over all runs of the same class and setting, at any learning "
        "rate, or (where that was recorded) more than the mean training image. Losses without "
        "stuck runs are not listed. The rows with a minus are differences of the fractions within "
        "pairs. Fractions are means over the classes"
        + ("; intervals resample whole classes or seeds, as above." if bounded else ".")
    )
    heads = ["loss", "stuck runs", "fraction", INTERVAL]
    return _without_empty_columns(Table(caption, heads, rows)) if rows else None


def score_table(comparisons: Sequence[Comparison]) -> Table:
    """Amplified minus plain by every figure under every score, one column per metric."""
    dataset = comparisons[0].setting.dataset
    measures = {
        f"{label}, score: {score_title(score)}": by_score(figure, score)
        for figure, label in FIGURES.items()
        for score in SCORES[dataset]
    }
    caption = f"Amplified minus plain, by every figure and score{BRACKETS}."
    return _by_metric(caption, comparisons, measures, signed)


def error_table(comparisons: Sequence[Comparison]) -> Table:
    """How amplification changes the reconstruction errors, as relative changes."""
    measures: dict[str, Measure] = {}
    for metric in UNSMOOTHED:
        name = ERROR_NAMES[metric]
        measures[f"{name} on normal images"] = log_error("normal", metric)
        measures[f"{name} on anomalous images"] = log_error("anomalous", metric)
        measures[f"{name}, anomalous over normal"] = log_contrast(metric)
    caption = (
        "How amplification changes the mean reconstruction error on test images, relative to the "
        f"plain loss (geometric mean), without stuck runs{BRACKETS}."
    )
    return _by_metric(caption, comparisons, measures, percent, with_stuck=False)


def contrast_table(contrasts: Sequence[Contrast]) -> Table:
    """How much more amplification changes with a wide code, by the primary score.

    contrasts: of one data set.
    """
    dataset = contrasts[0].wide.setting.dataset
    score = primary_score(dataset)
    measures = {
        f"{label}, score: {score_title(score)}": by_score(figure, score)
        for figure, label in FIGURES.items()
    }
    caption = (
        f"Amplified minus plain with the wide code, minus the same with the narrow code{BRACKETS}. "
        "Above 0, amplification does more where the network can copy."
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
    def difference(comparison: Comparison | Contrast, measure: Measure) -> Difference | None:
        found = comparison.difference(measure)
        if with_stuck or found is None:
            return found
        return None if found.all_stuck else comparison.without_stuck(measure) or found

    found = {
        name: [difference(comparison, measure) for comparison in comparisons]
        for name, measure in measures.items()
    }
    bounded = any(each and each.bounded for row in found.values() for each in row)

    def text(difference: Difference | None) -> str:
        if difference is None:
            return "-"
        mean = form(difference.mean)
        return f"{mean} ({interval(difference, form)})" if bounded else mean

    return Table(
        caption if bounded else caption.replace(BRACKETS, ""),
        ["", *(title(comparison) for comparison in comparisons)],
        [[name, *map(text, row)] for name, row in found.items() if any(row)],
    )


def title(comparison: Comparison | Contrast) -> str:
    """The comparison in words: "A against B"."""
    if isinstance(comparison, Contrast):
        return str(comparison)
    return f"{comparison.after} against {comparison.before}"


def score_title(score: str) -> str:
    """A key of SCORES as a person would write it: "mse top 1%"."""
    return score.replace(" %", "%")


def signed(value: float) -> str:
    """Like +0.0123."""
    return _unsigned_zero(f"{value:+.4f}")


def percent(logarithm: float) -> str:
    """+1.2% for the logarithm of 1.012."""
    return _unsigned_zero(f"{100 * math.expm1(logarithm):+.1f}%")


def share(value: float) -> str:
    """30% for 0.3."""
    return f"{100 * value:.0f}%"


def signed_share(value: float) -> str:
    """-20% for -0.2."""
    return _unsigned_zero(f"{100 * value:+.0f}%")


def _unsigned_zero(text: str) -> str:
    """The number without its sign if it is 0 to the digits shown: -0.0000 would be a riddle."""
    return text if any(digit in text for digit in "123456789") else text.lstrip("+-")


def interval(found: Difference, form: Callable[[float], str] = signed) -> str:
    """The limits of the interval, or why there is none."""
    if not found.bounded:
        return TOO_FEW
    return f"{form(found.low)} to {form(found.high)}"


def limits(found: Difference) -> str:
    """The limits of the interval, or the number of pairs if they are too few for one."""
    return interval(found) if found.bounded else plural(len(found.pairs), "pair")


def spread(pairs: Sequence[Pair], side: str) -> str:
    """The mean over the classes, as for differences, with the sd over all runs in brackets."""
    classes = by_class(pairs, side)
    mean = np.mean([values.mean() for values in classes])
    runs = np.concatenate(classes)
    return f"{mean:.4f} ({runs.std(ddof=1):.3f})" if len(runs) > 1 else f"{mean:.4f}"
