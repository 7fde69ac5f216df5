"""What every module needs of tensors: compute types, small tensors, and whether a graph is made."""

from collections.abc import Sequence

import torch
from torch import Tensor

FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def compute_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """What a loss of these dtypes is computed in and returned as: float32, or float64."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


def numbers_beside(like: Tensor, values: Sequence[float], dtype: torch.dtype) -> Tensor:
    """(len(values),) on the device of `like`.

    Not made from the list: that would be copied from the host, waited for, and no part of a CUDA
    graph. Nor by new_full: under vmap it would be mapped where `like` is.
    """
    each = [torch.full((1,), value, dtype=dtype, device=like.device) for value in values]
    return torch.cat(each) if len(each) > 1 else each[0]


def in_dtype(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight in the type computed in, broadcasting as it does: what is expanded is not copied.

    PyTorch writes an expanded tensor out in full where it changes the type.
    """
    return weight if weight.dtype == dtype else not_expanded(weight).to(dtype)


def not_expanded(weight: Tensor) -> Tensor:
    """The weight with size 1 where it was expanded; TorchScript would take strides for constants.

    Another stride than 0 does not become a guard of a graph: it is none of sizes above 1.
    """
    if in_torchscript():
        return weight
    for dim in range(weight.dim()):
        if weight.stride(dim) == 0 and weight.shape[dim] > 1:
            weight = weight.narrow(dim, 0, 1)
    return weight


def being_traced() -> bool:
    """Whether a graph is made of this, by torch.compile, torch.export or an ONNX exporter."""
    return torch.compiler.is_compiling() or in_torchscript()


def in_torchscript() -> bool:
    """Whether TorchScript traces this, as ONNX's older exporter has it do."""
    return bool(torch.jit.is_tracing())


def as_many_dimensions(weight: Tensor, input: Tensor) -> Tensor:
    """A checked weight as the images have them: (N,) as (N, 1, ...), one number as (1, 1, ...)."""
    if weight.dim() == input.dim():
        return weight
    return weight.reshape(-1, *(1,) * (input.dim() - 1))


def has_autocast(device_type: str) -> bool:
    """Whether this kind of device has autocast; PyTorch raises where it is asked of one without."""
    return torch.amp.is_autocast_available(device_type)


# Dynamo of PyTorch 2.10 and 2.11 cannot trace is_autocast_available; a constant it takes. This is
# what torch.compiler.assume_constant_result sets; that function imports the whole compiler.
has_autocast._dynamo_marked_constant = True  # type: ignore[attr-defined]
