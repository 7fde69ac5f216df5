"""The tensors of a call: checks, and what follows from shapes and dtypes.

The checks protect memory from direct calls of the operators, like those of csrc/operators.h. Users
see the errors that Python raises earlier.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import torch
import triton.language as tl
from torch import Tensor

from lamp_kernels import ops
from lamp_kernels.backends.triton.kernel_spec import KernelSpec, kernel_spec
from lamp_kernels.reduction import MeanOver, SharedFactors
from lamp_kernels.tensors import FLOAT_DTYPES, compute_dtype, not_expanded, numbers_beside

MEANS: tuple[MeanOver, ...] = get_args(MeanOver)
TRITON_DTYPES = {torch.float32: tl.float32, torch.float64: tl.float64}
SHARED_SLOTS = 3  # how many shared factors the kernels take as numbers

# As the kernels take them: a tensor (N, terms), or (terms,) for a map; or None and numbers.
Factors = tuple[Tensor | None, float, float, float]
NOT_SHARED = (0.0, 0.0, 0.0)


def check(condition: bool, message: str) -> None:
    """Raise a RuntimeError unless the condition holds."""
    if not condition:
        raise RuntimeError(message)


def check_device(input: Tensor, *others: Tensor | None) -> None:
    """Raise a RuntimeError unless all tensors are on one device."""
    for other in others:
        check(other is None or other.device == input.device, "expected all tensors on one device")


class Call(NamedTuple):
    """A checked spec, and the compute type that it has for the images."""

    spec: KernelSpec
    dtype: torch.dtype

    @classmethod
    def of(cls, input: Tensor, target: Tensor, fields: Sequence[Any]) -> "Call":
        """From the images and the operator's arguments that make up a `FlatSpec`."""
        # PyTorch passes lists, which cannot be hashed.
        hashable: list[Any] = [tuple(f) if isinstance(f, list) else f for f in fields]
        spec = kernel_spec(ops.FlatSpec(*hashable))
        check(input.dim() == 4 and target.dim() == 4, "expected tensors (N, C, H, W)")
        check(input.shape == target.shape, "input and target differ in shape")
        check_device(input, target)
        for image in (input, target):
            check(image.layout is torch.strided, "expected dense tensors")
            check(image.dtype in FLOAT_DTYPES, "expected float16, bfloat16, float32 or float64")
        if spec.smallest_side:
            check(
                min(input.shape[2:]) >= spec.smallest_side, "the image is too small for the window"
            )
        return cls(spec, compute_dtype(input.dtype, target.dtype))

    @property
    def triton_dtype(self) -> Any:
        """The compute type, as Triton calls it."""
        return TRITON_DTYPES[self.dtype]

    def grid(self, shape: torch.Size) -> torch.Size:
        """The shape of the first term's losses: of the positions of its window, if it has one."""
        if not self.spec.margin:
            return shape
        lost = 2 * self.spec.margin
        return torch.Size((*shape[:2], shape[2] - lost, shape[3] - lost))


def own_factors(call: Call, factors: Tensor, input: Tensor) -> Factors:
    """Factors of each image, as the kernels take them."""
    check_device(input, factors)
    check(
        factors.dtype == call.dtype and factors.shape == (input.shape[0], call.spec.terms),
        "expected factors (N, T) in the compute type",
    )
    return (factors.contiguous(), *NOT_SHARED)


def shared_factors(
    call: Call, input: Tensor, coefficients: Sequence[float], mean_over: str
) -> Factors:
    """Factors that all images share, as the kernels take them.

    As numbers, so that no kernel has to write them to memory first; as a tensor only for more terms
    than the kernels have arguments for.
    """
    terms = call.spec.terms
    check(
        len(coefficients) == terms,
        "expected a coefficient for each term, or factors",
    )
    over = next((known for known in MEANS if known == mean_over), None)
    if over is None:
        raise RuntimeError(f"mean_over must be one of {', '.join(MEANS)}, got {mean_over!r}")
    shape = input.shape
    grids = [call.grid(shape), *[shape] * (terms - 1)]
    shared = SharedFactors(tuple(coefficients), over).divided(grids)
    if terms > SHARED_SLOTS:
        row = numbers_beside(input, shared, call.dtype)
        return (row.repeat(max(shape[0], 1), 1), *NOT_SHARED)
    first, second, third, *_ = (*shared, *NOT_SHARED)
    return None, first, second, third


