"""The explicit check of values: do two tensors lie within [0, data_range]?"""

from typing import NamedTuple

import torch
from torch import Tensor

from lamp_kernels.options import DATA_RANGES, check_within
from lamp_kernels.tensors import check_float_tensor


class RangeCheck(NamedTuple):
    """The outcome of `check_range`: true in a condition where every value fits.

    `minimum` and `maximum` are those of the finite values, 0 and 0 where there are none.
    """

    fits: bool
    minimum: float
    maximum: float
    nonfinite: int
    data_range: float

    def __bool__(self) -> bool:
        return self.fits

    def __str__(self) -> str:
        found = f"values from {self.minimum:g} to {self.maximum:g}, {self.nonfinite} not finite"
        if self.fits:
            return f"within [0, {self.data_range:g}]: {found}"
        if self.nonfinite:
            return f"not within [0, {self.data_range:g}]: {found}. Look for their origin"
        return (
            f"not within [0, {self.data_range:g}]: {found}. Rescale the images (a sigmoid at the "
            "network's end, normalisation undone) or pass the data_range that they have"
        )


def check_range(input: Tensor, target: Tensor, data_range: float = 1.0) -> RangeCheck:
    """Say whether all values of `input` and `target` are finite and within [0, data_range].

    The losses do not check values, since that would wait for the device in every step. Call
    this once, on a first batch. It synchronises with the device.

    Args:
        input, target: floating tensors of any shape, in the units of `data_range`.
        data_range: the distance between the least and the greatest possible value.

    Returns:
        A `RangeCheck`, true if every value fits; `str()` of it says what was found.

    Raises:
        TypeError: a tensor is not a floating tensor, or data_range is not a number.
        ValueError: data_range is out of range.

    Example:
        >>> image = torch.tensor([0.0, 0.5, 2.0])
        >>> bool(check_range(image, image))
        False
    """
    span = check_within("data_range", data_range, DATA_RANGES)
    least, greatest, nonfinite = float("inf"), float("-inf"), 0
    for name, tensor in (("input", input), ("target", target)):
        values = check_float_tensor(name, tensor).detach()
        finite = values[torch.isfinite(values)]
        nonfinite += values.numel() - finite.numel()
        if finite.numel():
            low, high = torch.aminmax(finite)
            least, greatest = min(least, low.item()), max(greatest, high.item())
    if least > greatest:
        least = greatest = 0.0
    fits = nonfinite == 0 and least >= 0.0 and greatest <= span
    return RangeCheck(fits, least, greatest, nonfinite, span)
