"""The runs of a study, read from one JSON file.

{"blocks": [{"note": "why", "dataset": "fashion-mnist", "normal_class": [0, 1], "seed": [0, 1],
             "loss": ["mse", "amplified-mse"], "epochs": 5}]}

A block stands for all combinations of the values it lists. The last name in a block varies fastest,
and blocks run in order. A run that several blocks contain is made once.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from uad.data import fashion_mnist, folder, textures
from uad.losses import DEFAULTS
from uad.study.arms import ARMS

CLASSES: dict[str, tuple[int | str, ...] | None] = {
    fashion_mnist.NAME: tuple(range(len(fashion_mnist.CLASSES))),
    textures.NAME: textures.CATEGORIES,
    folder.NAME: None,
}
"""The data sets of a study with their normal classes; those of a folder are its categories."""


class GridError(Exception):
    """An invalid grid file. The message names the file and the entry."""


@dataclass(frozen=True)
class RunSpec:
    """Everything that determines a run's result; the fields identify its line of the results."""

    dataset: str
    normal_class: int | str
    loss: str
    seed: int
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 1e-3
    epochs: int = 10
    batch_size: int = 32
    size: int | None = None
    width: int = 16
    latent: int = 16
    amplify_over: str = DEFAULTS.amplify_over
    eps: float = DEFAULTS.eps

    def __post_init__(self) -> None:
        """Raise ValueError for an invalid value."""
        choices: dict[str, tuple[Any, ...]] = {
            "dataset": tuple(CLASSES),
            "normal_class": CLASSES.get(self.dataset) or (self.normal_class,),
            "loss": ARMS,
            "optimizer": ("adam", "sgd"),
            "amplify_over": ("element", "image", "batch"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                listing = ", ".join(map(str, allowed))
                raise ValueError(f"{name} must be one of {listing}; got {getattr(self, name)!r}")
        if self.dataset == folder.NAME and not isinstance(self.normal_class, str):
            raise ValueError(
                f"normal_class must be the name of a category, got {self.normal_class!r}"
            )
        for name in ("epochs", "batch_size", "width", "latent", "seed", "size"):
            value, least = getattr(self, name), {"seed": 0, "size": 16, "width": 2}.get(name, 1)
            if name == "size" and value is None:
                continue
            if type(value) is not int or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        for name, below, wanted in (
            ("learning_rate", math.inf, "a finite float above 0"),
            ("eps", 1.0, "a float above 0 and below 1"),
        ):
            value = getattr(self, name)
            if not isinstance(value, float) or not 0 < value < below:
                raise ValueError(f"{name} must be {wanted}, got {value!r}")

    @property
    def metric(self) -> str:
        """The metric of the loss: "mse", "l1" or "ssim"."""
        return self.loss.split("-")[-1]

    @property
    def arm(self) -> str:
        """What the loss does with the metric: "plain", "amplified" or "scaled"."""
        return self.loss.split("-")[0] if "-" in self.loss else "plain"

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for runs with equal results: a plain loss has neither amplify_over nor eps."""
        values = asdict(self)
        if self.arm == "plain":
            del values["amplify_over"], values["eps"]
        return tuple(values.items())


NAMES = tuple(field.name for field in fields(RunSpec))
NEEDED = tuple(field.name for field in fields(RunSpec) if field.default is MISSING)


def read_grid(path: Path) -> list[RunSpec]:
    """The runs of a grid file in order, each once; GridError for an invalid file."""
    try:
        blocks = json.loads(path.read_text(encoding="utf-8"))["blocks"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise GridError(f"{path}: not a grid file: {type(error).__name__}: {error}") from error
    if not isinstance(blocks, list) or not blocks:
        raise GridError(f"{path}: blocks must be a list of at least one block")
    runs: dict[tuple[Any, ...], RunSpec] = {}
    for number, block in enumerate(blocks, 1):
        try:
            for spec in _expand(block):
                runs.setdefault(spec.key, spec)
        except ValueError as error:
            raise GridError(f"{path}: block {number}: {error}") from error
    return list(runs.values())


def _expand(block: Any) -> Iterator[RunSpec]:
    if not isinstance(block, dict):
        raise ValueError(f"a block must be a JSON object, got {json.dumps(block)}")
    axes = {
        name: value if isinstance(value, list) else [value]
        for name, value in block.items()
        if name != "note"
    }
    for name in axes.keys() - set(NAMES):
        raise ValueError(f"unknown option {name!r}: choose from {', '.join(NAMES)}")
    for name in (name for name in NEEDED if name not in axes):
        raise ValueError(f"{name} is missing")
    for name, values in axes.items():
        if not values:
            raise ValueError(f"{name} must list at least one value")
    for combination in itertools.product(*axes.values()):
        yield RunSpec(**dict(zip(axes, combination, strict=True)))
