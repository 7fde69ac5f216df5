"""Tensor helpers for every module: compute types, small tensors, and whether a graph is traced."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Images(NamedTuple):
    """The tensors of one call. A `LossSpec` says what is computed of them."""

    input: Tensor  # the reconstruction, (N, ...)
    target: Tensor
    weight: Tensor | None = None  # m >= 0, broadcasting to the images
    # In [0, 1], broadcasting to the images; 0: not to be looked at. Of pixels; as backends get it,
    # for GMS and cosine of the loss's positions: no NaN may come from those where it is 0.
    mask: Tensor | None = None
    data_range: Tensor | None = None  # (N,), in place of the spec's


def with_mask(images: Images, mask: Tensor) -> Images:
    """The images with this mask, and a weight that includes it and is 0 where it is."""
    weight = images.weight
    weight = mask if weight is None else (weight * mask).masked_fill(mask == 0, 0)
    return images._replace(weight=weight, mask=mask)


def compute_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """The compute type of a loss of these dtypes, which is also its dtype: float32 or float64."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


def widest_dtype(like: Tensor) -> torch.dtype:
    """float64, or the dtype of `like` on devices that have none."""
    return like.dtype if like.device.type == "mps" else torch.float64


def numbers_beside(like: Tensor, values: Sequence[float], dtype: torch.dtype) -> Tensor:
    """The values as a tensor (len(values),) on the device of `like`.

    torch.tensor(values) would copy from the host, which synchronizes and is not allowed in a CUDA
    graph. Under vmap, like.new_full would return a batched tensor whenever `like` is one.
    """
    each = [torch.full((1,), value, dtype=dtype, device=like.device) for value in values]
    return torch.cat(each) if len(each) > 1 else each[0]


def in_dtype(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight in another dtype, broadcasting as before; expanded dimensions are not copied.

    Tensor.to alone materializes an expanded tensor in full.
    """
    if weight.dtype == dtype:
        return weight
    weight = not_expanded(weight)
    if weight.dtype == torch.bool and readable(weight):  # PyTorch casts bytes faster than booleans
        weight = weight.view(torch.uint8)
    return weight.to(dtype)


def not_expanded(weight: Tensor) -> Tensor:
    """The weight with its expanded dimensions back at size 1.

    torch.compile adds no guard for this: only dimensions of size above 1 and stride 0 are expanded.
    """
    if in_torchscript():  # it would record the strides as constants
        return weight
    for dim in range(weight.dim()):
        if weight.stride(dim) == 0 and weight.shape[dim] > 1:
            weight = weight.narrow(dim, 0, 1)
    return weight


def being_traced() -> bool:
    """Whether torch.compile, torch.export or an ONNX exporter is tracing a graph."""
    return torch.compiler.is_compiling() or in_torchscript()


def readable(tensor: Tensor) -> bool:
    """Whether its values can be read without synchronizing or breaking a graph."""
    return (
        type(tensor) is Tensor
        and tensor.device.type == "cpu"
        and not being_traced()
        and not torch._C._are_functorch_transforms_active()
    )


def in_torchscript() -> bool:
    """Whether TorchScript is tracing, as it does for the older ONNX exporter."""
    return bool(torch.jit.is_tracing())


def with_dims_of(weight: Tensor, input: Tensor) -> Tensor:
    """A checked weight with the images' dimensions: (N,) as (N, 1, ...), one number as (1, ...)."""
    if weight.dim() == input.dim():
        return weight
    return weight.reshape(-1, *(1,) * (input.dim() - 1))


def has_autocast(device_type: str) -> bool:
    """Whether this type of device supports autocast; for others torch.autocast raises."""
    return torch.amp.is_autocast_available(device_type)


# Dynamo in PyTorch 2.10 and 2.11 cannot trace is_autocast_available, so it treats the result as a
# constant. torch.compiler.assume_constant_result sets the same attribute, but imports the compiler.
has_autocast._dynamo_marked_constant = True  # type: ignore[attr-defined]


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """A context in which autocast does not cast operations on this kind of device."""
    if has_autocast(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()
