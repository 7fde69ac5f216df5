"""The operators as PyTorch sees them: schemas, fake kernels, and the call itself.

The kernels (C++, Triton) compute; this file only describes tensors. Each backend with kernels has
two operators, with the same schemas; a backend with kernels of volumes (N, C, D, H, W) has the same
two once more, in a library of their own:

    image_losses(input, target, weight, mask, data_ranges, factors, coefficients, mean_over,
                 sums, input_gradient, target_gradient, <spec>)
        -> losses, gradient of input, gradient of target
    loss_map(input, target, mask, data_ranges, coefficients, <spec>) -> map

<spec> stands for the fields of `FlatSpec`. `image_losses` returns factors * S, summed as far as
`sums` says, and the gradients of the sum of that (see `lamp_kernels.reduction`). `factors` are
(N, T), or None if all images share them: then `coefficients` and `mean_over` are those of a
`SharedFactors`. `sums` may be "batch" if all rows of `factors` are alike. `mask` broadcasts to the
images, and `data_ranges` is (N,), or None: then the spec's `data_range` is that of all images.
`lamp_kernels.autograd` defines the derivatives, and
`lamp_kernels.transforms` supports the transforms of torch.func. Autocast needs no rule: the kernels
accept mixed floating dtypes, compute in float32 or float64, and return that.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lamp_kernels.spec import LossSpec, Term
from lamp_kernels.tensors import compute_dtype


class FlatSpec(NamedTuple):
    """The part of a `LossSpec` that kernels read, flattened into arguments of the operators.

    Each field is an attribute of `LossSpec`; `metrics` are joined into one string. The same list is
    in csrc/operators.h, and a library built with a different one is not loaded.
    """

    metrics: str  # "ssim+mse"
    metric_parameters: tuple[float, ...]
    data_range: float
    taps: tuple[float, ...]  # by their distance from the center; () without SSIM
    k1: float
    k2: float
    padding: str
    ssim_scale: float
    amplification: str
    amplification_parameters: tuple[float, ...]

    @classmethod
    def of(cls, spec: LossSpec) -> "FlatSpec":
        """A checked spec, flattened."""
        if torch.compiler.is_compiling():
            return cls._flatten(spec)
        flat = _flattened.get(spec)
        if flat is None:
            if len(_flattened) >= MAX_FLATTENED:
                _flattened.clear()
            flat = _flattened[spec] = cls._flatten(spec)
        return flat

    @classmethod
    def _flatten(cls, spec: LossSpec) -> "FlatSpec":
        return cls("+".join(spec.metrics), *[getattr(spec, name) for name in cls._fields[1:]])

    @property
    def terms(self) -> int:
        """The number of terms."""
        return self.metrics.count("+") + 1

    def grids(self, shape: torch.Size) -> list[torch.Size]:
        """See `LossSpec.grids`."""
        terms = tuple(Term(metric) for metric in self.metrics.split("+"))  # type: ignore[arg-type]
        padding: Any = self.padding
        size = max(2 * len(self.taps) - 1, 1)
        return LossSpec(terms, window_size=size, padding=padding).grids(shape)


_flattened: dict[LossSpec, FlatSpec] = {}  # flattening costs the host more than looking up
MAX_FLATTENED = 256

_KINDS = {str: "str", float: "float", int: "int", tuple[float, ...]: "float[]"}
_SPEC = ", ".join(f"{_KINDS[kind]} {name}" for name, kind in FlatSpec.__annotations__.items())
IMAGE_LOSSES_SCHEMA = (
    "(Tensor input, Tensor target, Tensor? weight, Tensor? mask, Tensor? data_ranges, "
    "Tensor? factors, float[] coefficients, "
    "str mean_over, str sums, bool input_gradient, bool target_gradient, "
    f"{_SPEC}) -> (Tensor, Tensor, Tensor)"
)
LOSS_MAP_SCHEMA = (
    "(Tensor input, Tensor target, Tensor? mask, Tensor? data_ranges, Tensor coefficients, "
    f"{_SPEC}) -> Tensor"
)
BLOCK_DOUBLE_BACKWARD_SCHEMA = (
    "(Tensor factor, Tensor input, Tensor target, Tensor upstream) -> Tensor"
)
SCALE_SCHEMA = "(Tensor(a!) gradient, Tensor factor) -> ()"


class Operators(NamedTuple):
    """The operators of a backend.

    scale: multiplies a CUDA gradient (N, C, H, W) in place by factors (N,), or by one factor (),
    and skips the pass over it where they are 1; None if the backend has no such operator.
    """

    image_losses: Any
    loss_map: Any
    block_double_backward: Any
    scale: Any


def register(library: str, scale: bool) -> Operators:
    """Register fake kernels for the operators in `library`. scale: `library` has `scale_`."""
    namespace = getattr(torch.ops, library)
    operators = Operators(
        namespace.image_losses.default,
        namespace.loss_map.default,
        namespace.block_double_backward.default,
        namespace.scale_.default if scale else None,
    )
    torch.library.register_fake(f"{library}::image_losses", _fake_losses)
    torch.library.register_fake(f"{library}::loss_map", _fake_map)
    torch.library.register_fake(f"{library}::block_double_backward", _fake_block)
    if scale:
        torch.library.register_fake(f"{library}::scale_", _fake_scale)
    return operators


def call(operator: Any, *arguments: Any) -> Any:
    """Call the operator; if it runs out of memory, raise the allocator's error.

    The stable ABI does not propagate exceptions: out of memory arrives as a RuntimeError that names
    a line of a header. Allocating the outputs again from here raises the allocator's error.
    """
    if torch.compiler.is_compiling():  # a graph contains only the operator
        return operator(*arguments)
    try:
        return operator(*arguments)
    except RuntimeError as error:
        if "empty" not in str(error):
            raise
        fake = _fake_map if operator.__name__.startswith("loss_map") else _fake_losses
        fake(*arguments)
        raise


# ---- Fake kernels: shapes, dtypes and memory formats --------------------------------------------


def _check_one_device(*tensors: Tensor | None) -> None:
    """Raise if the devices differ: with one tensor on meta, the dispatcher runs the fake kernel."""
    devices = {tensor.device for tensor in tensors if tensor is not None}
    if len(devices) > 1:
        raise RuntimeError(
            f"tensors must be on the same device, got {', '.join(sorted(map(str, devices)))}"
        )


def is_channels_last(image: Tensor) -> bool:
    """Whether an image (N, C, H, W) is dense in channels_last and in no other memory format."""
    return not image.is_contiguous() and image.is_contiguous(memory_format=torch.channels_last)


def empty_in_format_of(like: Tensor, sizes: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An uninitialized tensor on the device and in the memory format of `like`."""
    return torch.empty(
        sizes,
        dtype=dtype,
        device=like.device,
        memory_format=torch.channels_last if is_channels_last(like) else torch.contiguous_format,
    )


