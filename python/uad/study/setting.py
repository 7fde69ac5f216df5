"""What runs have in common: the setting that a comparison shares, and the arm of one loss."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, fields, replace

from uad.data import fashion_mnist, folder, mnist, textures
from uad.losses import DEFAULTS
from uad.study.spec import RunSpec

NAMES = {"mse": "MSE", "l1": "L1", "ssim": "SSIM", "gms": "GMS", "msgms": "MSGMS"}
DATA_TITLES = {
    fashion_mnist.NAME: "Fashion-MNIST", mnist.NAME: "MNIST", textures.NAME: "Textures",
    folder.NAME: "Own images",
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
    inpaint: int | None
    inpaint_loss: str
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
        return ", ".join((data, self.code, optimizer, *also, *self.inpainting))

    @property
    def inpainting(self) -> list[str]:
        """How the network inpaints, in words; empty if it does not."""
        if self.inpaint is None:
            return []
        return [f"inpainting {self.inpaint}x{self.inpaint}, loss on {self.inpaint_loss} pixels"]

    @property
    def code(self) -> str:
        """The size of the network's code in words."""
        return f"{self.latent}-channel code"

    @property
    def slug(self) -> str:
        """The setting as part of a file name."""
        also = [f"{name.replace('_', '-')}-{self._value(name)}" for name in self.named_fields]
        if self.inpaint is not None:
            also.append(f"inpaint-{self.inpaint}-{self.inpaint_loss}")
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
        text = " ".join((*prefix, "+".join(NAMES[term] for term in metric.split("+"))))
        options = []
        if self.amplify_over != DEFAULTS.amplify_over:
            options.append(f"per {self.amplify_over}")
        if self.eps != DEFAULTS.eps:
            options.append(f"eps {self.eps:g}")
        return f"{text} ({', '.join(options)})" if options else text
