"""Rounding errors: each contestant in float32 against its own definition in float64."""

from collections.abc import Sequence

import torch
from torch import Tensor

from suite.cases import nearly_equal_pair, textured_pair
from suite.contestants import Contestant
from suite.measure import Row, digits, progress, reason_of

SHAPE = (2, 3, 96, 96)
PAIRS = {"textured": textured_pair, "nearly equal": nearly_equal_pair}


def errors(contestants: Sequence[Contestant], shape: tuple[int, ...] = SHAPE) -> list[Row]:
    """Relative errors of the loss, and of the gradient in the L2 norm, on both image pairs.

    The float64 values come from this library's reference with the contestant's own border, scale
    and amplification, on the same float32 images.
    """
    progress("errors")
    rows: list[Row] = []
    for pair, make in PAIRS.items():
        input, target = make(shape)
        for contestant in contestants:
            row: Row = {"contestant": contestant.name, "pair": pair}
            try:
                loss, gradient = contestant.setup(input, target).forward_backward()
            except Exception as error:  # one failing contestant must not end the run
                rows.append({**row, "skipped": reason_of(error)})
                continue
            x = input.double().requires_grad_()
            exact = contestant.exact(x, target.double())
            (slope,) = torch.autograd.grad(exact, x)
            margin = contestant.margin
            row["loss_error"] = digits(abs(_number(loss) - exact.item()) / abs(exact.item()), 2)
            row["gradient_error"] = digits(_distance(_inner(gradient, margin), slope, margin), 2)
            rows.append(row)
    return rows


def _number(loss: Tensor | float) -> float:
    return loss.item() if isinstance(loss, Tensor) else float(loss)


def _inner(image: Tensor, margin: int) -> Tensor:
    height, width = image.shape[-2:]
    return image[..., margin : height - margin, margin : width - margin]


def _distance(found: Tensor, exact: Tensor, margin: int) -> float:
    exact = _inner(exact, margin)
    return float((found.double() - exact).norm() / exact.norm())