class Beside(NamedTuple):
    """The optional tensors beside the images, as the kernels take them.

    weight: with the image's dimensions by stride; weight_offset: of pixel (0, 0) in it.
    mask: with the image's dimensions by stride; its columns are adjacent.
    scales: 1/data_range of each image, (N,), contiguous.
    """

    weight: Tensor | None
    weight_offset: int
    mask: Tensor | None
    scales: Tensor | None

    @classmethod
    def of(
        cls,
        call: Call,
        input: Tensor,
        weight: Tensor | None,
        mask: Tensor | None,
        data_ranges: Tensor | None,
    ) -> "Beside":
        """From the operator's arguments."""
        scales = None
        if data_ranges is not None:
            check_device(input, data_ranges)
            check(
                data_ranges.dtype == call.dtype and data_ranges.shape == input.shape[:1],
                "expected data_ranges (N,) in the compute type",
            )
            scales = data_ranges.reciprocal().contiguous()
        mask = expanded_mask(mask, input, call)
        return cls(*expanded_weight(weight, input, call), mask, scales)


def coefficients_of(call: Call, coefficients: Tensor, input: Tensor) -> Factors:
    """The coefficients of a map, as the kernels take them."""
    check_device(input, coefficients)
    check(
        coefficients.dtype == call.dtype and coefficients.shape == (call.spec.terms,),
        "expected coefficients (T,) in the compute type",
    )
    return (coefficients.contiguous(), *NOT_SHARED)


def expanded_weight(weight: Tensor | None, input: Tensor, call: Call) -> tuple[Tensor | None, int]:
    """The weight with the image's dimensions by stride, and the offset of pixel (0, 0) in it.

    It broadcasts to the image, or to the grid of a "valid" SSIM; then pixel (0, 0) lies before it.
    """
    if weight is None:
        return None, 0
    check_device(input, weight)
    check(
        weight.dim() == 4 and weight.dtype == call.dtype and weight.layout is torch.strided,
        "expected a weight of four dimensions in the compute type",
    )
    margin = call.spec.margin
    strides, offset = [0, 0, 0, 0], 0
    for dim, (size, full) in enumerate(zip(weight.shape, input.shape, strict=True)):
        lost = 2 * margin if dim >= 2 else 0
        check(size in (1, full, full - lost), "the weight does not broadcast to the images")
        if size != 1:
            strides[dim] = weight.stride(dim)
        if size not in (1, full):
            check(call.spec.terms == 1, "a weight on SSIM's grid serves no other term")
            offset -= margin * weight.stride(dim)
    return weight.as_strided(input.shape if not offset else weight.shape, strides), offset


def expanded_mask(mask: Tensor | None, input: Tensor, call: Call) -> Tensor | None:
    """The mask with the image's dimensions by stride.

    The kernels read adjacent columns: a mask that has no such columns is copied.
    """
    if mask is None:
        return None
    check_device(input, mask)
    check(
        mask.dim() == 4 and mask.dtype == call.dtype and mask.layout is torch.strided,
        "expected a mask of four dimensions in the compute type",
    )
    check(
        all(size in (1, full) for size, full in zip(mask.shape, input.shape, strict=True)),
        "the mask does not broadcast to the images",
    )
    width = input.shape[3]
    if width > 1 and (mask.shape[3] == 1 or mask.stride(3) != 1):
        mask = not_expanded(mask)
        mask = mask.expand(*mask.shape[:3], width).contiguous()
    return mask.expand(input.shape)
