"""Whether the images of a run are still those that it was started with."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from uad import checkpoint
from uad.data import AnomalyData, fingerprint
from uad.run_folder import CHECKPOINT

PROSE = ("title", "note", "found", "notices")
"""Entries of "data" in metrics.json that only people read; new wording does not mean new data."""

DIGESTS = {"train_digest": "training images", "test_digest": "test images or their masks"}
"""What each digest in "data" is about."""


def digests(data: AnomalyData) -> dict[str, str]:
    """Digests of the training images in their order, and of the test images with their masks."""
    test: list[str] = []
    for index, (image, kind) in enumerate(zip(data.test, data.kinds, strict=True)):
        test += [fingerprint(image), kind]
        if data.masks is not None:
            test.append(fingerprint(data.masks[index]))
        if data.annotated is not None:
            test.append(str(bool(data.annotated[index])))
    return {"train_digest": _digest(data.fingerprints), "test_digest": _digest(test)}


def _digest(texts: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(texts).encode(), digest_size=12).hexdigest()


def data_changes(
    folder: Path, before: Mapping[str, Any], after: Mapping[str, Any], data: AnomalyData
) -> str:
    """What differs between the data of the run in `folder` and `data`; "" if nothing does.

    before, after: "data" in metrics.json, and what `outcome.describe_data` says now. Whatever an
    older version did not store is not compared.
    """
    described = known_detector(folder)
    preparation = before.get("preparation") or described.get("preparation") or {}
    entries = {name: value for name, value in before.items() if name not in PROSE}
    compared = _flat({**entries, "preparation": preparation})
    now = _flat(after)
    changes = [
        f"{name} was {value}, now {now.get(name, 0)}"
        for name, value in compared.items()
        if name not in DIGESTS and now.get(name, 0) != value
    ]
    changes += [  # kinds that are new
        f"{name} was 0, now {now[name]}"
        for name in now
        if name.startswith("kinds.") and name not in compared
    ]
    images = training_changes(described.get("fingerprints") or (), data)
    return ", ".join([*changes, *([images] if images else _digest_changes(before, after))])


def _digest_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [
        f"the {what} differ"
        for name, what in DIGESTS.items()
        if name in before and before[name] != after[name]
    ]


def _flat(entries: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """The entries of an object and of those in it, by names like "kinds.dent"."""
    found: dict[str, Any] = {}
    for name, value in entries.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{place}{name}.")
        else:
            found[place + name] = value
    return found


def training_changes(before: Sequence[str], data: AnomalyData) -> str:
    """How many training images differ from those with these fingerprints; "" if none does.

    before: empty if an older version did not store them; then "" too.
    """
    if not before or tuple(before) == data.fingerprints:
        return ""
    missing = (Counter(before) - Counter(data.fingerprints)).total()
    added = (Counter(data.fingerprints) - Counter(before)).total()
    if not missing and not added:
        return "the training images are in another order (renamed?)"
    return (
        f"{missing} of {len(before)} training images are gone or changed, "
        f"{added} of {len(data.fingerprints)} are new"
    )


def known_detector(folder: Path) -> dict[str, Any]:
    """What the first checkpoint that describes its images says; empty if there is none.

    An unreadable checkpoint is reported by the training that continues from it.
    """
    for path in sorted(folder.glob(f"*/{CHECKPOINT}")):
        try:
            described = checkpoint.load(path, torch.device("cpu")).get("detector")
        except checkpoint.CheckpointError:
            continue
        if isinstance(described, dict) and isinstance(described.get("fingerprints"), (list, tuple)):
            return described
    return {}
