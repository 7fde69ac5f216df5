"""The Triton operators: torch.ops.lamp_kernels_triton, with the schema of the native operators.

They are separate operators, not more kernels for the native ones: the caller chooses the backend,
even if both have kernels for a device. Registering them does not import Triton; their first call
does.
"""

from typing import Any

import torch
from torch import Tensor

from lamp_kernels import ops
from lamp_kernels.backends.triton.interpreter import INTERPRETED

LIBRARY = "lamp_kernels_triton"


def _image_losses(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    from lamp_kernels.backends.triton import launch

    return launch.image_losses(*arguments)


def _loss_map(*arguments: Any) -> Tensor:
    from lamp_kernels.backends.triton import launch

    return launch.loss_map(*arguments)


def _scale_(gradient: Tensor, factor: Tensor) -> None:
    from lamp_kernels.backends.triton import launch

    launch.scale_(gradient, factor)


def _block_double_backward(
    factor: Tensor, input: Tensor, target: Tensor, upstream: Tensor
) -> Tensor:
    return factor.clone()


def define() -> None:
    """Define the operators, once."""
    _library.define(f"image_losses{ops.IMAGE_LOSSES_SCHEMA}")
    _library.define(f"loss_map{ops.LOSS_MAP_SCHEMA}")
    _library.define(f"block_double_backward{ops.BLOCK_DOUBLE_BACKWARD_SCHEMA}")
    _library.define(f"scale_{ops.SCALE_SCHEMA}")
    _library.impl("block_double_backward", _block_double_backward, "CompositeExplicitAutograd")
    for key in ("CUDA", "CPU") if INTERPRETED else ("CUDA",):  # AMD GPUs have the key CUDA
        _library.impl("image_losses", _image_losses, key)
        _library.impl("loss_map", _loss_map, key)
        _library.impl("scale_", _scale_, key)


_library = torch.library.Library(LIBRARY, "DEF")
