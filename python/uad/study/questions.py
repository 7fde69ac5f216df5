"""The questions to a results file: which runs are compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from uad.losses import METRICS
from uad.study.experiment import SCORES, UNSMOOTHED
from uad.study.measures import FIGURES, by_score, primary
from uad.study.results import spec_of
from uad.study.setting import Arm, Setting, with_distinct_names
from uad.study.statistics import Difference, Measure, Pair, Result, compare, make_pairs
from uad.study.stuck import mark_stuck


@dataclass(frozen=True)
class Comparison:
    """One arm against another in one setting."""

    setting: Setting
    before: Arm
    after: Arm
    runs_before: list[Result]
    runs_after: list[Result]

    @property
    def metric(self) -> str:
        """The metric of both losses."""
        return self.before.loss.split("-")[-1]

    @property
    def main(self) -> bool:
        """Whether this is the study's main question: amplified against plain, with defaults."""
        return self.after == Arm(f"amplified-{self.metric}") and self.before == Arm(self.metric)

    def difference(self, measure: Measure) -> Difference | None:
        """The mean difference in this figure; None without any pair."""
        pairs = make_pairs(self.runs_before, self.runs_after, measure)
        return compare(pairs) if pairs else None

    def without_stuck(self, measure: Measure) -> Difference | None:
        """The same for pairs of runs that are not stuck; None if those are all pairs, or none."""
        return without_stuck_pairs(make_pairs(self.runs_before, self.runs_after, measure))

    @property
    def identical(self) -> str | None:
        """A remark if the runs of every pair are identical to the last digit, otherwise None."""
        if not all(pair.difference == 0.0 for each in self._all_figures() for pair in each):
            return None
        if replace(self.before, eps=self.after.eps) == self.after:
            return "identical runs, since no element reached the tangent"
        return "identical runs"

    def _all_figures(self) -> Iterator[list[Pair]]:
        """The pairs for every figure of merit and every error."""
        scores = SCORES[self.setting.dataset]
        measures = [by_score(figure, score) for figure in FIGURES for score in scores]
        measures += [
            by_score(f"error_{side}", metric)
            for side in ("normal", "anomalous")
            for metric in UNSMOOTHED
        ]
        for measure in measures:
            yield make_pairs(self.runs_before, self.runs_after, measure)


@dataclass(frozen=True)
class Contrast:
    """The same comparison with a wide code and with a narrow code.

    Amplification is meant to contain the network's generalization, which matters for networks that
    could copy images unlike any they have seen.
    """

    narrow: Comparison
    wide: Comparison

    def __str__(self) -> str:
        sizes = f"{self.wide.setting.latent} minus {self.narrow.setting.latent}"
        return f"{self.wide.after} against {self.wide.before}, {sizes} channels"

    def difference(self, measure: Measure) -> Difference | None:
        """The wide code's difference minus the narrow code's, paired by class and seed."""
        pairs = self._pairs(measure)
        return compare(pairs) if pairs else None

    def without_stuck(self, measure: Measure) -> Difference | None:
        """The same where none of the four runs is stuck; None if those are all pairs, or none."""
        return without_stuck_pairs(self._pairs(measure))

    def _pairs(self, measure: Measure) -> list[Pair]:
        narrow, wide = (_gains(each, measure) for each in (self.narrow, self.wide))
        return make_pairs(narrow, wide, lambda result: result["gain"])


def without_stuck_pairs(pairs: Sequence[Pair]) -> Difference | None:
    """The difference over pairs without a stuck run; None if those are all pairs, or none."""
    learning = [pair for pair in pairs if not pair.stuck]
    return compare(learning) if 0 < len(learning) < len(pairs) else None


def _gains(comparison: Comparison, measure: Measure) -> list[Result]:
    """One result per pair, with the difference as its "gain" and no size of the code."""
    return [
        result | {"latent": None, "gain": pair.difference, "stuck": pair.stuck}
        for result in comparison.runs_after
        for pair in make_pairs(comparison.runs_before, [result], measure)
    ]


def contrasts(groups: Mapping[Setting, Sequence[Comparison]]) -> list[Contrast]:
    """Amplified against plain in all settings that differ only in the channels of the code."""
    main = [each for group in groups.values() for each in group if each.main]
    found = [
        Contrast(narrow, wide)
        for narrow in main
        for wide in main
        if narrow.setting.latent < wide.setting.latent
        and replace(narrow.setting, latent=wide.setting.latent) == wide.setting
        and narrow.metric == wide.metric
    ]
    return [each for each in found if each.difference(primary(each.wide.setting.dataset))]


def comparisons(results: Sequence[Result]) -> dict[Setting, list[Comparison]]:
    """All comparisons that the results allow, with the main ones first in each setting."""
    groups: dict[Setting, dict[Arm, list[Result]]] = {}
    for result in mark_stuck(results):
        if "failed" not in result:
            spec = spec_of(result)
            groups.setdefault(Setting.of(spec), {}).setdefault(Arm.of(spec), []).append(result)
    found = {}
    # In an order that does not depend on which run finished first, or in which file it is.
    ordered = sorted(groups, key=_order)
    for setting, arms in zip(
        with_distinct_names(ordered), (groups[each] for each in ordered), strict=True
    ):
        made = [
            Comparison(setting, before, after, arms[before], arms[after])
            for before, after in _questions(arms)
        ]
        found[setting] = [each for each in made if each.difference(primary(setting.dataset))]
    return {setting: each for setting, each in found.items() if each}


def _order(setting: Setting) -> tuple[object, ...]:
    """Of the settings on a page: by data set, then by every option in turn."""
    options = (getattr(setting, each.name) for each in fields(Setting) if each.compare)
    _, *others = options
    keys = ((value is not None, "" if value is None else value) for value in others)  # None first
    return list(SCORES).index(setting.dataset), *keys


def _questions(arms: dict[Arm, list[Result]]) -> Iterator[tuple[Arm, Arm]]:
    """The pairs of arms (before, after) to compare."""
    for metric in METRICS:
        plain, amplified = Arm(metric), Arm(f"amplified-{metric}")
        if plain in arms and amplified in arms:
            yield plain, amplified
    for metric in METRICS:
        plain, amplified = Arm(metric), Arm(f"amplified-{metric}")
        scaled = Arm(f"scaled-{metric}")
        variants = sorted(arms, key=lambda arm: (arm.amplify_over, -arm.eps))
        candidates = [(plain, scaled), (scaled, amplified)]
        for variant in variants:
            if variant.loss == amplified.loss and variant != amplified:
                candidates += [(plain, variant), (amplified, variant)]
        yield from (pair for pair in candidates if set(pair) <= arms.keys())
