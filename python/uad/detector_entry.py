"""Whether a checkpoint describes a usable detector: every value has its type and its range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uad.data.base import Preparation
from uad.model import ConvAutoencoder
from uad.options import FITS, POOLINGS, SCORE_METRICS, Scoring

LARGEST_SIZE = 2**14
"""Side of an image in pixels. Far beyond what a network can be trained on."""

LARGEST_SCORE = float(np.finfo(np.float32).max)


def check_description(entry: Any) -> None:
    """ValueError with what is wrong with the entry "detector" of a checkpoint."""
    _require(isinstance(entry, dict), "detector", "an object", entry)
    for name in ("loss", "data"):
        _require(isinstance(entry.get(name), str), name, "text", entry.get(name))
    _check_network(entry.get("network"))
    _check_preparation(entry.get("preparation"), entry["network"]["channels"])
    _check_scoring(entry.get("scoring"))
    rate = entry.get("false_positive_rate")
    _require(_number(rate) and 0 < rate < 1, "false_positive_rate", "between 0 and 1", rate)
    scores = entry.get("normal_scores")
    _require(isinstance(scores, (list, tuple)), "normal_scores", "a list", scores)
    for score in scores:
        usable = _number(score) and abs(score) <= LARGEST_SCORE
        _require(usable, "normal_scores", "finite numbers", score)
    prints = entry.get("fingerprints")
    _require(isinstance(prints, (list, tuple)), "fingerprints", "a list", prints)
    for each in prints:
        _require(isinstance(each, str), "fingerprints", "texts", each)


def check_weights(network: Mapping[str, int], weights: Mapping[Any, Any]) -> None:
    """ValueError unless these are the weights of such a network. Allocates none of its memory."""
    described = {name: value for name, value in network.items() if name != "inpaint"}
    with torch.device("meta"):
        expected = ConvAutoencoder(**described).state_dict()
    _require(weights.keys() == expected.keys(), "model", f"{len(expected)} weights", len(weights))
    for name, weight in expected.items():
        found = weights[name]
        usable = isinstance(found, Tensor) and found.is_floating_point()
        _require(usable, f"model {name}", "floating-point", type(found).__name__)
        if found.shape != weight.shape:
            raise ValueError(
                f"model {name}: size mismatch: must be {tuple(weight.shape)}, got "
                f"{tuple(found.shape)}"
            )


def _check_network(network: Any) -> None:
    _require(isinstance(network, dict), "network", "an object", network)
    if set(network) - {"inpaint"} != {"channels", "width", "latent"}:
        raise ValueError("network must have channels, width and latent, and may have inpaint")
    for name, value in network.items():
        _require(_integer(value) and value > 0, f"network {name}", "a positive integer", value)
    channels = network["channels"]
    _require(channels in (1, 3), "network channels", "1 or 3", channels)


def _check_preparation(given: Any, channels: int) -> None:
    _require(isinstance(given, dict), "preparation", "an object", given)
    preparation = Preparation(**given)
    size, scale = preparation.size, preparation.full_scale
    usable = _integer(size) and 16 <= size <= LARGEST_SIZE
    _require(usable, "preparation size", f"an integer from 16 to {LARGEST_SIZE}", size)
    found = preparation.channels
    _require(_integer(found) and found == channels, "preparation channels", str(channels), found)
    _choice("preparation fit", preparation.fit, FITS)
    usable = scale is None or (_number(scale) and 0 < scale < 2**16)
    _require(usable, "preparation full_scale", "above 0 and below 65536", scale)
    eight_bit = preparation.eight_bit
    usable = isinstance(eight_bit, bool) and (eight_bit or scale is not None)
    _require(usable, "preparation eight_bit", "true without a full_scale", eight_bit)


def _check_scoring(given: Any) -> None:
    _require(isinstance(given, dict), "scoring", "an object", given)
    scoring = Scoring(**given)
    _choice("scoring metric", scoring.metric, SCORE_METRICS)
    _choice("scoring pooling", scoring.pooling, POOLINGS)
    side, sigma, topk = scoring.mean_filter, scoring.smooth_sigma, scoring.topk
    usable = _integer(side) and (side == 0 or (side > 0 and side % 2 == 1))
    _require(usable, "scoring mean_filter", "0 or an odd integer", side)
    _require(_number(sigma) and sigma >= 0, "scoring smooth_sigma", "0 or more", sigma)
    usable = (_integer(topk) and topk >= 1) or (_number(topk) and 0 < topk <= 1)
    _require(usable, "scoring topk", "a positive integer or a fraction", topk)


def _choice(what: str, found: Any, choices: tuple[str, ...]) -> None:
    usable = isinstance(found, str) and found in choices
    _require(usable, what, f"one of {', '.join(choices)}", found)


def _require(right: bool, what: str, requirement: str, got: object) -> None:
    if not right:
        raise ValueError(f"{what} must be {requirement}, got {got!r:.80}")


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
