"""Checks of tensors: shape, dtype, device and `requires_grad`, but never their values.

Checking values would synchronize with the device and break a compiled graph. NaN and infinity in
the data propagate to the result; `check_range` is the explicit check of values, which synchronizes.
"""

import sys
import warnings
from collections.abc import Iterator
from itertools import combinations
from numbers import Real

import torch
from torch import Tensor

from lamp_kernels.spec import LossSpec
from lamp_kernels.tensors import FLOAT_DTYPES, has_autocast


def check_float_tensor(name: str, value: object) -> Tensor:
    """Return `value` if it is a dense tensor of a supported floating dtype, else raise."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    _check_dense(name, value)
    if value.dtype not in FLOAT_DTYPES:
        *names, last = (str(dtype).removeprefix("torch.") for dtype in FLOAT_DTYPES)
        hint = ""
        if value.dtype == torch.uint8:
            hint = "; use image.float() / 255, or image.float() with data_range=255"
        raise TypeError(
            f"{name} must have dtype {', '.join(names)} or {last}, got {value.dtype}{hint}"
        )
    return value


def check_pair(input: Tensor, target: Tensor, names: tuple[str, str] = ("input", "target")) -> None:
    """Raise unless `input` and `target` are images (N, ...) of the same shape, dtype and device.

    Mixed floating dtypes are legal only under autocast, where the network's output has half
    precision and the target does not. names: what the errors call the two tensors.
    """
    check_float_tensor(names[0], input)
    check_float_tensor(names[1], target)
    both = " and ".join(names)
    if input.shape != target.shape:
        raise ValueError(
            f"{both} must have the same shape, got {tuple(input.shape)} and {tuple(target.shape)}"
        )
    if input.dim() == 0:
        raise ValueError(
            f"{names[0]} must have a batch dimension (N, ...), got a 0-dimensional tensor"
        )
    if input.device != target.device:
        raise ValueError(
            f"{both} must be on the same device, got {input.device} and {target.device}"
        )
    if input.dtype != target.dtype and not _autocasting(input.device.type):
        raise TypeError(
            f"{both} must have the same dtype outside autocast, "
            f"got {input.dtype} and {target.dtype}"
        )


def check_image_shape(
    input: Tensor, spec: LossSpec, name: str = "input", *, warns: bool = True
) -> None:
    """Raise unless `input` is (N, C, H, W) and large enough for the window and its padding."""
    check_channels_first(input, name, warns=False)
    least = spec.smallest_side()
    height, width = input.shape[2], input.shape[3]
    if height < least or width < least:
        scales = len(spec.scale_weights)
        many = f"{scales} scales of " if scales > 1 else ""
        raise ValueError(
            f"{name} must have sides of at least {least} pixels for {many}window_size="
            f"{spec.window_size} with padding={spec.padding!r}, got height {height} and width "
            f"{width}{channels_last_hint(input.shape, name)}"
        )
    if warns:
        _warn_about_channels_last(input, name)


def check_channels_first(
    input: Tensor, name: str = "input", *, warns: bool = True, of_pixels: bool = False
) -> None:
    """Raise unless `input` is (N, C, H, W) with C > 0; warn if it is most likely (N, H, W, C).

    of_pixels: the metric has no window, so signals (N, C, L, 1) are legitimate and do not warn.
    """
    if input.dim() != 4:
        raise ValueError(
            f"{name} must be (N, C, H, W), got {input.dim()} dimensions, {tuple(input.shape)}"
            f"{layout_hint(input.shape, name)}"  # Dynamo cannot add strings
        )
    if input.shape[1] == 0:
        raise ValueError(f"{name} must have at least one channel, got {tuple(input.shape)}")
    if warns and not (of_pixels and input.shape[3] == 1):
        _warn_about_channels_last(input, name)


def _warn_about_channels_last(input: Tensor, name: str) -> None:
    if torch.compiler.is_compiling():  # comparing sizes would add a guard or a constraint
        return
    height, width, channels = input.shape[1:]
    if channels in LIKELY_CHANNELS and min(height, width) >= LIKELY_SIDE:
        warnings.warn(
            f"{name} of shape {tuple(input.shape)} is interpreted as (N, C, H, W)"
            f"{channels_last_hint(input.shape, name)}",
            stacklevel=_user_stacklevel(),
        )


def _user_stacklevel() -> int:
    """The stacklevel with which the caller's warning points to the user's line."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _is_internal(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    return level


def _is_internal(module: str) -> bool:
    """Whether a module belongs to this package or to PyTorch, and not to the user."""
    return module.partition(".")[0] in ("lamp_kernels", "torch")


# Stricter limits for the warning: unlike an error's hint, it can hit valid input, such as features
# or signals.
LIKELY_CHANNELS = (1, 3, 4)
LIKELY_SIDE = 16

# An image whose last dimension is at most this large has its channels there,
MOST_CHANNELS = 4
# provided its other sides are at least this long, which excludes 256 features of 4 x 4 pixels.
SHORTEST_SIDE = 8


