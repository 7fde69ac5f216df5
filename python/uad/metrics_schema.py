"""The entries of metrics.json, with the values that they may have.

A schema is a dictionary: names of entries, with a `Kind` or another schema. A name that ends in "?"
is an entry that runs of older versions lack.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from uad.losses import LOSSES
from uad.options import DATA_SETS, FITS, INPAINT_LOSSES, POOLINGS, SCORE_METRICS

MAX = sys.float_info.max

ROUNDING = 1e-9
"""By so much a perfect area under a curve may exceed 1."""


@dataclass(frozen=True)
class Kind:
    """The values that an entry may have."""

    words: str
    """Completes "must be"."""
    fits: Callable[[Any], bool]


@dataclass(frozen=True)
class Each:
    """An object with any names, whose values all have the same kind or schema."""

    value: Any


def _is_number(value: Any) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return abs(value) <= MAX and math.isfinite(value)  # an integer may be too large for isfinite


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def or_null(kind: Kind) -> Kind:
    """The same kind, or null."""
    return Kind(f"{kind.words}, or null", lambda value: value is None or kind.fits(value))


def list_of(kind: Kind, words: str) -> Kind:
    """A list of values of this kind."""
    return Kind(words, lambda value: isinstance(value, list) and all(map(kind.fits, value)))


def one_of(*names: str) -> Kind:
    """One of these texts."""
    return Kind(f"one of {', '.join(names)}", lambda value: value in names)


TEXT = Kind("a string", lambda value: isinstance(value, str))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
NUMBER = Kind("a finite number", _is_number)
NOT_NEGATIVE = Kind("a finite number, 0 or more", lambda value: _is_number(value) and value >= 0)
POSITIVE = Kind("a positive number", lambda value: _is_number(value) and value > 0)
SHARE = Kind("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1 + ROUNDING)
FRACTION = Kind("a number between 0 and 1", lambda value: _is_number(value) and 0 < value < 1)
COUNT = Kind("a positive integer", lambda value: _is_integer(value) and value > 0)
WHOLE = Kind("an integer, 0 or more", lambda value: _is_integer(value) and value >= 0)
TEXTS = list_of(TEXT, "a list of strings")
NAMES = Kind("a list of names", lambda value: TEXTS.fits(value) and len(value) > 0)
SIZE = Kind(
    "a list of three positive integers",
    lambda value: isinstance(value, list) and len(value) == 3 and all(map(COUNT.fits, value)),
)

CONFIG = {
    "data": one_of(*DATA_SETS), "root": or_null(TEXT), "category": or_null(NAMES),
    "normal_class": or_null(WHOLE), "size": or_null(COUNT), "channels": or_null(COUNT),
    "fit?": one_of(*FITS), "bit_depth?": or_null(COUNT), "skip_bad?": FLAG,
    "hold_out?": or_null(FRACTION),
    "loss": or_null(one_of(*LOSSES)), "compare": or_null(NAMES),
    "amplify_over": TEXT, "eps": POSITIVE, "padding": TEXT, "window_size": COUNT,
    "backend": or_null(TEXT),
    "seed": WHOLE, "epochs": COUNT, "batch_size": COUNT, "lr": POSITIVE,
    "grad_clip": or_null(POSITIVE), "width": COUNT, "latent": COUNT, "device": TEXT,
    "inpaint?": or_null(COUNT), "inpaint_loss?": one_of(*INPAINT_LOSSES),
    "amp": or_null(TEXT), "compile": FLAG, "threads": or_null(COUNT),
    "score_metric": TEXT, "mean_filter?": WHOLE, "smooth_sigma": NOT_NEGATIVE, "pooling": TEXT,
    "topk": or_null(POSITIVE), "false_positive_rate?": FRACTION, "nproc_per_node?": COUNT,
}  # fmt: skip
"""The options of train.py. Their ranges are those of its command line."""

DATA = {
    "name": TEXT, "title": TEXT, "note": TEXT, "found?": TEXT, "notices?": TEXTS,
    "train": COUNT, "test_normal": WHOLE, "test_anomalous": WHOLE, "held_out?": WHOLE,
    "size": SIZE, "kinds": Each(COUNT),
    "preparation?": {
        "size": COUNT, "channels": COUNT, "fit": TEXT, "full_scale": or_null(POSITIVE),
        "eight_bit": FLAG,
    },
    "train_digest?": TEXT, "test_digest?": TEXT,
}  # fmt: skip

SCORING = {
    "metric": one_of(*SCORE_METRICS),
    "mean_filter?": WHOLE,
    "smooth_sigma": NOT_NEGATIVE,
    "pooling": one_of(*POOLINGS),
    "topk": POSITIVE,
}

IMAGE_FIGURES = ("image_auroc", "image_ap")

FIGURES = {
    **dict.fromkeys((*IMAGE_FIGURES, "pixel_auroc", "pixel_ap", "aupro"), or_null(SHARE)),
    "count_masks?": WHOLE,
}

EVALUATION = {
    **FIGURES,
    "psnr_normal": or_null(NUMBER), "count_normal": WHOLE, "count_anomalous": WHOLE,
    "per_kind": Each({**FIGURES, "count": COUNT}),
}  # fmt: skip

HISTORY = {
    "epoch": list_of(COUNT, "a list of positive integers"),
    "loss": list_of(NUMBER, "a list of finite numbers"),
    "tangent_share": list_of(SHARE, "a list of numbers from 0 to 1"),
}

ARM = {
    "evaluation": EVALUATION, "history": HISTORY, "seconds_per_step": NOT_NEGATIVE,
    "loss_share": NOT_NEGATIVE, "steps?": COUNT, "parameters": COUNT,
}  # fmt: skip

METRICS = {
    "config": CONFIG,
    "environment": {
        "torch": TEXT, "lamp_kernels": TEXT, "date": TEXT, "python?": TEXT, "platform?": TEXT,
        "device?": TEXT, "threads?": COUNT,
    },
    "data": DATA,
    "scoring": SCORING,
    "effective_batch_size?": COUNT,
    "arms": Each(ARM),
    "baselines?": Each(EVALUATION),
}  # fmt: skip
