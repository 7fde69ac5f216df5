"""The explicit check of values: do two tensors lie within [0, data_range]?"""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from lamp_kernels.options import check_data_range
from lamp_kernels.tensors import check_float_tensor

FAR_TOO_LARGE = 10  # times as large as the greatest value: 12 bits of 16, [0, 1] of 255

Problem = Literal["", "not finite", "data_range too small", "data_range too large", "below 0"]
PROBLEMS: tuple[Problem, ...] = get_args(Problem)[1:]  # the gravest first


class RangeCheck(NamedTuple):
    """The outcome of `check_range`: true in a condition where every value fits.

    `minimum` and `maximum` are those of the finite values, 0 and 0 where there are none. `problem`
    says what does not fit, and `where` in which tensors: ("input",), ("target",) or both.
    """

    fits: bool
    minimum: float
    maximum: float
    nonfinite: int
    data_range: float
    problem: Problem = ""
    where: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.fits

    def __str__(self) -> str:
        found = f"values from {self.minimum:g} to {self.maximum:g}, {self.nonfinite} not finite"
        if self.fits:
            return f"within [0, {self.data_range:g}]: {found}"
        name = " and ".join(self.where)
        if self.problem == "data_range too large":
            return (
                f"data_range={self.data_range:g} is far too large for {name}: {found}. Pass the "
                "data_range that the images have, or rescale them: as it is, the loss is next to 0"
            )
        advice = {
            "not finite": "Look for their origin",
            "below 0": (
                "Values are below 0: rescale the images (a sigmoid at the network's end, "
                "normalisation undone)"
            ),
            "data_range too small": (
                "The data_range is too small: pass the one that the images have, or rescale them "
                "(a sigmoid at the network's end, normalisation undone)"
            ),
        }[self.problem]
        return f"not within [0, {self.data_range:g}], {name}: {found}. {advice}"


def check_range(input: Tensor, target: Tensor, data_range: float = 1.0) -> RangeCheck:
    """Say whether all values of `input` and `target` are finite and within [0, data_range].

    Nor does a tensor fit whose values, if not all 0, stay below a tenth of data_range, as images in
    [0, 1] under 255 do. Dark images under the right data_range may look the same.

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
    span = check_data_range(data_range)
    least, greatest, nonfinite = math.inf, -math.inf, 0
    problems: dict[Problem, list[str]] = {}
    for name, tensor in (("input", input), ("target", target)):
        values = check_float_tensor(name, tensor).detach()
        finite = values[torch.isfinite(values)]
        missing = values.numel() - finite.numel()
        low = high = 0.0
        if finite.numel():
            low, high = (each.item() for each in torch.aminmax(finite))
            least, greatest = min(least, low), max(greatest, high)
        nonfinite += missing
        for problem in _problems(low, high, missing, span):
            problems.setdefault(problem, []).append(name)
    if least > greatest:
        least = greatest = 0.0
    for problem in PROBLEMS:
        if problem in problems:
            where = tuple(problems[problem])
            return RangeCheck(False, least, greatest, nonfinite, span, problem, where)
    return RangeCheck(True, least, greatest, nonfinite, span)


def _problems(low: float, high: float, nonfinite: int, span: float) -> Iterator[Problem]:
    if nonfinite:
        yield "not finite"
    if high > span:
        yield "data_range too small"
    if low < 0.0:
        yield "below 0"
    if 0.0 < max(high, -low) < span / FAR_TOO_LARGE:
        yield "data_range too large"