def layout_hint(shape: torch.Size, name: str) -> str:
    """How to turn images with another number of dimensions into (N, C, H, W)."""
    last = len(shape) > 0 and shape[-1] <= MOST_CHANNELS
    if len(shape) == 2:
        return f"; for one image (H, W) pass {name}[None, None]"
    if len(shape) == 3 and last:
        return f"; for one image (H, W, C) pass {name}.permute(2, 0, 1)[None]"
    if len(shape) == 3:
        return (
            f"; for one image (C, H, W) pass {name}[None], for one (H, W, C) "
            f"{name}.permute(2, 0, 1)[None], for images (N, H, W) {name}[:, None]"
        )
    if len(shape) == 5:
        slices = f"{name}.movedim(-1, 1).flatten(1, 2)" if last else f"{name}.flatten(1, 2)"
        layout, frames = ("(N, D, H, W, C)", "") if last else ("(N, C, D, H, W)", ".flatten(0, 1)")
        videos = f", for videos (N, T, C, H, W) the frames, {name}{frames}" if frames else ""
        return f"; there is no 3-D window: for volumes {layout} pass the slices, {slices}{videos}"
    return ""


def channels_last_hint(shape: torch.Size, name: str) -> str:
    """How to turn images into (N, C, H, W) if they are most likely (N, H, W, C); else ""."""
    if shape[3] <= MOST_CHANNELS and min(shape[1], shape[2]) >= SHORTEST_SIDE:
        return f"; for images (N, H, W, C) pass {name}.permute(0, 3, 1, 2)"
    return ""


def check_weight(weight: Tensor | None, input: Tensor) -> None:
    """Raise unless `weight` is None or a tensor that broadcasts to `input` without a gradient.

    One rule for every loss: a weight has as many dimensions as the images, each of their size or
    of size 1; or it is (N,), one number per image; or it is a single number. The meaning of any
    other shape with fewer dimensions would depend on whether N happens to equal C or W.
    """
    if weight is None:
        return
    if not isinstance(weight, Tensor):
        hint = "; pass options by name" if isinstance(weight, Real | str) else ""
        if hasattr(weight, "__array__") and not isinstance(weight, Real):
            hint = "; use torch.as_tensor(weight)"
        raise TypeError(f"weight must be a torch.Tensor or None, got {type(weight).__name__}{hint}")
    _check_dense("weight", weight)
    if weight.dtype.is_complex:
        raise TypeError(f"weight must be real, got {weight.dtype}")
    if weight.requires_grad:
        raise ValueError(
            "weight must not require grad, because the loss computes no gradient for it: pass "
            "weight.detach()"
        )
    if weight.device != input.device:
        raise ValueError(
            f"weight must be on the same device as input, got {weight.device} and {input.device}"
        )
    if not _broadcasts(weight.shape, input.shape):
        raise ValueError(
            f"weight of shape {tuple(weight.shape)} does not broadcast to input of shape "
            f"{tuple(input.shape)}: it must have as many dimensions as input, each of the same "
            "size or of size 1, or be (N,), one number per image"
            + "".join(f"; {view}" for view in _views(weight.shape, input.shape))
        )


def _broadcasts(shape: torch.Size, images: torch.Size) -> bool:
    """Whether a weight of this shape fits the images, with one meaning whatever their sizes."""
    if len(shape) == len(images):
        return all(size == 1 or size == full for size, full in zip(shape, images, strict=True))
    one_number = len(shape) < len(images) and all(size == 1 for size in shape)
    return one_number or (len(shape) == 1 and shape[0] == images[0])


def _views(shape: torch.Size, images: torch.Size) -> Iterator[str]:
    """The possible meanings of a weight that does not broadcast, and the view to pass for each."""
    if len(shape) == len(images) == 4:
        if _broadcasts(torch.Size((shape[0], shape[3], *shape[1:3])), images):
            yield "for (N, H, W, C) pass weight.permute(0, 3, 1, 2)"
        return
    sizes = "NCHW" if len(images) == 4 else ("N", *map(str, images[1:]))
    shown = set()
    for dims in combinations(range(len(images)), len(shape)):
        if all(size in (1, images[dim]) for size, dim in zip(shape, dims, strict=True)):
            view = [1] * len(images)
            for size, dim in zip(shape, dims, strict=True):
                view[dim] = size
            if tuple(view) in shown:  # differs only in which dimension of size 1 is new
                continue
            shown.add(tuple(view))
            index = [":" if dim in dims else "None" for dim in range(max(dims) + 1)]
            index += ["None"] * (len(images) - len(index))
            while index[-1] == ":":
                index.pop()
            meant = (sizes[dim] if dim in dims else "1" for dim in range(len(images)))
            yield f"for ({', '.join(meant)}) pass weight[{', '.join(index)}]"


def _check_dense(name: str, tensor: Tensor) -> None:
    if tensor.is_nested:
        raise TypeError(
            f"{name} must be a dense tensor, got a nested tensor: pass its parts one by one "
            "(tensor.unbind()), or pad them and set the weight to 0 there"
        )
    if tensor.is_quantized:
        raise TypeError(f"{name} must not be quantized, got {tensor.dtype}: use dequantize()")
    if type(tensor) is not Tensor and hasattr(tensor, "to_local"):
        raise TypeError(
            f"{name} must be a local tensor, got a DTensor: use to_local(), and average the losses "
            "over the ranks, as data parallelism averages the gradients"
        )
    if tensor.layout is not torch.strided:
        raise TypeError(
            f"{name} must be a dense tensor, got layout {tensor.layout}: use to_dense()"
        )


def _autocasting(device_type: str) -> bool:
    return has_autocast(device_type) and torch.is_autocast_enabled(device_type)
