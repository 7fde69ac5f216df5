"""The GPU that a call runs on, as tiling.py describes it."""

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch
from torch import Tensor

from lamp_kernels.backends.triton import tiling
from lamp_kernels.backends.triton.interpreter import INTERPRETED


def current(tensor: Tensor) -> AbstractContextManager[object]:
    """A context in which the tensor's device is current: Triton launches on the current device."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


@lru_cache(maxsize=16)
def properties(device: torch.device, dtype: torch.dtype) -> tiling.Device:
    """The device's entry in the table of tiling.py, for this compute type, with its real sizes."""
    use_double = dtype is torch.float64
    if device.type != "cuda" or INTERPRETED:
        return tiling.INTERPRETER_FLOAT64 if use_double else tiling.INTERPRETER
    table = tiling.CUDA_FLOAT64 if use_double else tiling.CUDA
    found = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        table = tiling.HIP_FLOAT64 if use_double else tiling.HIP
        # 64 on compute devices (CDNA), 32 on graphics devices (RDNA).
        table = table._replace(lanes=getattr(found, "warp_size", table.lanes))
    cache = getattr(found, "L2_cache_size", 0)
    return table._replace(
        multiprocessors=found.multi_processor_count, scratch=tiling.scratch(cache)
    )
