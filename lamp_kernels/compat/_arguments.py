"""Arguments that the packages accept: numbers in tensors and arrays, weights in any sequence."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lamp_kernels.spec import LossSpec, check_data_range
from lamp_kernels.validation import check_float_tensor, check_image_shape, check_pair


def number(value: Any) -> Any:
    """The number in a tensor or array of one element, which synchronizes; otherwise `value`."""
    return value.item() if hasattr(value, "item") and _numel(value) == 1 else value


def numbers(value: Any) -> Any:
    """A sequence, tensor or array as a list of numbers.

    Anything else is returned as it is, so that the check that follows names it in its error.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [number(each) for each in value]
    return value


def data_range(value: Any, name: str) -> float:
    """Return `value` as a float, or raise an error that uses the package's name for it."""
    return check_data_range(number(value), name)


def promoted(img1: Tensor, img2: Tensor, names: tuple[str, str]) -> tuple[Tensor, Tensor]:
    """Both images in the dtype that PyTorch promotes theirs to; integers become float32."""
    images = [_floating(image, name) for image, name in zip((img1, img2), names, strict=True)]
    dtype = torch.promote_types(*(image.dtype for image in images))
    first, second = (image.to(dtype) for image in images)
    return first, second


def check_images(img1: Tensor, img2: Tensor, names: tuple[str, str], spec: LossSpec) -> None:
    """Raise the errors of the losses, but with the package's names of the images."""
    check_pair(img1, img2, names)
    check_image_shape(img1, spec, names[0], warns=False)  # the losses warn


def _numel(value: Any) -> int:
    count = getattr(value, "numel", None)
    return int(count()) if callable(count) else int(getattr(value, "size", 0))


def _floating(image: Tensor, name: str) -> Tensor:
    if isinstance(image, Tensor) and not (image.is_floating_point() or image.is_complex()):
        image = image.to(torch.float32)
    return check_float_tensor(name, image)
