"""The Triton operators: torch.ops.lamp_kernels_triton, of the native schema.

Operators of their own and not further kernels of the native ones: which backend computes is the
caller's choice, also where both have kernels for a device. Registering them does not import Triton;
their first call does.
"""

import os
from typing import Any

import torch
from torch import Tensor

from lamp_kernels import ops

NAME = "lamp_kernels_triton"
# As Triton reads it, when it is imported: from then on kernels are interpreted, or compiled.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


def _image_losses(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    from lamp_kernels.triton import launch

    return launch.image_losses(*arguments)


def _loss_map(*arguments: Any) -> Tensor:
    from lamp_kernels.triton import launch

    return launch.loss_map(*arguments)


def _scale_(gradient: Tensor, factor: Tensor) -> None:
    from lamp_kernels.triton import launch

    launch.scale_(gradient, factor)


def _once(factor: Tensor, input: Tensor, target: Tensor, upstream: Tensor) -> Tensor:
    return factor.clone()


def register() -> ops.Operators:
    """Define the operators, once."""
    _library.define(f"image_losses{ops.IMAGE_LOSSES_SCHEMA}")
    _library.define(f"loss_map{ops.LOSS_MAP_SCHEMA}")
    _library.define(f"once{ops.ONCE_SCHEMA}")
    _library.define(f"scale_{ops.SCALE_SCHEMA}")
    _library.impl("once", _once, "CompositeExplicitAutograd")
    for key in ("CUDA", "CPU") if INTERPRETED else ("CUDA",):  # AMD's GPUs have the key CUDA
        _library.impl("image_losses", _image_losses, key)
        _library.impl("loss_map", _loss_map, key)
        _library.impl("scale_", _scale_, key)
    ops.register_once(NAME)
    return ops.register(NAME, "image_losses", "loss_map", "scale_")


_library = torch.library.Library(NAME, "DEF")
