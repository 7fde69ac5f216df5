"""The operators: from their tensors to launches of the kernels. Imported by the first call.

A call with SSIM launches plane_shifts, then for each group of planes ssim_losses and, if a gradient
is wanted, ssim_gradients, and finally image_sums or batch_sum. The groups bound the memory of the h
planes between the two kernels: beyond the stored gradients a call holds at most tiling.scratch
bytes, or the bytes of one plane. Other losses have one kernel before the sums, gms_losses or
pixel_losses.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from lamp_kernels import ops
from lamp_kernels.backends.triton import autotune, device, jit, layout, tiling
from lamp_kernels.backends.triton.call import (
    TRITON_DTYPES,
    Beside,
    Call,
    Factors,
    check,
    check_device,
    coefficients_of,
    own_factors,
    shared_factors,
)
from lamp_kernels.backends.triton.centering import plane_shifts
from lamp_kernels.backends.triton.gms import gms_losses
from lamp_kernels.backends.triton.layout import pointer_and_strides
from lamp_kernels.backends.triton.pixels import pixel_losses
from lamp_kernels.backends.triton.scale import scale_gradient
from lamp_kernels.backends.triton.ssim_gradients import ssim_gradients
from lamp_kernels.backends.triton.ssim_losses import ssim_losses
from lamp_kernels.backends.triton.sums import batch_sum, image_sums

# In float64 the window sums of both gradients, for windows of 13 pixels or more, exceed the
# registers: then each gradient has a launch of its own. So do the addresses of columns that are not
# adjacent: images with such strides are copied in float64, and under a mask.
SEPARATE_RADIUS_FLOAT64 = 6
SHIFT_SAMPLES = 1024
SUM_BLOCK = 256
BATCH_BLOCK = 2048  # eight loads of a lane in flight


# ---- The operators -------------------------------------------------------------------------------


def image_losses(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    mask: Tensor | None,
    data_ranges: Tensor | None,
    factors: Tensor | None,
    coefficients: Sequence[float],
    mean_over: str,
    sums: str,
    input_gradient: bool,
    target_gradient: bool,
    *fields: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """The operator of that name; see lamp_kernels/ops.py."""
    call = Call.of(input, target, fields)
    if factors is None:
        factors_ = shared_factors(call, input, coefficients, mean_over)
    else:
        check(
            not coefficients and mean_over == "nothing",
            "expected factors or coefficients, not both",
        )
        factors_ = own_factors(call, factors, input)
    beside = Beside.of(call, input, weight, mask, data_ranges)
    grad_input, grad_target = (
        ops.empty_in_format_of(image, input.shape, call.dtype)
        if wanted
        else image.new_empty(0, dtype=call.dtype)
        for image, wanted in ((input, input_gradient), (target, target_gradient))
    )
    # The losses are symmetric, so the gradient of the target alone is computed as that of the first
    # image.
    images, outputs = (input, target), (grad_input, grad_target)
    if target_gradient and not input_gradient:
        images, outputs = (target, input), (grad_target, grad_input)
    gradients = int(input_gradient) + int(target_gradient)
    with device.current(input):
        partial = _kernels_of(call)(call, *images, beside, factors_, gradients, *outputs, None)
        losses = _sums(call, partial, factors_, input.shape[0], sums)
    return losses, grad_input, grad_target


def loss_map(
    input: Tensor,
    target: Tensor,
    mask: Tensor | None,
    data_ranges: Tensor | None,
    coefficients: Tensor,
    *fields: Any,
) -> Tensor:
    """The operator of that name; see lamp_kernels/ops.py."""
    call = Call.of(input, target, fields)
    factors = coefficients_of(call, coefficients, input)
    check(call.spec.margin == 0 or call.spec.terms == 1, "the terms' maps differ in size")
    losses = ops.empty_in_format_of(input, call.grid(input.shape), call.dtype)
    with device.current(input):
        beside = Beside.of(call, input, None, mask, data_ranges)
        _kernels_of(call)(call, input, target, beside, factors, 0, losses, losses, losses)
    return losses


def scale_(gradient: Tensor, factor: Tensor) -> None:
    """The operator of that name; see lamp_kernels/ops.py."""
    check(
        gradient.dim() == 4
        and gradient.dtype in TRITON_DTYPES
        and (gradient.is_contiguous() or ops.is_channels_last(gradient)),
        "expected a dense gradient (N, C, H, W) in float32 or float64",
    )
    check(
        factor.dtype == gradient.dtype and factor.shape in (gradient.shape[:1], ()),
        "expected factors (N,), or one (), in the gradient's type",
    )
    check_device(gradient, factor)
    if gradient.numel() == 0:
        return
    images = gradient.shape[0]
    size = gradient.numel() // images
    runs = tiling.SCALE.runs(size)
    with device.current(gradient):
        jit.launch(
            scale_gradient, images * runs, (gradient.dtype,),
            (gradient, factor, factor.stride(0) if factor.dim() else 0, size, runs),
            {"block": tiling.SCALE.block, "pieces": tiling.SCALE.pieces},
            warps=tiling.SCALE.warps,
        )  # fmt: skip


# ---- Launches ------------------------------------------------------------------------------------


def _kernels_of(call: Call) -> Callable[..., Tensor]:
    """The function that launches the kernels of this loss."""
    if call.spec.has_ssim:
        return _ssim
    return _gms if call.spec.has_gms else _pixels


def _ssim(
    call: Call,
    x: Tensor,
    y: Tensor,
    beside: Beside,
    factors: Factors,
    gradients: int,
    dx: Tensor,
    dy: Tensor,
    losses: Tensor | None,
) -> Tensor:
    """Compute SSIM and the terms beside it. Returns the sums of the tiles, (tiles, terms).

    dx, dy: outputs, as many of them as `gradients`. losses: the map to write, or None.
    """
    spec = call.spec
    if call.dtype is torch.float64 or beside.mask is not None:
        x, y = (image if layout.is_dense(image) else image.contiguous() for image in (x, y))
    batch, channels, height, width = x.shape
    planes = batch * channels
    if planes == 0:
        return x.new_empty((0, spec.terms), dtype=torch.float64)
    x_place, y_place = pointer_and_strides(x), pointer_and_strides(y)
    weight, weight_offset, mask, scales = beside
    masked = mask is not None
    weights = x_place if weight is None else pointer_and_strides(weight)
    mask_place = (x_place if mask is None else pointer_and_strides(mask))[:4]
    shifts = x.new_empty((planes, 4 if masked else 2), dtype=call.dtype)
    seen = weights if mask is None else pointer_and_strides(mask)
    # The weight may cover only the grid of the loss.
    first = spec.margin if weight is not None and mask is None else 0
    jit.launch(
        plane_shifts, planes, (x.dtype, y.dtype, call.dtype, scales is None),
        (
            *x_place, *y_place, *seen, 0 if masked else weight_offset, scales, shifts,
            channels, first, height - 2 * first, width - 2 * first, spec.scale,
        ),
        {
            "weighted": masked or weight is not None, "masked": masked, "samples": SHIFT_SAMPLES,
            "compute_dtype": call.triton_dtype,
        },
        warps=4,
    )  # fmt: skip

    dense = layout.is_dense(x, y)
    table = device.properties(x.device, call.dtype)
    table = tiling.for_call(table, dense, spec.radius, gradients, masked)
    size = tiling.h_elements(height, width, 2 + gradients, table.across) if gradients else 0
    at_once = tiling.planes_at_once(planes, size * call.dtype.itemsize, table)
    h = x.new_empty(at_once * size, dtype=call.dtype)
    outputs = x_place if losses is None else pointer_and_strides(losses)
    map_offset = 0
    if losses is not None:
        map_offset = -spec.margin * (losses.stride(2) + losses.stride(3))
    head = {"radius": spec.radius, "border": spec.border}
    terms = {**_term_constants(call, beside), "dense": dense}
    dtypes = (x.dtype, y.dtype, call.dtype, factors[0] is None, scales is None)
    # Each pass: pointers and strides, beginning with the image that it computes the gradient of;
    # the number of gradients; whether the images are swapped.
    passes: list[tuple[tuple[Any, ...], int, bool]] = []
    if gradients:
        dx_place = pointer_and_strides(dx)
        dy_place = pointer_and_strides(dy) if gradients == 2 else dx_place
        passes = [
            ((*x_place, *y_place, *weights, *mask_place, *dx_place, *dy_place), gradients, False)
        ]
        if (
            gradients == 2
            and call.dtype is torch.float64
            and spec.radius >= SEPARATE_RADIUS_FLOAT64
        ):
            passes = [
                ((*x_place, *y_place, *weights, *mask_place, *dx_place, *dx_place), 1, False),
                ((*y_place, *x_place, *weights, *mask_place, *dy_place, *dy_place), 1, True),
            ]

    def launch(pair: tuple[tiling.Tiling, tiling.Tiling]) -> Tensor:
        tiles, gradient_tiles = pair
        partial = x.new_empty((planes * tiles.per_plane, spec.terms), dtype=torch.float64)
        for first in range(0, planes, at_once):
            group = min(at_once, planes - first)
            jit.launch(
                ssim_losses, group * tiles.per_plane, dtypes,
                (
                    *x_place, *y_place, *weights, weight_offset, *mask_place,
                    *outputs, map_offset,
                    *factors, scales, shifts, h, partial, first, channels, height, width,
                    tiles.strips, tiles.bands, tiles.band_height,
                    spec.scale, spec.c1, spec.c2, spec.ssim_scale,
                    *spec.amplification_constants, *spec.taps, spec.rows_to_follow,
                ),
                {
                    **head, "gradients": gradients, "writes_map": losses is not None, **terms,
                    "block": tiles.lanes, "across": tiles.across,
                    "compute_dtype": call.triton_dtype,
                },
                warps=1,
            )  # fmt: skip
            for places, count, swapped in passes:
                jit.launch(
                    ssim_gradients, group * gradient_tiles.per_plane, dtypes,
                    (
                        *places, *factors, scales, shifts, h, first, channels, height, width,
                        gradient_tiles.strips, gradient_tiles.bands, gradient_tiles.band_height,
                        spec.scale, *spec.amplification_constants, *spec.taps,
                    ),
                    {
                        **head, "h_planes": 2 + gradients, "gradients": count, "swapped": swapped,
                        **terms, "block": gradient_tiles.lanes, "across": gradient_tiles.across,
                        "compute_dtype": call.triton_dtype,
                    },
                    warps=1,
                )  # fmt: skip
        return partial

    # Tiles are chosen for the planes of one group: these share the device.
    cut = (at_once, height, width, spec.radius, table)
    if not autotune.wanted():
        return launch(tiling.ssim_tilings(*cut))
    key = _key(x, y, gradients, losses, {**head, **terms})
    return launch(autotune.quickest(key, tiling.ssim_candidates(*cut), launch))


def _pixels(
    call: Call,
    x: Tensor,
    y: Tensor,
    beside: Beside,
    factors: Factors,
    gradients: int,
    dx: Tensor,
    dy: Tensor,
    losses: Tensor | None,
) -> Tensor:
    """As `_ssim`, for pointwise terms alone."""
    weight, _, mask, scales = beside
    outputs = [x if losses is None else losses, dx if gradients else x, dy if gradients == 2 else x]
    images = [x, y]
    if weight is None and mask is None and (as_one_row := layout.as_one_row(x, y)):
        images = [as_one_row(image) for image in images]
        outputs = [as_one_row(output) for output in outputs]
    batch, channels, height, width = images[0].shape
    pixels = height * width
    if batch * channels * pixels == 0:
        return x.new_empty((0, call.spec.terms), dtype=torch.float64)
    constants = {
        **_term_constants(call, beside),
        "one_row": height == 1,
        "dense": layout.is_dense(*images),
        "aligned": height == 1 and pixels % 16 == 0 and layout.is_aligned(*images, *outputs),
    }
    x_place, y_place = map(pointer_and_strides, images)
    weights = x_place if weight is None else pointer_and_strides(weight)
    mask_place = (x_place if mask is None else pointer_and_strides(mask))[:4]
    places = (*x_place, *y_place, *weights, *mask_place)
    for output in outputs:
        places += pointer_and_strides(output)

    def launch(tile: tiling.PixelTiling) -> Tensor:
        runs = tile.runs(pixels)
        programs = batch * channels * runs
        partial = x.new_empty((programs, call.spec.terms), dtype=torch.float64)
        jit.launch(
            pixel_losses, programs,
            (x.dtype, y.dtype, call.dtype, factors[0] is None, scales is None),
            (
                *places, *factors, scales, partial, channels, height, width, runs,
                call.spec.scale, *call.spec.amplification_constants,
            ),
            {
                "gradients": gradients, "writes_map": losses is not None, **constants,
                "narrow": pixels + tile.block <= layout.NARROW,
                "block": tile.block, "pieces": tile.pieces, "compute_dtype": call.triton_dtype,
            },
            tile.warps,
        )  # fmt: skip
        return partial

    if not autotune.wanted():
        return launch(tiling.PIXELS)
    key = _key(images[0], images[1], gradients, losses, constants)
    return launch(autotune.quickest(key, tiling.PIXEL_CANDIDATES, launch))


def _gms(
    call: Call,
    x: Tensor,
    y: Tensor,
    beside: Beside,
    factors: Factors,
    gradients: int,
    dx: Tensor,
    dy: Tensor,
    losses: Tensor | None,
) -> Tensor:
    """As `_ssim`, for gradient magnitude similarity. Its tiles are not tuned."""
    spec = call.spec
    weight, weight_offset, mask, scales = beside
    batch, channels, height, width = x.shape
    if x.numel() == 0:
        return x.new_empty((0, 1), dtype=torch.float64)
    x_place = pointer_and_strides(x)
    outputs = [x if losses is None else losses, dx if gradients else x, dy if gradients == 2 else x]
    map_place, dx_place, dy_place = map(pointer_and_strides, outputs)
    map_offset = -spec.margin * (outputs[0].stride(2) + outputs[0].stride(3))
    dense = layout.is_dense(x, y)
    table = device.properties(x.device, call.dtype)
    table = tiling.for_call(table, dense, spec.radius, gradients)
    # A tile's gradient depends on pixels two rows away.
    tiles = tiling.ssim_tiling(batch * channels, height, width, 2, table)
    programs = batch * channels * tiles.per_plane
    partial = x.new_empty((programs, 1), dtype=torch.float64)
    jit.launch(
        gms_losses, programs,
        (x.dtype, y.dtype, call.dtype, factors[0] is None, scales is None),
        (
            *x_place, *pointer_and_strides(y),
            *(x_place if weight is None else pointer_and_strides(weight)), weight_offset,
            *(x_place if mask is None else pointer_and_strides(mask))[:4],
            *map_place, map_offset, *dx_place, *dy_place, *factors, scales, partial,
            channels, height, width, tiles.strips, tiles.bands, tiles.band_height,
            spec.scale, spec.metric_parameters[0], *spec.amplification_constants,
        ),
        {
            "border": spec.border, "gradients": gradients, "writes_map": losses is not None,
            "weighted": weight is not None, "masked": mask is not None,
            "amplification": spec.amplification, "dense": dense,
            "block": tiles.lanes, "across": tiles.across, "compute_dtype": call.triton_dtype,
        },
        warps=1,
    )  # fmt: skip
    return partial


def _term_constants(call: Call, beside: Beside) -> dict[str, Any]:
    """The constants that choose the formulas, in the order of the kernels' parameters."""
    return {
        "weighted": beside.weight is not None,
        "masked": beside.mask is not None,
        "metrics": call.spec.metrics,
        "metric_parameters": call.spec.metric_parameters,
        "amplification": call.spec.amplification,
    }


