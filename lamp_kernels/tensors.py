"""Checks of tensors: shape, dtype, device and `requires_grad`, never their values.

A check of values would wait for a device and break a compiled graph. NaN and infinity in the
data go through to the result; `check_range` is the explicit, synchronising check of values.
"""

import sys
import warnings
from collections.abc import Iterator, Sequence
from itertools import combinations
from numbers import Real

import torch
from torch import Tensor

from lamp_kernels.options import LossOptions, Padding

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


def check_float_tensor(name: str, value: object) -> Tensor:
    """`value` if it is a dense tensor of a supported floating dtype, else a TypeError."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    _check_dense(name, value)
    if value.dtype not in FLOAT_DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in FLOAT_DTYPES)
        hint = "; use image.float() / 255, or image.float() with data_range=255"
        raise TypeError(
            f"{name} must have one of the dtypes {names}; got {value.dtype}"
            + (hint if value.dtype == torch.uint8 else "")
        )
    return value


def check_pair(input: Tensor, target: Tensor, names: tuple[str, str] = ("input", "target")) -> None:
    """Raise unless `input` and `target` are comparable images (N, ...).

    Mixed floating dtypes are legal under autocast only: there the network's output is of a
    half type and the target is not, and neither is a mistake. names: for the errors.
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
    input: Tensor, options: LossOptions, name: str = "input", *, warns: bool = True
) -> None:
    """Raise unless `input` is (N, C, H, W) with sides that the window and its border allow."""
    check_channels_first(input, name, warns=False)
    least = smallest_side(options.window_size, options.padding)
    height, width = input.shape[2], input.shape[3]
    if height < least or width < least:
        raise ValueError(
            f"{name} is too small: window_size={options.window_size} with "
            f"padding={options.padding!r} needs sides of at least {least}, got height {height} "
            f"and width {width}{channels_last_hint(input.shape, name)}"
        )
    if warns:
        _warn_of_channels_last(input, name)


def check_channels_first(
    input: Tensor, name: str = "input", *, warns: bool = True, of_pixels: bool = False
) -> None:
    """Raise unless `input` is (N, C, H, W), C > 0; warn where it all but surely is (N, H, W, C).

    of_pixels: for a map without a window, which signals (N, C, L, 1) have too.
    """
    if input.dim() != 4:
        raise ValueError(
            f"{name} must be (N, C, H, W), got {input.dim()} dimensions: {tuple(input.shape)}"
            + layout_hint(input.shape, name)
        )
    if input.shape[1] == 0:
        raise ValueError(f"{name} must have at least one channel, got {tuple(input.shape)}")
    if warns and not (of_pixels and input.shape[3] == 1):
        _warn_of_channels_last(input, name)


def _warn_of_channels_last(input: Tensor, name: str) -> None:
    if torch.compiler.is_compiling():  # a comparison of sizes would be a guard, or a constraint
        return
    height, width, channels = input.shape[1:]
    if channels in LIKELY_CHANNELS and min(height, width) >= LIKELY_SIDE:
        warnings.warn(
            f"{name} of shape {tuple(input.shape)} is taken as (N, C, H, W)"
            + channels_last_hint(input.shape, name),
            stacklevel=_callers_level(),
        )


