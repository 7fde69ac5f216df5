"""Values and gradients on the device, against the reference in float64 on the same device."""

import itertools

import pytest
import torch
from layouts import LAYOUTS
from on_cuda import LIMITS, assert_near, assert_same, exact, h_plane_bytes, pair, results

from lamp_kernels import AmplifiedReconstructionLoss, AmplifiedSSIMLoss, functional

PADDINGS = ("reflect", "valid", "zeros")
# Less than a strip, exactly one, several strips and bands, several planes, thin planes, few pixels.
SHAPES = (
    (1, 1, 8, 8),
    (1, 1, 13, 17),
    (3, 2, 32, 64),
    (2, 3, 37, 130),
    (1, 1, 511, 33),
    (1, 1, 8, 1025),
    (1, 3, 300, 517),
    (17, 5, 28, 28),
)


def test_the_reference_gives_the_same_results_as_on_the_cpu():
    """Other tests compare the CPU results with the textbook formula and with other packages."""
    for padding, shape in itertools.product(PADDINGS, SHAPES[2:5]):
        options = {"l1": 0.5, "padding": padding}
        x, y = pair(shape)
        found = [tensor.cpu() for tensor in exact(x, y, **options)]
        assert_near(found, exact(x.cpu(), y.cpu(), **options), 1e-12)


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_dtype_border_and_shape(kernels, shape, padding, dtype):
    window_size = 11 if min(shape[2:]) >= 11 else 7
    # a sum, because the gradients of a mean would be subnormal in float16
    options = {"l1": 0.5, "padding": padding, "window_size": window_size, "reduction": "sum"}
    x, y = pair(shape, dtype)
    weight = torch.rand(shape[0], 1, *shape[2:], device="cuda")
    loss_function = AmplifiedReconstructionLoss(**options, backend=kernels)
    limit = 10 * LIMITS[dtype] if padding == "zeros" else LIMITS[dtype]
    for weights in ((), (weight,)):
        found = results(loss_function, x, y, *weights)
        assert [tensor.dtype for tensor in found[1:]] == [dtype, dtype]
        assert_near(found, exact(x, y, *weights, **options), limit)


