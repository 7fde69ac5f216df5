"""From the operators' tensors to launches of the kernels. Imported with the first call.

A call with SSIM launches plane_levels, then for each group of planes ssim_losses and, where a
gradient is wanted, ssim_gradients, and at last image_sums or batch_sum. The groups bound the memory
of the h planes between the two kernels: beyond the stored gradients a call holds as many bytes as
tiling.scratch says, or what one plane takes.

The checks guard memory against a direct call, as those of csrc/operators.h do; Python raises the
errors that users see before.
"""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple, get_args

import torch
import triton.language as tl
from torch import Tensor

from lamp_kernels import ops, reference
from lamp_kernels.backends.triton import autotune, jit, tiling, windows
from lamp_kernels.backends.triton.centering import plane_levels
from lamp_kernels.backends.triton.interpreter import INTERPRETED
from lamp_kernels.backends.triton.pixels import pixel_losses
from lamp_kernels.backends.triton.scale import scale_gradient
from lamp_kernels.backends.triton.ssim import ssim_gradients, ssim_losses
from lamp_kernels.backends.triton.sums import batch_sum, image_sums
from lamp_kernels.reduction import MeanOver, SharedFactors
from lamp_kernels.spec import PADDINGS
from lamp_kernels.tensors import FLOAT_DTYPES, compute_dtype

MAX_RADIUS = 7
# In float64 the sums of both gradients' windows, of 13 pixels or more, are more than the registers
# hold: then each gradient has a launch of its own. Columns that are not side by side take registers
# too, for their addresses: float64 images of such strides are copied.
WIDE_IN_FLOAT64 = 6  # radius
LEVEL_SAMPLES = 1024
SUM_BLOCK = 256
BATCH_BLOCK = 2048  # eight loads of a lane on their way
NARROW = 2**31  # pixels that 32 bits count
MEANS: tuple[MeanOver, ...] = get_args(MeanOver)
BORDERS = {
    "reflect": windows.REFLECT.value,
    "valid": windows.VALID.value,
    "zeros": windows.ZEROS.value,
}
REAL = {torch.float32: tl.float32, torch.float64: tl.float64}

# As the kernels take them: (N, terms), or (terms,) for a map; or None, and the terms' numbers.
Factors = tuple[Tensor | None, float, float, float]
NOT_SHARED = (0.0, 0.0, 0.0)


# ---- The operators -------------------------------------------------------------------------------