def _sums(call: Call, partial: Tensor, factors: Factors, batch: int, sums: str) -> Tensor:
    """Add up the sums of the tiles, as `sums` says."""
    terms = call.spec.terms
    if sums == "batch":
        if batch == 0:  # no image whose factors the kernel could read
            return partial.new_zeros((), dtype=call.dtype)
        losses = partial.new_empty((), dtype=call.dtype)
        jit.launch(
            batch_sum, 1, (call.dtype, factors[0] is None),
            (partial, *factors, losses, partial.shape[0]),
            {"terms": terms, "block": BATCH_BLOCK, "compute_dtype": call.triton_dtype},
            warps=8,
        )  # fmt: skip
        return losses
    check(sums in ("terms", "images"), f"sums must be terms, images or batch, got {sums!r}")
    per_term = sums == "terms"
    losses = partial.new_empty((batch, terms) if per_term else (batch,), dtype=call.dtype)
    if batch:
        jit.launch(
            image_sums, batch, (call.dtype, factors[0] is None),
            (partial, *factors, losses, partial.shape[0] // batch),
            {
                "terms": terms, "per_term": per_term, "block": SUM_BLOCK,
                "compute_dtype": call.triton_dtype,
            },
            warps=4,
        )  # fmt: skip
    return losses


def _key(
    x: Tensor, y: Tensor, gradients: int, losses: Tensor | None, constants: dict[str, Any]
) -> tuple[Hashable, ...]:
    """What determines how long a call takes."""
    shape = (x.device, *x.shape, x.dtype, y.dtype)
    return (*shape, gradients, losses is not None, *constants.values())
