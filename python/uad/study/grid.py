"""The runs of a study, read from one JSON file.

{"blocks": [{"note": "why", "dataset": "fashion-mnist", "normal_class": [0, 1], "seed": [0, 1],
             "loss": ["mse", "amplified-mse"], "epochs": 5}]}

A block stands for all combinations of the values it lists; the last name of a block varies
fastest, and blocks are run in order. A run that two blocks have in common is run once.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from uad.data import fashion_mnist, folder, textures
from uad.study.arms import ARMS

CLASSES: dict[str, tuple[int | str, ...] | None] = {
    fashion_mnist.NAME: tuple(range(len(fashion_mnist.CLASSES))),
    textures.NAME: textures.CATEGORIES,
    folder.NAME: None,
}
"""The data sets of a study with their normal classes; of a folder, the names of its categories."""


class GridError(Exception):
    """A grid file that does not say which runs to make. The message names file and entry."""


@dataclass(frozen=True)
class RunSpec:
    """All that decides a run's result; its fields are the key under which the result is kept."""

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
    amplify_over: str = "element"
    eps: float = 1e-2

    def __post_init__(self) -> None:
        """ValueError for a value that no run can have."""
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
                raise ValueError(f"{name} is {getattr(self, name)!r}: choose from {listing}")
        if self.dataset == folder.NAME and not isinstance(self.normal_class, str):
            raise ValueError(f"normal_class is {self.normal_class!r}: it must be a category's name")
        for name in ("epochs", "batch_size", "width", "latent", "seed", "size"):
            value, least = getattr(self, name), {"seed": 0, "size": 16, "width": 2}.get(name, 1)
            if name == "size" and value is None:
                continue
            if type(value) is not int or value < least:
                raise ValueError(f"{name} is {value!r}: it must be an integer, {least} or more")
        for name, below in (("learning_rate", float("inf")), ("eps", 1.0)):
            value = getattr(self, name)
            if not isinstance(value, float) or not 0 < value < below:
                raise ValueError(f"{name} is {value!r}: it must be a number above 0, below {below}")

    @property
    def metric(self) -> str:
        """The error that the loss is made of: "mse", "l1" or "ssim"."""
        return self.loss.split("-")[-1]

    @property
    def arm(self) -> str:
        """What is done with the error: "plain", "amplified" or "scaled"."""
        return self.loss.split("-")[0] if "-" in self.loss else "plain"

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for runs with equal results: only an amplified loss has a level and an eps."""
        values = asdict(self)
        if self.arm == "plain":
            del values["amplify_over"], values["eps"]
        return tuple(values.items())


NAMES = tuple(field.name for field in fields(RunSpec))
NEEDED = tuple(field.name for field in fields(RunSpec) if field.default is MISSING)


def read_grid(path: Path) -> list[RunSpec]:
    """The runs of a grid file in their order, each once."""
    try:
        blocks = json.loads(path.read_text(encoding="utf-8"))["blocks"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise GridError(f"{path}: not a grid file: {type(error).__name__}: {error}") from error
    if not isinstance(blocks, list) or not blocks:
        raise GridError(f"{path}: blocks must be a list with at least one block")
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
        raise ValueError("must be an object of names and values")
    axes = {
        name: value if isinstance(value, list) else [value]
        for name, value in block.items()
        if name != "note"
    }
    for name in axes.keys() - set(NAMES):
        raise ValueError(f"{name!r} is no option of a run: choose from {', '.join(NAMES)}")
    for name in (name for name in NEEDED if name not in axes):
        raise ValueError(f"{name} is missing")
    for name, values in axes.items():
        if not values:
            raise ValueError(f"{name} lists no value")
    for combination in itertools.product(*axes.values()):
        yield RunSpec(**dict(zip(axes, combination, strict=True)))
