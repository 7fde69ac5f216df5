"""Windowed means and smoothing in plain PyTorch, with the borders of `padding`."""

import math

import torch
from torch import Tensor

from lamp_kernels import windows
from lamp_kernels.slabs import WHOLE, Edges
from lamp_kernels.spec import Padding
from lamp_kernels.tensors import being_traced, in_torchscript, without_autocast

SMOOTHING_REACH = 4.0  # standard deviations, where the Gaussian is cut off


def smoothing_radius(sigma: float) -> int:
    """The number of pixels on each side that `smooth` sees."""
    return math.ceil(SMOOTHING_REACH * sigma)


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Maps (N, P, H, W) smoothed by a normalized Gaussian of `sigma` pixels, borders reflected."""
    return blur(maps, 2 * smoothing_radius(sigma) + 1, sigma, "reflect")


def blur(maps: Tensor, size: int, sigma: float, padding: Padding) -> Tensor:
    """Maps (N, P, H, W) smoothed by a normalized Gaussian window of `size` x `size` pixels."""
    with without_autocast(maps.device.type):
        return window_mean(pad(maps, size // 2, padding), windows.gaussian(size, sigma))


def mean_filter(maps: Tensor, side: int) -> Tensor:
    """Maps (N, P, H, W) averaged over `side` x `side` pixels, 0 outside."""
    with without_autocast(maps.device.type):
        return window_mean(pad(maps, side // 2, "zeros"), windows.uniform(side))


def pad(planes: Tensor, radius: int, padding: Padding, edges: Edges = WHOLE) -> Tensor:
    """The planes (N, P, ...) with the border that the window needs, `radius` on each side.

    Of a slab of volumes, (N, P, D, H, W), only the `edges` have a border along D.
    """
    if padding == "valid":
        return planes
    borders = [(radius, radius)] * (planes.dim() - 2)
    if planes.dim() == 5:
        borders[0] = (radius * edges.first, radius * edges.last)
    if padding == "zeros":
        return torch.nn.functional.pad(planes, [side for pair in borders[::-1] for side in pair])
    # Flips, because the backward pass of pad(mode="reflect") adds in random order on CUDA.
    for dim, (before, after) in enumerate(borders, start=2):
        last = planes.shape[dim] - 1
        parts = [planes]
        if before:
            parts.insert(0, planes.narrow(dim, 1, before).flip(dim))
        if after:
            parts.append(planes.narrow(dim, last - after, after).flip(dim))
        planes = torch.cat(parts, dim=dim)
    return planes


def window_mean(planes: Tensor, taps: list[float]) -> Tensor:
    """G* of each plane (N, P, H, W) or volume (N, P, D, H, W), where the window fits.

    One separable convolution with one group per plane. The window runs along the depth of a volume
    as along the height of a plane that has the volume's rows end to end.
    """
    if planes.dim() == 5:
        slices = window_mean(planes.transpose(1, 2).flatten(0, 1), taps)
        slices = slices.unflatten(0, (planes.shape[0], planes.shape[2])).transpose(1, 2)
        means: Tensor = _mean_along_y(slices.flatten(3), taps).unflatten(3, slices.shape[3:])
        return means
    if in_torchscript():
        return _window_mean_of_single_planes(planes, taps)
    count, size = planes.shape[1], len(taps)
    planes = _in_fast_format(planes)
    along_x = planes.new_tensor(taps).expand(count, 1, 1, size)
    rows = torch.nn.functional.conv2d(planes, along_x, groups=count)
    along_y = along_x.transpose(-2, -1)
    return torch.nn.functional.conv2d(rows, along_y, groups=count).contiguous()


def _mean_along_y(planes: Tensor, taps: list[float]) -> Tensor:
    if in_torchscript():
        along_y = torch.tensor(taps, dtype=planes.dtype, device=planes.device).view(1, 1, -1, 1)
        single = planes.flatten(0, 1).unsqueeze(1)
        means = torch.nn.functional.conv2d(single, along_y)
        return means.view(*planes.shape[:2], *means.shape[-2:])
    count, size = planes.shape[1], len(taps)
    along_y = planes.new_tensor(taps).view(size, 1).expand(count, 1, size, 1)
    return torch.nn.functional.conv2d(_in_fast_format(planes), along_y, groups=count).contiguous()


def _in_fast_format(planes: Tensor) -> Tensor:
    """The planes in the memory format in which PyTorch convolves them fast and exactly.

    PyTorch's depthwise convolutions in float32 use neither TF32 nor bfloat16, whatever the
    precision settings. On the CPU, channels_last is several times faster. On CUDA, contiguous
    planes keep the convolution out of cuDNN, and so out of TF32.
    """
    if _channels_last(planes):  # not by memory_format, of which torch.vmap has none
        return planes.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    return planes.contiguous()


def _channels_last(planes: Tensor) -> bool:
    """Whether to convolve these planes in channels_last format.

    Not in a graph with dynamic sizes: Inductor, as of PyTorch 2.13, cannot order such strides.
    """
    if planes.device.type != "cpu":
        return False
    if not being_traced():
        return True
    from torch.fx.experimental.symbolic_shapes import has_static_value  # imports SymPy

    return all(has_static_value(size) for size in planes.shape[1:])


def _window_mean_of_single_planes(planes: Tensor, taps: list[float]) -> Tensor:
    """The same for the TorchScript ONNX exporter, which must know the shape of the windows.

    There the number of planes is part of the graph and therefore not known.
    """
    along_x = torch.tensor(taps, dtype=planes.dtype, device=planes.device).view(1, 1, 1, -1)
    single = planes.flatten(0, 1).unsqueeze(1)
    rows = torch.nn.functional.conv2d(single, along_x)
    means = torch.nn.functional.conv2d(rows, along_x.transpose(-2, -1))
    return means.view(*planes.shape[:2], *means.shape[-2:])
