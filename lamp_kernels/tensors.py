"""Checks of tensors: shape, dtype, device and `requires_grad`, never their values.

A check of values would wait for a device and break a compiled graph. NaN and infinity in the
data go through to the result; `check_range` is the explicit, synchronising check of values.
"""

from collections.abc import Sequence

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
    graph.
    """
    each = [like.new_full((1,), value, dtype=dtype) for value in values]
    return torch.cat(each) if len(each) > 1 else each[0]


def in_dtype(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight in the type computed in, broadcasting as it does: what is expanded is not copied.

    PyTorch writes an expanded tensor out in full where it changes the type.
    """
    if weight.dtype == dtype or being_traced():
        return weight.to(dtype)
    for dim, size in enumerate(weight.shape):
        if size > 1 and weight.stride(dim) == 0:
            weight = weight.narrow(dim, 0, 1)
    return weight.to(dtype)


def being_traced() -> bool:
    """Whether a graph is made of this, by torch.compile, torch.export or an ONNX exporter."""
    return torch.compiler.is_compiling() or in_torchscript()


def in_torchscript() -> bool:
    """Whether TorchScript traces this, as ONNX's older exporter has it do."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


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


def check_pair(input: Tensor, target: Tensor) -> None:
    """Raise unless `input` and `target` are comparable images (N, ...).

    Mixed floating dtypes are legal under autocast only: there the network's output is of a
    half type and the target is not, and neither is a mistake.
    """
    check_float_tensor("input", input)
    check_float_tensor("target", target)
    if input.shape != target.shape:
        raise ValueError(
            "input and target must have the same shape, "
            f"got {tuple(input.shape)} and {tuple(target.shape)}"
        )
    if input.dim() == 0:
        raise ValueError("input must have a batch dimension (N, ...), got a 0-dimensional tensor")
    if input.device != target.device:
        raise ValueError(
            f"input and target must be on the same device, got {input.device} and {target.device}"
        )
    if input.dtype != target.dtype and not _autocasting(input.device.type):
        raise TypeError(
            "input and target must have the same dtype outside autocast, "
            f"got {input.dtype} and {target.dtype}"
        )


def check_image_shape(input: Tensor, options: LossOptions) -> None:
    """Raise unless `input` is (N, C, H, W) with sides that the window and its border allow."""
    if input.dim() != 4:
        raise ValueError(
            f"input must be (N, C, H, W) for SSIM, got {input.dim()} dimensions: "
            f"{tuple(input.shape)}" + ("; one image is image[None]" if input.dim() == 3 else "")
        )
    if input.shape[1] == 0:
        raise ValueError(f"input must have at least one channel, got {tuple(input.shape)}")
    least = smallest_side(options.window_size, options.padding)
    height, width = input.shape[2], input.shape[3]
    if height < least or width < least:
        raise ValueError(
            f"input is too small: window_size={options.window_size} with "
            f"padding={options.padding!r} needs sides of at least {least}, got height {height} "
            f"and width {width}"
        )


def smallest_side(window_size: int, padding: Padding) -> int:
    """The smallest height or width, in pixels, that the border rule admits."""
    if padding == "valid":
        return window_size
    # Reflection does not repeat the edge pixel, so it needs one pixel more than it mirrors.
    return window_size // 2 + 1 if padding == "reflect" else 1


def check_weight(weight: Tensor | None, input: Tensor) -> None:
    """Raise unless `weight` is None or a map that broadcasts to `input` and wants no gradient."""
    if weight is None:
        return
    if not isinstance(weight, Tensor):
        raise TypeError(f"weight must be a torch.Tensor or None, got {type(weight).__name__}")
    _check_dense("weight", weight)
    if weight.dtype.is_complex:
        raise TypeError(f"weight must be real, got {weight.dtype}")
    if weight.requires_grad:
        raise ValueError("weight must not require grad: the loss has no gradient for it")
    if weight.device != input.device:
        raise ValueError(
            f"weight must be on the device of input, got {weight.device} and {input.device}"
        )
    trailing = input.shape[input.dim() - weight.dim() :] if weight.dim() <= input.dim() else ()
    if weight.dim() > input.dim() or any(
        own != 1 and own != full for own, full in zip(weight.shape, trailing, strict=True)
    ):
        per_image = input.dim() == 4 and weight.shape == (input.shape[0], *input.shape[2:])
        raise ValueError(
            f"weight of shape {tuple(weight.shape)} does not broadcast to input of shape "
            f"{tuple(input.shape)}; dimensions are matched from the last to the first"
            + ("; one mask for each image is weight[:, None]" if per_image else "")
        )


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
