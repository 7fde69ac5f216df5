"""What is wrong with a metrics.json, checked once so that its readers need not check it again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from uad.data.base import GOOD
from uad.metrics_schema import HISTORY, IMAGE_FIGURES, METRICS, Each, Kind


def find_problem(metrics: Any) -> str:
    """What is wrong with the content of metrics.json, naming the entry; "" if nothing."""
    return next(mismatches(metrics, METRICS, ""), "") or next(contradictions(metrics), "")


def mismatches(found: Any, schema: Any, place: str) -> Iterator[str]:
    """The entries of `found` that are missing or that do not have the kind in `schema`.

    place: the name of `found`.
    """
    if isinstance(schema, Kind):
        if not schema.fits(found):
            yield f"{place} must be {schema.words}, got {_shown(found)}"
        return
    if not isinstance(found, dict):
        yield f"{place or 'the content'} must be an object, got {_shown(found)}"
        return
    if isinstance(schema, Each):
        schema = dict.fromkeys(found, schema.value)
    before = f"{place}." if place else ""
    for marked, expected in schema.items():
        name = marked.removesuffix("?")
        if name in found:
            yield from mismatches(found[name], expected, before + name)
        elif name == marked:
            yield f"{before}{name} is missing"


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 40 else f"{text[:36]} ..."


def contradictions(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Entries that do not agree with each other. The structure must have been checked."""
    config, kinds = metrics["config"], metrics["data"]["kinds"]
    if config["data"] == "folder" and config["root"] is None:
        yield "config.root must be a string for the data set folder, got null"
    counts = {"normal": kinds.get(GOOD, 0), "anomalous": sum(kinds.values()) - kinds.get(GOOD, 0)}
    for name, count in counts.items():
        yield from _unequal(f"data.test_{name}", metrics["data"][f"test_{name}"], count)
    for loss, arm in metrics["arms"].items():
        lengths = {name: len(values) for name, values in arm["history"].items() if name in HISTORY}
        if len(set(lengths.values())) > 1 or not lengths["epoch"]:
            yield f"arms.{loss}.history must have one entry per epoch, has {_shown(lengths)}"
        yield from _evaluation(arm["evaluation"], f"arms.{loss}.evaluation", counts, kinds)
    for name, evaluation in metrics.get("baselines", {}).items():
        yield from _evaluation(evaluation, f"baselines.{name}", counts, kinds)


def _evaluation(
    evaluation: Mapping[str, Any], place: str, counts: Mapping[str, int], kinds: Mapping[str, int]
) -> Iterator[str]:
    """What does not agree with the numbers of test images."""
    for name, count in counts.items():
        yield from _unequal(f"{place}.count_{name}", evaluation[f"count_{name}"], count)
    yield from _undefined(evaluation, place, all(counts.values()))
    defects = {kind: count for kind, count in kinds.items() if kind != GOOD}
    for kind in sorted(defects.keys() | evaluation["per_kind"].keys()):
        inner = f"{place}.per_kind.{kind}"
        if kind not in evaluation["per_kind"]:
            yield f"{inner} is missing"
        elif kind not in defects:
            yield f"{inner} is not in data.kinds"
        else:
            figures = evaluation["per_kind"][kind]
            yield from _unequal(f"{inner}.count", figures["count"], defects[kind])
            yield from _undefined(figures, inner, bool(counts["normal"]))


def _unequal(place: str, value: int, count: int) -> Iterator[str]:
    if value != count:
        yield f"{place} is {value}, but data.kinds gives {count}"


def _undefined(figures: Mapping[str, Any], place: str, defined: bool) -> Iterator[str]:
    """Image figures that are null although there are images of both classes, or the reverse."""
    for name in IMAGE_FIGURES:
        if (figures[name] is not None) != defined:
            must = "a number" if defined else "null"
            yield f"{place}.{name} must be {must} for these kinds, got {_shown(figures[name])}"
