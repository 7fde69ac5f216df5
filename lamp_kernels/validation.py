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

from lamp_kernels.checks import shown
from lamp_kernels.spec import DATA_RANGES, LossSpec
from lamp_kernels.tensors import FLOAT_DTYPES, Images, has_autocast, readable


def check_float_tensor(name: str, value: object) -> Tensor:
    """Return `value` if it is a dense tensor of a supported floating dtype, else raise."""
    if not isinstance(value, Tensor):
        hint = f"; use torch.as_tensor({name})" if hasattr(value, "__array__") else ""
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}{hint}")
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


def check_features(images: Images) -> None:
    """Raise unless the images are features (N, C, ...), C > 0, and the rest fits the cosine loss.

    There is one loss per position: weight and mask have one channel. Features have no range.
    """
    shape = images.input.shape
    if len(shape) < 2 or shape[1] == 0:
        raise ValueError(
            f"input must be features (N, C, ...) with at least one channel, got {tuple(shape)}"
        )
    for name, value in (("weight", images.weight), ("mask", images.mask)):
        if value is not None and value.dim() > 1 and value.shape[1] != 1:
            raise ValueError(
                f"{name} must have one channel for the cosine loss, which is one number per "
                f"position; got {tuple(value.shape)}"
            )
    if images.data_range is not None:
        raise ValueError(
            "data_range must be None for the cosine loss, which does not depend on it; got "
            f"{shown(images.data_range)}"
        )


def check_image_shape(
    input: Tensor, spec: LossSpec, name: str = "input", *, warns: bool = True
) -> None:
    """Raise unless `input` is images, or volumes, large enough for the window and its padding."""
    check_channels_first(input, name, warns=False, spatial_dims=spec.spatial_dims)
    metric = "ssim" if spec.has_ssim else spec.metrics[-1]
    least = spec.smallest_side(metric)
    *depth, height, width = input.shape[2:]
    if height < least or width < least or (depth and depth[0] < least):
        scales = spec.scales_of(metric)
        many = f"{scales} scales of " if scales > 1 else ""
        window = f"window_size={spec.window_size}" if metric == "ssim" else "GMS"
        raise ValueError(
            f"{name} must have sides of at least {least} pixels for {many}{window} "
            f"with padding={spec.padding!r}, got "
            f"{f'depth {depth[0]}, ' if depth else ''}height {height} and width "
            f"{width}{channels_last_hint(input.shape, name)}"
        )
    if warns and not depth:
        _warn_about_channels_last(input, name)


def check_channels_first(
    input: Tensor,
    name: str = "input",
    *,
    warns: bool = True,
    of_pixels: bool = False,
    spatial_dims: int = 2,
) -> None:
    """Raise unless `input` is (N, C, H, W) with C > 0; warn if it is most likely (N, H, W, C).

    With three spatial dimensions it must be (N, C, D, H, W), and there is no warning.

    of_pixels: the metric has no window, so signals (N, C, L, 1) are legitimate and do not warn.
    """
    if input.dim() != 2 + spatial_dims:
        layout, hint = "(N, C, D, H, W) with spatial_dims=3", ""
        if spatial_dims == 2:
            layout, hint = "(N, C, H, W)", layout_hint(input.shape, name)
        raise ValueError(
            f"{name} must be {layout}, got {input.dim()} dimensions, {tuple(input.shape)}{hint}"
        )
    if input.shape[1] == 0:
        raise ValueError(f"{name} must have at least one channel, got {tuple(input.shape)}")
    if warns and spatial_dims == 2 and not (of_pixels and input.shape[3] == 1):
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
        volumes = "" if last else ", or see AmplifiedSSIMLoss(spatial_dims=3) for SSIM of volumes"
        return f"; for volumes {layout} pass the slices, {slices}{volumes}{videos}"
    return ""


def channels_last_hint(shape: torch.Size, name: str) -> str:
    """How to turn images into (N, C, H, W) if they are most likely (N, H, W, C); else ""."""
    if len(shape) == 4 and shape[3] <= MOST_CHANNELS and min(shape[1], shape[2]) >= SHORTEST_SIDE:
        return f"; for images (N, H, W, C) pass {name}.permute(0, 3, 1, 2)"
    return ""


def check_weight(weight: Tensor | None, input: Tensor, name: str = "weight") -> None:
    """Raise unless `weight` is None or a tensor that broadcasts to `input` without a gradient.

    name: what the errors call it; the rules for a mask are the same.

    One rule for every loss: a weight has as many dimensions as the images, each of their size or
    of size 1; or it is (N,), one number per image; or it is a single number. The meaning of any
    other shape with fewer dimensions would depend on whether N happens to equal C or W.
    """
    if weight is None:
        return
    if not isinstance(weight, Tensor):
        hint = "; pass options by name" if isinstance(weight, Real | str) else ""
        if hasattr(weight, "__array__") and not isinstance(weight, Real):
            hint = f"; use torch.as_tensor({name})"
        raise TypeError(f"{name} must be a torch.Tensor or None, got {type(weight).__name__}{hint}")
    _check_dense(name, weight)
    if weight.dtype.is_complex:
        raise TypeError(f"{name} must be real, got {weight.dtype}")
    _check_constant(name, weight, input)
    if not _broadcasts(weight.shape, input.shape):
        raise ValueError(
            f"{name} of shape {tuple(weight.shape)} does not broadcast to input of shape "
            f"{tuple(input.shape)}: it must have as many dimensions as input, each of the same "
            "size or of size 1, or be (N,), one number per image"
            + "".join(f"; {view}" for view in _views(weight.shape, input.shape, name))
        )


