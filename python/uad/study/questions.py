"""The questions to a results file: which runs are compared, and by which figure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from uad.data import fashion_mnist, folder, textures
from uad.losses import DEFAULTS
from uad.study.arms import METRICS
from uad.study.experiment import SCORES
from uad.study.results import spec_of
from uad.study.spec import RunSpec
from uad.study.statistics import Difference, Measure, Pair, Result, compare, make_pairs
from uad.study.stuck import mark_stuck

FIGURES = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "aupro": "AUPRO",
}
NAMES = {"mse": "MSE", "l1": "L1", "ssim": "SSIM"}
DATA_TITLES = {
    fashion_mnist.NAME: "Fashion-MNIST", textures.NAME: "Textures", folder.NAME: "Own images",
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """The options that all runs of a comparison share."""

    dataset: str
    optimizer: str
    learning_rate: float
    latent: int
    width: int
    epochs: int
    batch_size: int
    size: int | None
    fit: str
    bit_depth: int | None
    named_fields: tuple[str, ...] = field(default=(), compare=False)
    """The keys of FIELD_TITLES in which settings with the same data and optimizer differ."""

    @staticmethod
    def of(spec: RunSpec) -> Setting:
        """The setting of a run."""
        names = [each.name for each in fields(Setting) if each.compare]
        return Setting(**{name: getattr(spec, name) for name in names})

    def __str__(self) -> str:
        data = DATA_TITLES[self.dataset]
        optimizer = {"adam": "Adam", "sgd": "SGD"}[self.optimizer]
        also = [f"{FIELD_TITLES[name]} {self._value(name)}" for name in self.named_fields]
        return ", ".join((data, self.code, optimizer, *also))

    @property
    def code(self) -> str:
        """The size of the network's code in words."""
        return f"{self.latent}-channel code"

    @property
    def slug(self) -> str:
        """The setting as part of a file name."""
        also = [f"{name.replace('_', '-')}-{self._value(name)}" for name in self.named_fields]
        return "-".join((self.dataset, self.optimizer, str(self.latent), *also))

    def _value(self, name: str) -> str:
        value = getattr(self, name)
        return "default" if value is None else str(value)


FIELD_TITLES = {
    "learning_rate": "learning rate", "width": "width", "epochs": "epochs",
    "batch_size": "batch size", "size": "image size", "fit": "fit", "bit_depth": "bit depth",
}  # fmt: skip
"""Fields that the name of a setting contains only if another setting has a different value."""


def with_distinct_names(settings: Collection[Setting]) -> list[Setting]:
    """The settings, each with a name of its own."""

    def differing(setting: Setting) -> tuple[str, ...]:
        alike = [
            other
            for other in settings
            if (other.dataset, other.optimizer) == (setting.dataset, setting.optimizer)
        ]
        return tuple(
            name for name in FIELD_TITLES if len({getattr(each, name) for each in alike}) > 1
        )

    return [replace(setting, named_fields=differing(setting)) for setting in settings]


@dataclass(frozen=True)
class Arm:
    """Runs with the same loss and, if it is amplified or scaled, the same amplify_over and eps."""

    loss: str
    amplify_over: str = DEFAULTS.amplify_over
    eps: float = DEFAULTS.eps

    @staticmethod
    def of(spec: RunSpec) -> Arm:
        """The arm to which a run belongs."""
        if spec.arm == "plain":
            return Arm(spec.loss)
        return Arm(spec.loss, spec.amplify_over, spec.eps)

    def __str__(self) -> str:
        *prefix, metric = self.loss.split("-")
        text = " ".join((*prefix, NAMES[metric]))
        options = []
        if self.amplify_over != DEFAULTS.amplify_over:
            options.append(f"per {self.amplify_over}")
        if self.eps != DEFAULTS.eps:
            options.append(f"eps {self.eps:g}")
        return f"{text} ({', '.join(options)})" if options else text


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
            for metric in METRICS
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
    _, *others = ("" if value is None else value for value in options)
    numbers = ((str(type(value)), value) for value in others)  # None first, then numbers
    return list(SCORES).index(setting.dataset), *numbers


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


def by_score(figure: str, score: str) -> Measure:
    """The measure of a figure of merit under one of the scores."""
    return lambda result: result.get(figure, {}).get(score)


def primary(dataset: str) -> Measure:
    """The measure that counts most: image AUROC under the primary score."""
    return by_score("image_auroc", next(iter(SCORES[dataset])))


def log_error(side: str, metric: str) -> Measure:
    """Logarithm of a mean error, so that differences are relative changes.

    side: "normal" or "anomalous".
    """
    return lambda result: _log(result[f"error_{side}"][metric])


def log_contrast(metric: str) -> Measure:
    """Logarithm of the ratio of the errors, anomalous over normal images."""

    def measure(result: Result) -> float | None:
        anomalous, normal = (log_error(side, metric)(result) for side in ("anomalous", "normal"))
        return None if anomalous is None or normal is None else anomalous - normal

    return measure


def _log(value: float) -> float | None:
    """The logarithm; None for 0, an error of reconstructions that are exact."""
    return math.log(value) if value > 0 else None
