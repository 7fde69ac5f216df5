"""Arguments as the packages take them: numbers in tensors and arrays, weights in any sequence."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lamp_kernels.spec import LossSpec, check_data_range
from lamp_kernels.validation import check_float_tensor, check_image_shape, check_pair


def number(value: Any) -> Any:
    """What a tensor or an array of one number holds, which waits for its device; else `value`."""
    return value.item() if hasattr(value, "item") and _numel(value) == 1 else value


def numbers(value: Any) -> Any:
    """The sequence with numbers in the place of tensors; one that is a tensor or array as a list.

    What is no sequence of numbers comes back as it is, for the check that names it.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [number(each) for each in value]
    return value


def data_range(value: Any, name: str) -> float:
    """`value` as a float, or an error by the name that it has in the package."""
    return check_data_range(number(value), name)


def promoted(img1: Tensor, img2: Tensor, names: tuple[str, str]) -> tuple[Tensor, Tensor]:
    """Both images in the dtype that PyTorch promotes theirs to; integers count as float32."""
    images = [_floating(image, name) for image, name in zip((img1, img2), names, strict=True)]
    dtype = torch.promote_types(*(image.dtype for image in images))
    first, second = (image.to(dtype) for image in images)
    return first, second


def check_images(img1: Tensor, img2: Tensor, names: tuple[str, str], spec: LossSpec) -> None:
    """Raise, by the package's names, what the losses raise by theirs."""
    check_pair(img1, img2, names)
    check_image_shape(img1, spec, names[0], warns=False)  # the losses do


def _numel(value: Any) -> int:
    count = getattr(value, "numel", None)
    return int(count()) if callable(count) else int(getattr(value, "size", 0))


def _floating(image: Tensor, name: str) -> Tensor:
    if isinstance(image, Tensor) and not (image.is_floating_point() or image.is_complex()):
        image = image.to(torch.float32)
    return check_float_tensor(name, image)
