"""Invalid factors and sums, which the operators of every backend must reject."""

from typing import Any

BAD_FACTORS: dict[str, dict[str, Any]] = {
    "both factors and a coefficient": {"coefficients": [1.0]},
    "both factors and a mean": {"mean_over": "image"},
    "neither factors nor coefficients": {"factors": None},
    "one coefficient too many": {"factors": None, "coefficients": [1.0, 2.0]},
    "unknown mean": {"factors": None, "coefficients": [1.0], "mean_over": "channel"},
    "unknown sums": {"sums": "channels"},
}