def check_mask(mask: Tensor | None, input: Tensor) -> None:
    """Raise unless `mask` is None or such a tensor as `check_weight` accepts.

    Only integers are read, where that does not synchronize: images of masks are 0 and 255.
    """
    check_weight(mask, input, "mask")
    if mask is None or mask.is_floating_point() or mask.dtype == torch.bool:
        return
    if mask.numel() and readable(mask):
        least, greatest = (int(extreme) for extreme in torch.aminmax(mask))
        if least < 0 or greatest > 1:
            raise ValueError(
                f"mask must be between 0 and 1, got {least} to {greatest}; use mask > 0"
            )


def split_range(data_range: float | Tensor) -> tuple[float, Tensor | None]:
    """The part of a `data_range` that belongs into a `LossSpec`, and the part that is a tensor."""
    return (1.0, data_range) if isinstance(data_range, Tensor) else (data_range, None)


def check_data_ranges(ranges: Tensor, input: Tensor) -> None:
    """Raise unless `ranges` are one positive number per image, (N,), or one number.

    Values are read only where that does not synchronize.
    """
    name = "data_range"
    if not isinstance(ranges, Tensor):
        raise TypeError(
            f"{name} must be a torch.Tensor in a call, one number per image, got {shown(ranges)}; "
            f"pass a number to the constructor, {name}={ranges!r}"
        )
    _check_dense(name, ranges)
    if ranges.dtype.is_complex or ranges.dtype == torch.bool:
        raise TypeError(f"{name} must be real, got {ranges.dtype}")
    _check_constant(name, ranges, input)
    count = ranges.numel()
    # Compared one by one: Dynamo does not find a symbolic size in a tuple.
    if ranges.dim() > 1 or not (count == 1 or count == input.shape[0]):
        raise ValueError(
            f"{name} must be one number, or (N,), one number per image; got shape "
            f"{tuple(ranges.shape)} for N = {input.shape[0]}"
        )
    if readable(ranges) and ranges.numel():
        low, high = (bound.item() for bound in torch.aminmax(ranges.detach()))
        least, greatest = DATA_RANGES
        if not least <= low <= high <= greatest:
            raise ValueError(
                f"{name} must be between {least:g} and {greatest:g}, got values from {low:g} to "
                f"{high:g}"
            )


def _broadcasts(shape: torch.Size, images: torch.Size) -> bool:
    """Whether a weight of this shape fits the images, with one meaning whatever their sizes."""
    if len(shape) == len(images):
        return all(size == 1 or size == full for size, full in zip(shape, images, strict=True))
    one_number = len(shape) < len(images) and all(size == 1 for size in shape)
    return one_number or (len(shape) == 1 and shape[0] == images[0])


def _views(shape: torch.Size, images: torch.Size, name: str) -> Iterator[str]:
    """The possible meanings of a weight that does not broadcast, and the view to pass for each."""
    if len(shape) == len(images) == 4:
        if _broadcasts(torch.Size((shape[0], shape[3], *shape[1:3])), images):
            yield f"for (N, H, W, C) pass {name}.permute(0, 3, 1, 2)"
        return
    sizes = "NCHW" if len(images) == 4 else ("N", *map(str, images[1:]))
    seen = set()
    for dims in combinations(range(len(images)), len(shape)):
        if all(size in (1, images[dim]) for size, dim in zip(shape, dims, strict=True)):
            view = [1] * len(images)
            for size, dim in zip(shape, dims, strict=True):
                view[dim] = size
            if tuple(view) in seen:  # differs only in which dimension of size 1 is new
                continue
            seen.add(tuple(view))
            index = [":" if dim in dims else "None" for dim in range(max(dims) + 1)]
            index += ["None"] * (len(images) - len(index))
            while index[-1] == ":":
                index.pop()
            meant = (sizes[dim] if dim in dims else "1" for dim in range(len(images)))
            yield f"for ({', '.join(meant)}) pass {name}[{', '.join(index)}]"


def _check_constant(name: str, tensor: Tensor, input: Tensor) -> None:
    """Raise if the tensor requires grad or is on another device than the images."""
    if tensor.requires_grad:
        raise ValueError(
            f"{name} must not require grad, because the loss computes no gradient for it: pass "
            f"{name}.detach()"
        )
    if tensor.device != input.device:
        raise ValueError(
            f"{name} must be on the same device as input, got {tensor.device} and {input.device}"
        )


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