def image_losses(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    own_factors: Tensor | None,
    coefficients: list[float],
    mean_over: str,
    *arguments: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """The operator of that name; see lamp_kernels/ops.py."""
    *given, sums, input_gradient, target_gradient = arguments
    options = ops.Options(*given)
    call = _Call.of(input, target, options)
    shape = input.shape
    _check_device(input, own_factors, weight)
    if own_factors is None:
        factors = _shared_factors(call, shape, coefficients, mean_over)
    else:
        _check(
            own_factors.dtype == call.dtype and own_factors.shape == (shape[0], call.terms),
            "expected factors (N, T) in the type computed in",
        )
        _check(
            not coefficients and mean_over == "nothing",
            "expected factors or coefficients, not both",
        )
        factors = (own_factors.contiguous(), *NOT_SHARED)
    at, offset = _weight_of(weight, input, call)
    by_input, by_target = (
        ops.empty_in_format_of(image, shape, call.dtype)
        if wanted
        else image.new_empty(0, dtype=call.dtype)
        for image, wanted in ((input, input_gradient), (target, target_gradient))
    )
    # The losses are symmetric, so the gradient of the target alone is that of the first image, too.
    images, sinks = (input, target), (by_input, by_target)
    if target_gradient and not input_gradient:
        images, sinks = (target, input), (by_target, by_input)
    gradients = int(input_gradient) + int(target_gradient)
    with _on(input):
        run = _ssim if options.ssim else _pixels
        partial = run(call, *images, at, offset, factors, gradients, *sinks, None)
        losses = _sums(call, partial, factors, shape[0], sums)
    return losses, by_input, by_target


def loss_map(input: Tensor, target: Tensor, coefficients: Tensor, *arguments: Any) -> Tensor:
    """The operator of that name; see lamp_kernels/ops.py."""
    options = ops.Options(*arguments)
    call = _Call.of(input, target, options)
    _check(
        coefficients.dtype == call.dtype and coefficients.shape == (call.terms,),
        "expected coefficients (T,) in the type computed in",
    )
    _check_device(input, coefficients)
    _check(call.margin == 0 or call.terms == 1, "the terms' maps differ in size")
    batch, channels, height, width = input.shape
    lost = 2 * call.margin
    losses = ops.empty_in_format_of(
        input, (batch, channels, height - lost, width - lost), call.dtype
    )
    with _on(input):
        run = _ssim if options.ssim else _pixels
        factors = (coefficients.contiguous(), *NOT_SHARED)
        run(call, input, target, None, 0, factors, 0, losses, losses, losses)
    return losses


def scale_(gradient: Tensor, factor: Tensor) -> None:
    """The operator of that name: see lamp_kernels/ops.py."""
    _check(
        gradient.dim() == 4
        and gradient.dtype in REAL
        and (gradient.is_contiguous() or ops.is_channels_last(gradient)),
        "expected a gradient (N, C, H, W) in float32 or float64, dense",
    )
    _check(
        factor.dtype == gradient.dtype and factor.shape in (gradient.shape[:1], ()),
        "expected factors (N,), or one (), in the gradient's type",
    )
    _check_device(gradient, factor)
    if gradient.numel() == 0:
        return
    images = gradient.shape[0]
    size = gradient.numel() // images
    runs = tiling.SCALE.runs(size)
    with _on(gradient):
        jit.launch(
            scale_gradient, images * runs, (gradient.dtype,),
            (gradient, factor, factor.stride(0) if factor.dim() else 0, size, runs),
            {"block": tiling.SCALE.block, "pieces": tiling.SCALE.pieces},
            warps=tiling.SCALE.warps,
        )  # fmt: skip


# ---- Checks --------------------------------------------------------------------------------------


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise RuntimeError(message)


def _check_device(input: Tensor, *others: Tensor | None) -> None:
    for other in others:
        _check(other is None or other.device == input.device, "expected all tensors on one device")


class _Call(NamedTuple):
    """What follows from the images' shape and dtypes and from the options."""

    options: ops.Options
    dtype: torch.dtype  # computed in
    terms: int
    radius: int
    margin: int  # rows and columns on each side without SSIM

    @classmethod
    def of(cls, input: Tensor, target: Tensor, options: ops.Options) -> "_Call":
        _check(input.dim() == 4 and target.dim() == 4, "expected tensors (N, C, H, W)")
        _check(input.shape == target.shape, "input and target differ in shape")
        _check_device(input, target)
        for image in (input, target):
            _check(image.layout is torch.strided, "expected dense tensors")
            _check(image.dtype in FLOAT_DTYPES, "expected float16, bfloat16, float32 or float64")
        terms = options.ssim + options.mse + options.l1
        _check(terms > 0, "expected at least one term")
        radius = options.window_size // 2
        if options.ssim:
            _check(
                options.window_size in range(3, 2 * MAX_RADIUS + 2, 2),
                f"expected an odd window of 3 to {2 * MAX_RADIUS + 1}",
            )
            padding = next((known for known in PADDINGS if known == options.padding), None)
            if padding is None:
                raise RuntimeError(f"unknown padding {options.padding}")
            least = smallest_side(options.window_size, padding)
            _check(min(input.shape[2:]) >= least, "the image is too small for the window")
        margin = radius if options.ssim and options.padding == "valid" else 0
        return cls(options, compute_dtype(input.dtype, target.dtype), terms, radius, margin)

    @property
    def real(self) -> Any:
        """The type computed in, in Triton's words."""
        return REAL[self.dtype]

    @property
    def amplification(self) -> tuple[float, float]:
        """The knee and the steepest slope."""
        return 1.0 - self.options.eps, 1.0 / self.options.eps


def _shared_factors(
    call: _Call, shape: torch.Size, coefficients: list[float], mean_over: str
) -> Factors:
    """Of every image, as the kernels take them."""
    _check(
        len(coefficients) == call.terms,
        "expected a coefficient for each term where there are no factors",
    )
    over = next((known for known in MEANS if known == mean_over), None)
    if over is None:
        raise RuntimeError(f"unknown mean over {mean_over}")
    shared = SharedFactors(tuple(coefficients), over)
    numbers = [shared.of(term, grid) for term, grid in enumerate(call.options.grids(shape))]
    first, second, third, *_ = (*numbers, *NOT_SHARED)
    return None, first, second, third


def _weight_of(weight: Tensor | None, input: Tensor, call: _Call) -> tuple[Tensor | None, int]:
    """The weight with strides of the image's dimensions, and the place of its pixel (0, 0).

    It broadcasts to the image, or to the grid of a "valid" SSIM: then pixel (0, 0) lies before it.
    """
    if weight is None:
        return None, 0
    _check(
        weight.dim() == 4 and weight.dtype == call.dtype and weight.layout is torch.strided,
        "expected a weight of four dimensions in the type computed in",
    )
    strides, offset = [0, 0, 0, 0], 0
    for dim, (size, full) in enumerate(zip(weight.shape, input.shape, strict=True)):
        lost = 2 * call.margin if dim >= 2 else 0
        _check(size in (1, full, full - lost), "the weight does not broadcast to the images")
        if size != 1:
            strides[dim] = weight.stride(dim)
        if size not in (1, full):
            _check(call.terms == 1, "a weight on SSIM's grid serves no other term")
            offset -= call.margin * weight.stride(dim)
    return weight.as_strided(input.shape if not offset else weight.shape, strides), offset


# ---- Launches ------------------------------------------------------------------------------------


def _on(tensor: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


@lru_cache(maxsize=16)
def _device(device: torch.device, dtype: torch.dtype) -> tiling.Device:
    """What is there, for the type computed in."""
    if device.type != "cuda" or INTERPRETED:
        return tiling.INTERPRETER_FLOAT64 if dtype is torch.float64 else tiling.INTERPRETER
    wide = dtype is torch.float64
    table = tiling.CUDA_FLOAT64 if wide else tiling.CUDA
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        table = tiling.HIP_FLOAT64 if wide else tiling.HIP
        # 64 on the compute devices (CDNA), 32 on those for graphics (RDNA).
        table = table._replace(lanes=getattr(properties, "warp_size", table.lanes))
    cache = getattr(properties, "L2_cache_size", 0)
    return table._replace(
        multiprocessors=properties.multi_processor_count, scratch=tiling.scratch(cache)
    )


@lru_cache(maxsize=64)
def _taps(window_size: int, sigma: float) -> tuple[float, ...]:
    """By their distance from the centre, and 0 beyond the window."""
    taps = reference.gaussian(window_size, sigma)[window_size // 2 :]
    return (*taps, *[0.0] * (MAX_RADIUS + 1 - len(taps)))


@lru_cache(maxsize=64)
def _rows_to_follow(window_size: int, sigma: float) -> int:
    """With how many rows of the new side of an edge a lane's level of s moves there.

    At an edge along y, windows of both sides are under way. A window that sees much of both sides
    has a large variance, and misses no digits. To any other window the level must be near. So the
    level moves with the row at whose end a window has seen at least 1/200 of the new side, before
    that row is added. The windows beyond the edge have not seen much by then, unless sigma is small
    for the window: csrc/cuda/moments.cuh says what that costs. The rule there moves the level after
    a row, and so counts one row less.
    """
    rows, seen = 0, 0.0
    for tap in reversed(_taps(window_size, sigma)[: window_size // 2 + 1]):
        rows, seen = rows + 1, seen + tap
        if seen >= 0.005:
            break
    return rows


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """A tensor (N, C, H, W) as the kernels take it: its data and its strides."""
    return (tensor, *tensor.stride())


def _is_dense(*images: Tensor) -> bool:
    """Whether columns lie side by side, and 32 bits hold the distance of rows."""
    return all(image.stride(3) == 1 and image.stride(2) < NARROW for image in images)


def _are_aligned(*tensors: Tensor) -> bool:
    """Whether columns lie side by side and every plane begins at a multiple of 16 bytes."""
    return _is_dense(*tensors) and not any(
        tensor.data_ptr() % 16
        or any(
            size > 1 and stride * tensor.itemsize % 16
            for size, stride in zip(tensor.shape[:2], tensor.stride()[:2], strict=True)
        )
        for tensor in tensors
    )


def _ssim(
    call: _Call,
    x: Tensor,
    y: Tensor,
    weight: Tensor | None,
    weight_offset: int,
    factors: Factors,
    gradients: int,
    dx: Tensor,
    dy: Tensor,
    losses: Tensor | None,
) -> Tensor:
    """Launch what computes SSIM and the terms beside it. Returns the tiles' sums, (tiles, terms).

    dx, dy: where the gradients go, as many as `gradients`. losses: the map to write, if there is.
    """
    options = call.options
    if call.dtype is torch.float64:
        x, y = (image if _is_dense(image) else image.contiguous() for image in (x, y))
    batch, channels, height, width = x.shape
    planes = batch * channels
    if planes == 0:
        return x.new_empty((0, call.terms), dtype=torch.float64)
    scale = 1.0 / options.data_range
    levels = x.new_empty((planes, 2), dtype=call.dtype)
    x_place, y_place = _place(x), _place(y)
    weighted = weight is not None
    first = call.margin if weighted else 0  # the weight may lie on the loss's grid alone
    weights = x_place if weight is None else _place(weight)
    jit.launch(
        plane_levels, planes, (x.dtype, y.dtype, call.dtype),
        (
            *x_place, *y_place, *weights, weight_offset, levels,
            channels, first, height - 2 * first, width - 2 * first, scale,
        ),
        {"weighted": weighted, "samples": LEVEL_SAMPLES, "real": call.real},
        warps=4,
    )  # fmt: skip

    dense = _is_dense(x, y)
    device = tiling.for_call(_device(x.device, call.dtype), dense, call.radius, gradients)
    size = tiling.h_elements(height, width, 2 + gradients, device.across) if gradients else 0
    at_once = tiling.planes_at_once(planes, size * call.dtype.itemsize, device)
    h = x.new_empty(at_once * size, dtype=call.dtype)
    taps = _taps(options.window_size, options.sigma)
    outputs = x_place if losses is None else _place(losses)
    head = {"radius": call.radius, "border": BORDERS[options.padding]}
    terms = {
        "weighted": weighted,
        "mse": options.mse,
        "l1": options.l1,
        "log": options.amplify,
        "dense": dense,
    }
    dtypes = (x.dtype, y.dtype, call.dtype, factors[0] is None)
    # Each with what it is the gradient of in the place of the first image.
    passes = []
    if gradients:
        dx_place = _place(dx)
        dy_place = _place(dy) if gradients == 2 else dx_place
        passes = [((x_place, y_place, dx_place, dy_place), gradients, False)]
        if gradients == 2 and call.dtype is torch.float64 and call.radius >= WIDE_IN_FLOAT64:
            passes = [
                ((x_place, y_place, dx_place, dx_place), 1, False),
                ((y_place, x_place, dy_place, dy_place), 1, True),
            ]
    map_offset = 0
    if losses is not None:
        map_offset = -call.margin * (losses.stride(2) + losses.stride(3))

    def launch(pair: tuple[tiling.Tiling, tiling.Tiling]) -> Tensor:
        tiles, gradient_tiles = pair
        partial = x.new_empty((planes * tiles.per_plane, call.terms), dtype=torch.float64)
        for first in range(0, planes, at_once):
            some = min(at_once, planes - first)
            jit.launch(
                ssim_losses, some * tiles.per_plane, dtypes,
                (
                    *x_place, *y_place, *weights, weight_offset, *outputs, map_offset,
                    *factors, levels, h, partial, first, channels, height, width,
                    tiles.strips, tiles.bands, tiles.band_height,
                    scale, options.k1**2, options.k2**2, options.dissimilarity,
                    *call.amplification, *taps, _rows_to_follow(options.window_size, options.sigma),
                ),
                {
                    **head, "gradients": gradients, "writes_map": losses is not None, **terms,
                    "block": tiles.lanes, "across": tiles.across, "real": call.real,
                },
                warps=1,
            )  # fmt: skip
            for places, count, swapped in passes:
                jit.launch(
                    ssim_gradients, some * gradient_tiles.per_plane, dtypes,
                    (
                        *places[0], *places[1], *weights, *places[2], *places[3],
                        *factors, levels, h, first, channels, height, width,
                        gradient_tiles.strips, gradient_tiles.bands, gradient_tiles.band_height,
                        scale, *call.amplification, *taps,
                    ),
                    {
                        **head, "h_planes": 2 + gradients, "gradients": count, "swapped": swapped,
                        **terms, "block": gradient_tiles.lanes, "across": gradient_tiles.across,
                        "real": call.real,
                    },
                    warps=1,
                )  # fmt: skip
        return partial

    # For the planes of one group: it is they that share the device.
    cut = (at_once, height, width, call.radius, device)
    if not autotune.wanted():
        return launch(tiling.ssim_tilings(*cut))
    key = _key(x, y, gradients, losses, {**head, **terms})
    return launch(autotune.quickest(key, tiling.ssim_candidates(*cut), launch))


def _pixels(
    call: _Call,
    x: Tensor,
    y: Tensor,
    weight: Tensor | None,
    _: int,
    factors: Factors,
    gradients: int,
    dx: Tensor,
    dy: Tensor,
    losses: Tensor | None,
) -> Tensor:
    """As `_ssim`, of pointwise terms alone."""
    options = call.options
    sinks = [dx if gradients else x, dy if gradients == 2 else x, x if losses is None else losses]
    images = [x, y]
    if weight is None and (joined := _joined(x, y)):
        images = [joined(image) for image in images]
        sinks = [joined(sink) for sink in sinks]
    batch, channels, height, width = images[0].shape
    pixels = height * width
    if batch * channels * pixels == 0:
        return x.new_empty((0, call.terms), dtype=torch.float64)
    constants = {
        "weighted": weight is not None,
        "mse": options.mse,
        "l1": options.l1,
        "log": options.amplify,
        "one_row": height == 1,
        "dense": _is_dense(*images),
        "aligned": height == 1 and pixels % 16 == 0 and _are_aligned(*images, *sinks),
    }
    places = (*_place(images[0]), *_place(images[1]))

    def launch(tile: tiling.PixelTiling) -> Tensor:
        runs = tile.runs(pixels)
        programs = batch * channels * runs
        partial = x.new_empty((programs, call.terms), dtype=torch.float64)
        jit.launch(
            pixel_losses, programs, (x.dtype, y.dtype, call.dtype, factors[0] is None),
            (
                *places, *(places[:5] if weight is None else _place(weight)),
                *_place(sinks[2]), *_place(sinks[0]), *_place(sinks[1]),
                *factors, partial, channels, height, width, runs,
                1.0 / options.data_range, *call.amplification,
            ),
            {
                "gradients": gradients, "writes_map": losses is not None, **constants,
                "narrow": pixels + tile.block <= NARROW,
                "block": tile.block, "pieces": tile.pieces, "real": call.real,
            },
            tile.warps,
        )  # fmt: skip
        return partial

    if not autotune.wanted():
        return launch(tiling.PIXELS)
    key = _key(images[0], images[1], gradients, losses, constants)
    return launch(autotune.quickest(key, tiling.PIXEL_CANDIDATES, launch))


def _sums(call: _Call, partial: Tensor, factors: Factors, batch: int, sums: str) -> Tensor:
    """Launch what adds up the tiles' sums, as `sums` says."""
    if sums == "batch":
        own, *shared = factors
        _check(own is None, "a sum over the batch takes no factors")
        losses = partial.new_empty((), dtype=call.dtype)
        jit.launch(
            batch_sum, 1, (call.dtype,),
            (partial, *shared, losses, partial.shape[0]),
            {"terms": call.terms, "block": BATCH_BLOCK, "real": call.real},
            warps=8,
        )  # fmt: skip
        return losses
    _check(sums in ("terms", "images"), f"unknown sums {sums}")
    per_term = sums == "terms"
    losses = partial.new_empty((batch, call.terms) if per_term else (batch,), dtype=call.dtype)
    if batch:
        jit.launch(
            image_sums, batch, (call.dtype, factors[0] is None),
            (partial, *factors, losses, partial.shape[0] // batch),
            {"terms": call.terms, "per_term": per_term, "block": SUM_BLOCK, "real": call.real},
            warps=4,
        )  # fmt: skip
    return losses


def _key(
    x: Tensor, y: Tensor, gradients: int, losses: Tensor | None, constants: dict[str, Any]
) -> tuple[Hashable, ...]:
    """What decides on how long a call takes."""
    shape = (x.device, *x.shape, x.dtype, y.dtype)
    return (*shape, gradients, losses is not None, *constants.values())


def _joined(x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor] | None:
    """How to see an image as one row, where both lie dense in one order; else None.

    What is written has the memory format of an image, so it lies in that order as well.
    """
    batch, *sizes = x.shape
    pixels = sizes[0] * sizes[1] * sizes[2]
    shape = (batch, 1, 1, pixels)
    if x.is_contiguous() and y.is_contiguous():
        return lambda image: image.view(shape)
    if ops.is_channels_last(x) and ops.is_channels_last(y):
        return lambda image: image.permute(0, 2, 3, 1).view(shape)
    return None