@pytest.mark.parametrize("window_size", range(3, 16, 2))
@pytest.mark.parametrize("padding", PADDINGS)
def test_every_window(kernels, padding, window_size):
    options = {"mse": 0.0, "padding": padding, "window_size": window_size, "sigma": 2.0}
    x, y = pair((2, 2, 70, 190))
    loss_function = AmplifiedReconstructionLoss(**options, backend=kernels)
    wanted = exact(x, y, **options)
    limit = 1e-4 if padding == "zeros" else 1e-5
    assert_near(results(loss_function, x, y), wanted, limit)
    for own in (0, 1):  # there are separate kernels for one gradient and for none
        images = [x.detach(), y.detach()]
        images[own].requires_grad_()
        loss = loss_function(*images)
        assert_near(
            [loss, *torch.autograd.grad(loss, images[own])], [wanted[0], wanted[1 + own]], limit
        )
    with torch.no_grad():
        assert_near([loss_function(x, y)], wanted[:1], limit)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("other", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_every_layout(kernels, layout, other, dtype):
    x, y = pair((3, 4, 45, 77), dtype)
    loss_function = AmplifiedReconstructionLoss(reduction="sum", backend=kernels)
    with torch.device("cuda"):  # for the tensor that `sliced` creates
        places = LAYOUTS[layout](x), LAYOUTS[other](y)
    assert_near(results(loss_function, *places), exact(x, y, reduction="sum"), LIMITS[dtype])


@pytest.mark.parametrize("padding", PADDINGS)
def test_the_map_and_its_gradient(kernels, padding):
    options = {"mse": 0.0, "padding": padding, "reduction": "none"}
    x, y = pair((2, 3, 61, 83))
    found = results(AmplifiedReconstructionLoss(**options, backend=kernels), x, y)
    assert_near(found, exact(x, y, **options), 1e-4 if padding == "zeros" else 1e-5)


@pytest.mark.parametrize("ssim", [0.5, 0.0], ids=["with SSIM", "pointwise"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_one_data_range_per_image(kernels, dtype, ssim):
    ranges = torch.tensor([0.5, 2.0, 255.0, 1.0], dtype=dtype, device="cuda")
    options = {"ssim": ssim, "l1": 0.5, "reduction": "image"}
    x, y = (image * ranges.view(4, 1, 1, 1) for image in pair((4, 2, 61, 83), dtype))
    loss_function = AmplifiedReconstructionLoss(**options, backend=kernels)
    # Every second number of another tensor: the kernels read them by their stride.
    strided = ranges.repeat_interleave(2)[::2]
    found = results(lambda *images: loss_function(*images, data_range=strided), x, y)
    wanted = exact(x, y, **options, data_range=ranges.double())
    assert_near(found[:1], wanted[:1], LIMITS[dtype])
    for gradient, expected in zip(found[1:], wanted[1:], strict=True):
        for image in range(4):
            assert_near([gradient[image]], [expected[image]], LIMITS[dtype])


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
def test_twenty_runs_are_bitwise_equal(kernels, dtype):
    for shape in ((1, 1, 600, 700), (32, 8, 28, 28), (2, 3, 129, 257)):
        x, y = pair(shape, dtype)
        loss_function = AmplifiedReconstructionLoss(l1=0.5, backend=kernels)
        first = results(loss_function, x, y)
        for _ in range(19):
            assert_same(results(loss_function, x, y), first)


@pytest.mark.parametrize(
    "shape", [(70_000, 1, 12, 12), (1, 70_000, 12, 12), (300, 300, 11, 13)], ids=str
)
@pytest.mark.parametrize("padding", ["reflect", "valid"])
def test_more_planes_than_a_grid_allows_in_y_or_z(kernels, shape, padding):
    x, y = pair(shape)
    found = results(AmplifiedSSIMLoss(padding=padding, backend=kernels), x, y)
    planes = [image.reshape(-1, 1, *shape[2:]).split(5000) for image in (x, y)]
    pieces = [
        exact(*images, mse=0.0, padding=padding, reduction="sum")
        for images in zip(*planes, strict=True)
    ]
    total = sum(piece[0] for piece in pieces)
    lost = 10 if padding == "valid" else 0
    count = shape[0] * shape[1] * (shape[2] - lost) * (shape[3] - lost)
    gradients = [torch.cat([piece[i] for piece in pieces]).view(shape) for i in (1, 2)]
    assert_near(found, [total / count, *(gradient / count for gradient in gradients)], 1e-5)


HUGE = {"one plane": (1, 1, 46_400, 46_400), "many planes": (33, 1, 8192, 8192)}


@pytest.mark.timeout(240)
@pytest.mark.xdist_group("most of the memory")  # 28 GiB each, so one after the other
@pytest.mark.parametrize("shape", HUGE.values(), ids=HUGE)
def test_more_elements_than_32_bits_can_index(kernels, shape):
    """Compare crops: away from its border, a crop has the same gradient of the sum.

    The memory needed is two images and a gradient in bfloat16, a gradient in float32, as much again
    for creating them, and the h planes. Triton holds those of at least one image plane, which in
    the first case is all of them.
    """
    count = torch.Size(shape).numel()
    assert count > 2**31
    needed = 14 * count + h_plane_bytes(kernels, shape, 1)
    free = torch.cuda.mem_get_info()[0]
    if free < needed:
        pytest.skip(f"requires {needed / 2**30:.0f} GiB of memory, {free / 2**30:.0f} GiB are free")
    generator = torch.Generator("cuda").manual_seed(0)
    x, y = (
        torch.rand(shape, generator=generator, device="cuda", dtype=torch.bfloat16)
        for _ in range(2)
    )
    x.requires_grad_()
    loss = functional.amplified_ssim_loss(x, y, reduction="sum", backend=kernels)
    (gradient,) = torch.autograd.grad(loss, x)
    x = x.detach()
    # The noise is uniform, so the mean of a part approximates the mean of the whole.
    part = (x[:1, :, -4096:, -4096:], y[:1, :, -4096:, -4096:])
    mean = functional.amplified_ssim_loss(*part, reduction="mean", backend="reference")
    assert loss.item() / count == pytest.approx(mean.item(), rel=1e-2)
    height, width = shape[2:]
    for n, top, left in [
        (0, 0, 0),
        (-1, height - 80, width - 80),
        (-1, height // 2, width // 2),
        (-1, height - 80, 0),
        (shape[0] // 2, 0, width - 80),
    ]:
        crop = (slice(n, n + 1 or None), slice(None), slice(top, top + 80), slice(left, left + 80))
        wanted = exact(x[crop], y[crop], mse=0.0, reduction="sum")[1]
        inner = (..., slice(20, 60), slice(20, 60))
        assert_near([gradient[crop][inner]], [wanted[inner]], LIMITS[torch.bfloat16])
    # and the corner, including the image's own border
    crop = (slice(-1, None), slice(None), slice(-80, None), slice(-80, None))
    wanted = exact(x[crop], y[crop], mse=0.0, reduction="sum")[1]
    corner = (..., slice(20, None), slice(20, None))
    assert_near([gradient[crop][corner]], [wanted[corner]], LIMITS[torch.bfloat16])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_inf_propagate(kernels, value):
    x, y = pair((2, 1, 40, 60))
    x[1, 0, 20, 30] = value
    losses = functional.amplified_ssim_loss(x, y, reduction="none", backend=kernels)
    seen = torch.zeros(40, 60, dtype=torch.bool, device="cuda")
    seen[15:26, 25:36] = True
    assert losses[0].isfinite().all()
    assert torch.equal(losses[1, 0].isfinite(), ~seen)


@pytest.mark.parametrize("shape", [(0, 3, 20, 20), (2, 0, 20, 20)], ids=str)
def test_empty_images(kernels, shape):
    if shape[1] == 0:
        loss = functional.amplified_mse_loss(*torch.rand(2, *shape, device="cuda"), backend=kernels)
    else:
        x = torch.rand(shape, device="cuda", requires_grad=True)
        loss = functional.amplified_ssim_loss(x, x.detach(), backend=kernels)
        (gradient,) = torch.autograd.grad(loss, x)
        assert gradient.shape == shape
    assert loss.item() == 0.0
