"""What to add to results that allow no comparison."""

from __future__ import annotations

from collections.abc import Sequence

from uad.study.measures import primary
from uad.study.statistics import Result


def missing_for_comparison(results: Sequence[Result]) -> str:
    """Why no two of these runs can be compared, and what to do."""
    if not results:
        return "it has no finished run yet"
    finished = [result for result in results if "failed" not in result]
    if not finished:
        return (
            f"all runs failed, the first with: {results[0]['failed']}; lower learning_rate in the "
            "grid"
        )
    if all(primary(result["dataset"])(result) is None for result in finished):
        return (
            "no run has an image AUROC, which requires both normal and anomalous test images; add "
            "those that are missing"
        )
    losses = list(dict.fromkeys(result["loss"] for result in finished))
    metrics = [loss.split("-")[-1] for loss in losses]
    if len(set(metrics)) == len(metrics):
        listing = ", ".join(losses)
        wanted = " or ".join(map(_counterpart, losses))
        return f"its only {'losses are' if len(losses) > 1 else 'loss is'} {listing}; add {wanted}"
    return "give the losses to be compared the same classes, seeds and options"


def _counterpart(loss: str) -> str:
    metric = loss.split("-")[-1]
    return f"amplified-{metric}" if loss == metric else metric
