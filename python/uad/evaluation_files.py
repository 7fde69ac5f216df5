"""What a run folder keeps of the test images: every score, and pictures of a few of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from uad.checkpoint import atomic_write
from uad.data import GOOD, AnomalyData
from uad.evaluation import annotated, defect_kinds

EXAMPLES = 12
"""Approximate number of test images in a report."""

EXTREMES = 6
"""Number of anomalous images with the lowest scores, and of normal images with the highest."""


def choose_examples(kinds: Sequence[str]) -> list[int]:
    """Indices of about `EXAMPLES` images, the same number of each kind, normal ones first.

    The choice depends on the positions alone, not on the scores. It is spread over each kind,
    because test sets are sorted by category, and shifted from kind to kind, so that the categories
    take turns.
    """
    names = [name for name in (GOOD, *defect_kinds(kinds)) if name in kinds][:EXAMPLES]
    indices = []
    for number, name in enumerate(names):
        places = [index for index, kind in enumerate(kinds) if kind == name]
        count = min(max(1, EXAMPLES // len(names)), len(places))
        shift = (number + 0.5) / len(names)
        indices += [places[int((each + shift) * len(places) / count)] for each in range(count)]
    return indices


def choose_extremes(kinds: Sequence[str], scores: Tensor) -> list[int]:
    """Indices of the likeliest mistakes, at most `EXTREMES` of each type.

    First the anomalous images with the lowest scores, the lowest first; then the normal images with
    the highest, the highest first. They do not depend on a threshold.
    """
    ascending = scores.argsort(stable=True).tolist()
    anomalous = [index for index in ascending if kinds[index] != GOOD]
    normal = [index for index in ascending if kinds[index] == GOOD]
    return anomalous[:EXTREMES] + normal[::-1][:EXTREMES]


def save_examples(path: Path, data: AnomalyData, indices: Sequence[int]) -> None:
    """Write the chosen test images with their masks and kinds to `path`, examples.npz."""
    chosen = list(indices)
    with atomic_write(path) as file:
        np.savez_compressed(
            file,
            kinds=np.array([data.kinds[index] for index in chosen]),
            **_pictures(data, chosen),
        )


def save_evaluation(
    path: Path,
    reconstructions: Tensor,
    maps: Tensor,
    scores: Tensor,
    data: AnomalyData,
    indices: Sequence[int],
) -> None:
    """Write all scores, and pictures of the examples and the extremes, to `path`.

    reconstructions, maps, scores: for all test images. path: <loss>/evaluation.npz.

    The names of the arrays about the extremes begin with "extreme_". The originals of the examples
    are the same for all losses, so they are in examples.npz.
    """
    chosen, extremes = list(indices), choose_extremes(data.kinds, scores)
    arrays: dict[str, Any] = {
        "scores": scores.numpy(),
        "kinds": np.array(data.kinds),
        "reconstructions": reconstructions[chosen].numpy(),
        "maps": maps[chosen].numpy(),
        "extreme_reconstructions": reconstructions[extremes].numpy(),
        "extreme_maps": maps[extremes].numpy(),
    }
    arrays |= {f"extreme_{name}": array for name, array in _pictures(data, extremes).items()}
    if data.files:
        arrays["files"] = np.array(data.files)
    with atomic_write(path) as file:
        np.savez_compressed(file, **arrays)


def normal_scores(path: Path) -> list[float]:
    """The scores of the normal test images in evaluation.npz."""
    with np.load(path, allow_pickle=False) as arrays:
        scores: list[float] = arrays["scores"][arrays["kinds"] == GOOD].tolist()
    return scores


def _pictures(data: AnomalyData, chosen: list[int]) -> dict[str, Any]:
    """The chosen test images, their positions in the test set, and their masks."""
    arrays: dict[str, Any] = {"originals": data.test[chosen].numpy(), "indices": np.array(chosen)}
    if data.masks is not None:
        arrays |= {"masks": data.masks[chosen].numpy(), "annotated": annotated(data)[chosen]}
    return arrays
