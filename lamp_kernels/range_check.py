"""The explicit check of values: do two tensors fit [0, data_range]?"""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from lamp_kernels.checks import shown
from lamp_kernels.spec import DEFAULTS, check_data_range
from lamp_kernels.tensors import with_dims_of
from lamp_kernels.validation import check_float_tensor, check_mask

# A data_range this many times the largest value is suspicious, as with 12 of 16 bits or [0, 1] of
# 255.
FAR_TOO_LARGE = 10

Problem = Literal["", "not finite", "data_range too small", "below 0", "data_range too large"]
PROBLEMS: tuple[Problem, ...] = get_args(Problem)[1:]  # the most serious first


class Values(NamedTuple):
    """The range of a tensor's finite values, NaN if it has none, and the number of other values."""

    minimum: float
    maximum: float
    nonfinite: int

    def __str__(self) -> str:
        others = f"{self.nonfinite} NaN or infinite"
        if math.isnan(self.minimum):
            return f"no finite values ({others})" if self.nonfinite else "no values"
        found = f"values from {self.minimum:g} to {self.maximum:g}"
        return f"{found}, {others}" if self.nonfinite else found


_NO_VALUES = Values(math.nan, math.nan, 0)


class RangeCheck(NamedTuple):
    """The result of `check_range`: true in a condition if every value fits.

    `minimum` and `maximum` are those of the finite values of both tensors, NaN if there are none.
    `problem` says what does not fit, and `where` names the tensors: ("input",), ("target",)
    or both. `input` and `target` hold the values of each tensor.
    """

    fits: bool
    minimum: float
    maximum: float
    nonfinite: int
    data_range: float
    problem: Problem = ""
    where: tuple[str, ...] = ()
    input: Values = _NO_VALUES
    target: Values = _NO_VALUES

    def __bool__(self) -> bool:
        return self.fits

    def __str__(self) -> str:
        if self.fits:
            found = str(Values(self.minimum, self.maximum, self.nonfinite))
            return f"within [0, {self.data_range:g}]: {found}"
        each = {"input": self.input, "target": self.target}
        found = "; ".join(f"{name} has {each[name]}" for name in self.where)
        name = " and ".join(self.where)
        if self.problem == "data_range too large":
            return (
                f"data_range={self.data_range:g} is far too large for {name}: {found}. Pass the "
                "data_range of the images, or rescale them; otherwise the loss is close to 0"
            )
        advice = {
            "not finite": "Find out where the NaN or infinite values come from",
            "below 0": (
                "Values are below 0: rescale the images (end the network with a sigmoid, undo the "
                "normalization)"
            ),
            "data_range too small": (
                "data_range is too small: pass the data_range of the images, or rescale them (end "
                "the network with a sigmoid, undo the normalization)"
            ),
        }[self.problem]
        return f"not within [0, {self.data_range:g}], {name}: {found}. {advice}"


def check_range(
    input: Tensor,
    target: Tensor,
    data_range: float = DEFAULTS.data_range,
    mask: Tensor | None = None,
) -> RangeCheck:
    """Check that all values of `input` and `target` are finite and in [0, data_range].

    The check also fails if the values of `target` are not all 0 but stay below a tenth of
    data_range, as images in [0, 1] do with data_range=255. Dark images with the right data_range
    can look the same. So can `input` at the start of training, so its values alone do not fail it.

    The losses do not check values, because that would synchronize with the device in every step.
    Call this once, on the first batch; it synchronizes.

    Args:
        input, target: floating tensors of any shape, in the units of `data_range`.
        data_range: the distance between the smallest and the largest possible value. For one range
            per image, check the quotients of images and ranges.
        mask: broadcasts to the tensors, as the losses take it; what it hides is not checked.

    Returns:
        A `RangeCheck`, true if every value fits; its `str()` says what was found and what to do.

    Raises:
        TypeError: a tensor is not a floating tensor, or data_range is not a number.
        ValueError: data_range is out of range, or the mask does not broadcast to a tensor.

    Example:
        >>> image = torch.tensor([0.0, 0.5, 2.0])
        >>> bool(check_range(image, image))
        False
    """
    if isinstance(data_range, Tensor):
        raise TypeError(
            f"data_range must be a number here, got {shown(data_range)}; check input / ranges and "
            "target / ranges"
        )
    span = check_data_range(data_range)
    each = {name: _values(name, v, mask) for name, v in (("input", input), ("target", target))}
    problems: dict[Problem, list[str]] = {}
    for name, values in each.items():
        for problem in _problems(values, span):
            problems.setdefault(problem, []).append(name)
    if problems.get("data_range too large") == ["input"]:
        del problems["data_range too large"]
    found: Problem = next((problem for problem in PROBLEMS if problem in problems), "")
    ranges = [values for values in each.values() if not math.isnan(values.minimum)]
    return RangeCheck(
        not found,
        min((values.minimum for values in ranges), default=math.nan),
        max((values.maximum for values in ranges), default=math.nan),
        sum(values.nonfinite for values in each.values()),
        span,
        found,
        tuple(problems[found]) if found else (),
        **each,
    )


def _values(name: str, tensor: Tensor, mask: Tensor | None) -> Values:
    values = check_float_tensor(name, tensor).detach()
    if mask is not None:
        check_mask(mask, values)
        values = values[with_dims_of(mask != 0, values).expand_as(values)]
    finite = values[torch.isfinite(values)]
    low = high = math.nan
    if finite.numel():
        low, high = (extreme.item() for extreme in torch.aminmax(finite))
    return Values(low, high, values.numel() - finite.numel())


def _problems(values: Values, span: float) -> Iterator[Problem]:
    if values.nonfinite:
        yield "not finite"
    if values.maximum > span:
        yield "data_range too small"
    if values.minimum < 0.0:
        yield "below 0"
    if 0.0 < max(values.maximum, -values.minimum) < span / FAR_TOO_LARGE:
        yield "data_range too large"