def _callers_level() -> int:
    """The stacklevel at which a warning of the function that asks shows the user's line."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    return level


def _is_ours(module: str) -> bool:
    """Whether a line of this module is between the user's call and the check: PyTorch's too."""
    return module.partition(".")[0] in ("lamp_kernels", "torch")


# A warning, unlike the hint of an error, may meet what is right: features, or signals.
LIKELY_CHANNELS = (1, 3, 4)
LIKELY_SIDE = 16

# Images whose last side is as short as this have their channels there.
MOST_CHANNELS = 4
# And whose other sides are as long as this: features of 256 channels and 4 x 4 pixels have not.
SHORTEST_SIDE = 8


def layout_hint(shape: torch.Size, name: str) -> str:
    """How to make (N, C, H, W) of images of another number of dimensions."""
    last = len(shape) > 0 and shape[-1] <= MOST_CHANNELS
    if len(shape) == 2:
        return f"; one image (H, W) is {name}[None, None]"
    if len(shape) == 3 and last:
        return f"; one image (H, W, C) is {name}.permute(2, 0, 1)[None]"
    if len(shape) == 3:
        return (
            f"; one image (C, H, W) is {name}[None], one of (H, W, C) "
            f"{name}.permute(2, 0, 1)[None], and images (N, H, W) are {name}[:, None]"
        )
    if len(shape) == 5:
        slices = f"{name}.movedim(-1, 1).flatten(1, 2)" if last else f"{name}.flatten(1, 2)"
        layout, frames = ("(N, D, H, W, C)", "") if last else ("(N, C, D, H, W)", ".flatten(0, 1)")
        return f"; there is no 3-D window: volumes {layout} go slice by slice as {slices}" + (
            f", videos (N, T, C, H, W) frame by frame as {name}{frames}" if frames else ""
        )
    return ""


def channels_last_hint(shape: torch.Size, name: str) -> str:
    """For (N, H, W, C), all but surely, the way to (N, C, H, W); else nothing."""
    if shape[3] <= MOST_CHANNELS and min(shape[1], shape[2]) >= SHORTEST_SIDE:
        return f"; images (N, H, W, C) go as {name}.permute(0, 3, 1, 2)"
    return ""


def smallest_side(window_size: int, padding: Padding) -> int:
    """The smallest height or width, in pixels, that the border rule admits."""
    if padding == "valid":
        return window_size
    # Reflection does not repeat the edge pixel, so it needs one pixel more than it mirrors.
    return window_size // 2 + 1 if padding == "reflect" else 1


def check_weight(weight: Tensor | None, input: Tensor) -> None:
    """Raise unless `weight` is None or a map that fits `input` and wants no gradient.

    One rule for every loss: as many dimensions as the images, each of their size or 1; or (N,),
    one number an image; or one number. What else has fewer dimensions would mean one thing in a
    batch of N images and another in one of C or W.
    """
    if weight is None:
        return
    if not isinstance(weight, Tensor):
        hint = "; options go by name" if isinstance(weight, Real | str) else ""
        if hasattr(weight, "__array__") and not isinstance(weight, Real):
            hint = "; use torch.as_tensor(weight)"
        raise TypeError(f"weight must be a torch.Tensor or None, got {type(weight).__name__}{hint}")
    _check_dense("weight", weight)
    if weight.dtype.is_complex:
        raise TypeError(f"weight must be real, got {weight.dtype}")
    if weight.requires_grad:
        raise ValueError("weight must not require grad: the loss has no gradient for it")
    if weight.device != input.device:
        raise ValueError(
            f"weight must be on the device of input, got {weight.device} and {input.device}"
        )
    if not _broadcasts(weight.shape, input.shape):
        raise ValueError(
            f"weight of shape {tuple(weight.shape)} does not broadcast to input of shape "
            f"{tuple(input.shape)}: it must have as many dimensions, each of input's size or 1, or "
            "be (N,), one number an image"
            + "".join(f"; {view}" for view in _views(weight.shape, input.shape))
        )


def as_many_dimensions(weight: Tensor, input: Tensor) -> Tensor:
    """A checked weight as the images have them: (N,) as (N, 1, ...), one number as (1, 1, ...)."""
    if weight.dim() == input.dim():
        return weight
    return weight.reshape(-1, *(1,) * (input.dim() - 1))


def _broadcasts(shape: torch.Size, images: torch.Size) -> bool:
    """Whether a weight of this shape has one meaning for these images, whatever their sizes."""
    if len(shape) == len(images):
        return all(own == 1 or own == full for own, full in zip(shape, images, strict=True))
    one_number = len(shape) < len(images) and all(own == 1 for own in shape)
    return one_number or (len(shape) == 1 and shape[0] == images[0])


def _views(shape: torch.Size, images: torch.Size) -> Iterator[str]:
    """What a weight may mean that does not broadcast, each with the way to say so."""
    if len(shape) == len(images) == 4:
        if _broadcasts(torch.Size((shape[0], shape[3], *shape[1:3])), images):
            yield "for (N, H, W, C) give weight.permute(0, 3, 1, 2)"
        return
    sizes = "NCHW" if len(images) == 4 else ("N", *map(str, images[1:]))
    shown = set()
    for dims in combinations(range(len(images)), len(shape)):
        if all(own in (1, images[dim]) for own, dim in zip(shape, dims, strict=True)):
            view = [1] * len(images)
            for own, dim in zip(shape, dims, strict=True):
                view[dim] = own
            if tuple(view) in shown:  # it only puts a size of 1 elsewhere
                continue
            shown.add(tuple(view))
            index = [":" if dim in dims else "None" for dim in range(max(dims) + 1)]
            index += ["None"] * (len(images) - len(index))
            while index[-1] == ":":
                index.pop()
            meant = (sizes[dim] if dim in dims else "1" for dim in range(len(images)))
            yield f"for ({', '.join(meant)}) give weight[{', '.join(index)}]"


def _check_dense(name: str, tensor: Tensor) -> None:
    if tensor.is_nested:
        raise TypeError(
            f"{name} must be a dense tensor, got a nested one: give its parts one by one "
            "(tensor.unbind()), or pad them and give a weight of 0 to what is padded"
        )
    if tensor.is_quantized:
        raise TypeError(f"{name} must not be quantised, got {tensor.dtype}: use dequantize()")
    if type(tensor) is not Tensor and hasattr(tensor, "to_local"):
        raise TypeError(
            f"{name} must be a local tensor, got a DTensor: use to_local(), and average the losses "
            "over the ranks as data parallelism does the gradients"
        )
    if tensor.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got one of layout {tensor.layout}")


def has_autocast(device_type: str) -> bool:
    """Whether this kind of device has autocast; PyTorch raises where it is asked of one without."""
    return torch.amp.is_autocast_available(device_type)


# Dynamo of PyTorch 2.10 and 2.11 cannot trace is_autocast_available; a constant it takes. This is
# what torch.compiler.assume_constant_result sets; that function imports the whole compiler.
has_autocast._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _autocasting(device_type: str) -> bool:
    return has_autocast(device_type) and torch.is_autocast_enabled(device_type)
