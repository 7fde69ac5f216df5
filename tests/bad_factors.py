"""What the operators of every backend refuse of factors and sums, in place of good arguments."""

from typing import Any

BAD_FACTORS: dict[str, dict[str, Any]] = {
    "a coefficient beside factors": {"coefficients": [1.0]},
    "a mean beside factors": {"mean_over": "image"},
    "neither factors nor coefficients": {"factors": None},
    "a coefficient too many": {"factors": None, "coefficients": [1.0, 2.0]},
    "unknown mean": {"factors": None, "coefficients": [1.0], "mean_over": "channel"},
    "unknown sums": {"sums": "channels"},
    "factors for the batch": {"sums": "batch"},
}
