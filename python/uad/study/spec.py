"""What identifies one run of a study."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal

from uad.data import fashion_mnist, folder, mnist, textures
from uad.losses import DEFAULTS
from uad.options import BIT_DEPTHS, FITS, INPAINT_LOSSES
from uad.study.arms import ARMS

CLASSES: dict[str, tuple[int | str, ...] | None] = {
    fashion_mnist.NAME: tuple(range(len(fashion_mnist.CLASSES))),
    mnist.NAME: tuple(range(len(mnist.CLASSES))),
    textures.NAME: textures.CATEGORIES,
    folder.NAME: None,
}
"""The data sets of a study with their normal classes; those of a folder are its categories."""


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
    fit: str = "stretch"
    bit_depth: int | None = None
    inpaint: int | None = None
    inpaint_loss: Literal["all", "masked"] = "all"

    def __post_init__(self) -> None:
        """Raise ValueError for an invalid value."""
        self._check_choices()
        self._check_numbers()
        if self.dataset != folder.NAME:
            for name in ("fit", "bit_depth"):
                if getattr(self, name) != FIELDS[name].default:
                    raise ValueError(
                        f"{name} is only for dataset {folder.NAME!r}: leave it out for "
                        f"{self.dataset!r}"
                    )
        if self.inpaint is None and self.inpaint_loss != FIELDS["inpaint_loss"].default:
            raise ValueError(f"inpaint_loss {self.inpaint_loss!r} requires inpaint")

    def _check_choices(self) -> None:
        check_choice("dataset", self.dataset, CLASSES)
        classes = CLASSES[self.dataset]
        if classes is not None:
            check_choice("normal_class", self.normal_class, classes)
        elif not isinstance(self.normal_class, str):
            raise ValueError(
                f"normal_class must be the name of a category, got {self.normal_class!r}"
            )
        check_choice("loss", self.loss, ARMS)
        check_choice("optimizer", self.optimizer, ("adam", "sgd"))
        check_choice("amplify_over", self.amplify_over, ("element", "image", "batch"))
        check_choice("fit", self.fit, FITS)
        check_choice("inpaint_loss", self.inpaint_loss, INPAINT_LOSSES)

    def _check_numbers(self) -> None:
        for name in ("epochs", "batch_size", "width", "latent", "seed", "size", "inpaint"):
            value, least = getattr(self, name), {"seed": 0, "size": 16, "width": 2}.get(name, 1)
            if name in ("size", "inpaint") and value is None:
                continue
            if type(value) is not int or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        depth = self.bit_depth
        if depth is not None and (type(depth) is not int or depth not in BIT_DEPTHS):
            raise ValueError(
                f"bit_depth must be an integer from {BIT_DEPTHS[0]} to {BIT_DEPTHS[-1]}, or null "
                f"for the depth that the files suggest, got {depth!r}"
            )
        for name, below, wanted in (
            ("learning_rate", math.inf, "a finite float above 0"),
            ("eps", 1.0, "a float above 0 and below 1"),
        ):
            value = getattr(self, name)
            if not isinstance(value, float) or not 0 < value < below:
                raise ValueError(f"{name} must be {wanted}, got {value!r}")

    @property
    def metric(self) -> str:
        """The metric of the loss, one of `uad.losses.METRICS`."""
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


FIELDS = {field.name: field for field in fields(RunSpec)}
REQUIRED = tuple(name for name, field in FIELDS.items() if field.default is MISSING)


def check_choice(name: str, value: Any, allowed: Iterable[Any]) -> None:
    """Raise ValueError unless `value` is one of `allowed`; True is not 1, and 1.0 is not either."""
    choices = list(allowed)
    if not any(type(value) is type(each) and value == each for each in choices):
        listing = ", ".join(map(str, choices))
        raise ValueError(
            f"{name} must be one of {listing}; got {value!r}{did_you_mean(value, choices)}"
        )


def did_you_mean(word: Any, choices: Iterable[Any]) -> str:
    """A question that ends a message, about the choice most like `word`; "" if none is like it."""
    words = {each.lower(): each for each in choices if isinstance(each, str)}
    close = difflib.get_close_matches(str(word).lower(), words, n=1)
    return f"; did you mean {words[close[0]]!r}?" if close else ""