def _fake_losses(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    mask: Tensor | None,
    data_ranges: Tensor | None,
    factors: Tensor | None,
    coefficients: Sequence[float],
    mean_over: str,
    sums: str,
    input_gradient: bool,
    target_gradient: bool,
    *spec: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    _check_one_device(input, target, weight, mask, data_ranges, factors)
    dtype = compute_dtype(input.dtype, target.dtype)
    sizes = {
        "terms": (input.shape[0], FlatSpec(*spec).terms),
        "images": input.shape[:1],
        "batch": (),
    }[sums]
    losses = input.new_empty(sizes, dtype=dtype)
    grad_input, grad_target = (
        empty_in_format_of(image, tuple(image.shape), dtype)
        if gradient
        else image.new_empty(0, dtype=dtype)
        for image, gradient in ((input, input_gradient), (target, target_gradient))
    )
    return losses, grad_input, grad_target


def _fake_map(
    input: Tensor,
    target: Tensor,
    mask: Tensor | None,
    data_ranges: Tensor | None,
    coefficients: Tensor,
    *spec: Any,
) -> Tensor:
    _check_one_device(input, target, mask, data_ranges, coefficients)
    sizes = FlatSpec(*spec).grids(input.shape)[0]
    return empty_in_format_of(input, sizes, compute_dtype(input.dtype, target.dtype))


def _fake_scale(gradient: Tensor, factor: Tensor) -> None:
    _check_one_device(gradient, factor)


def _fake_block(factor: Tensor, input: Tensor, target: Tensor, upstream: Tensor) -> Tensor:
    return torch.empty_like(factor)
