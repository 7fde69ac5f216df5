"""The runs of a study, read from one JSON file; python/grids/README.md describes it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from uad.data import folder
from uad.study.spec import FIELDS, REQUIRED, RunSpec, did_you_mean

NOTE = "note"
"""The key of a block that only people read."""


class GridError(Exception):
    """An invalid grid file. The message names the file and the entry."""


def read_grid(path: Path, categories: Sequence[str] | None = None) -> list[RunSpec]:
    """The runs of a grid file, each once, seed by seed; GridError for an invalid file.

    A study that is stopped then has complete pairs in every setting, with fewer seeds.

    categories: those that the image folder holds; None if there is no image folder.
    """
    runs: dict[tuple[Any, ...], RunSpec] = {}
    for number, block in enumerate(_read_blocks(path), 1):
        try:
            for spec in _expand(block):
                if categories is not None and spec.dataset == folder.NAME:
                    _check_category(spec.normal_class, categories)
                runs.setdefault(spec.key, spec)
        except ValueError as error:
            raise GridError(f"{path}: block {number}: {error}") from error
    return sorted(runs.values(), key=lambda spec: spec.seed)


def _read_blocks(path: Path) -> list[Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique)
    except OSError as error:
        raise GridError(f"{path}: cannot be read: {error.strerror or error}") from error
    except json.JSONDecodeError as error:
        raise GridError(
            f"{path}: line {error.lineno}, column {error.colno}: not valid JSON: {error.msg}"
        ) from error
    except ValueError as error:
        raise GridError(f"{path}: {error}") from error
    if not isinstance(content, dict) or "blocks" not in content:
        keys = list(content) if isinstance(content, dict) else []
        raise GridError(
            f'{path}: not a grid file: must be a JSON object with the key "blocks"'
            + (f", got {', '.join(map(repr, keys))}" if keys else "")
        )
    for name in content:
        if name != "blocks":
            raise GridError(f"{path}: unknown key {name!r} next to 'blocks'")
    blocks = content["blocks"]
    if not isinstance(blocks, list) or not blocks:
        raise GridError(f"{path}: blocks must be a list of at least one block")
    return blocks


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object, unless a key occurs twice: JSON would silently keep the last value."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the key {name!r} occurs {names.count(name)} times in one object")
    return dict(pairs)


def _expand(block: Any) -> Iterator[RunSpec]:
    if not isinstance(block, dict):
        raise ValueError(f"a block must be a JSON object, got {json.dumps(block)}")
    axes = {
        name: value if isinstance(value, list) else [value]
        for name, value in block.items()
        if name != NOTE
    }
    for name in axes:
        if name not in FIELDS:
            raise ValueError(
                f"unknown key {name!r}{did_you_mean(name, (*FIELDS, NOTE))}"
                f" (keys: {', '.join((*FIELDS, NOTE))})"
            )
    for name in (name for name in REQUIRED if name not in axes):
        raise ValueError(f"{name} is missing")
    for name, values in axes.items():
        if not values:
            raise ValueError(f"{name} must list at least one value")
    for combination in itertools.product(*axes.values()):
        named = zip(axes, combination, strict=True)
        yield RunSpec(**{name: _number(name, value) for name, value in named})


def _number(name: str, value: Any) -> Any:
    """The value; as a float where JSON writes 1 for 1.0."""
    return float(value) if name in ("learning_rate", "eps") and type(value) is int else value


def _check_category(name: Any, categories: Sequence[str]) -> None:
    if name not in categories:
        listing = ", ".join(categories) or "none"
        raise ValueError(
            f"normal_class {name!r} is not a category of the image folder"
            f"{did_you_mean(name, categories)} (categories: {listing})"
        )
