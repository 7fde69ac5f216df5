"""GMS and MSGMS: against the textbook formula, where it is hard, and in every option."""

import math
import warnings
from typing import Any

import pytest
import torch
from layouts import LAYOUTS
from packages import optional
from scenes import pair
from torch.utils._python_dispatch import TorchDispatchMode

from lamp_kernels import (
    AmplifiedGMSLoss,
    AmplifiedMSELoss,
    AmplifiedMSGMSLoss,
    AmplifiedReconstructionLoss,
    AmplifiedSSIMLoss,
    backends,
    functional,
    gms,
)
from lamp_kernels.spec import REDUCTIONS, LossSpec, Term

np = optional("numpy")
ndimage = optional("scipy.ndimage")

pytestmark = pytest.mark.usefixtures("each_backend")

PADDINGS = ("reflect", "valid", "zeros")
NAN = math.nan


@pytest.fixture(autouse=True)
def only_backends_with_gms(each_backend):
    spec = LossSpec(terms=(Term("gms"),))
    reason = backends.BACKENDS[each_backend].unsupported_reason(spec, torch.empty(0))
    if reason is not None:
        pytest.skip(f"{each_backend}: {reason}")


def textbook(x, y, padding="reflect", constant=0.0026, data_range=1.0):
    """1 - (2 a b + c)/(a^2 + b^2 + c) in float64, differentiable where no gradient is 0."""
    along_x = torch.tensor([[-1.0, 0.0, 1.0]] * 3, dtype=torch.float64) / 3.0
    taps = torch.stack([along_x, along_x.T]).unsqueeze(1)

    def magnitude(image):
        planes = image.double().flatten(0, 1).unsqueeze(1) / data_range
        if padding != "valid":
            mode = "reflect" if padding == "reflect" else "constant"
            planes = torch.nn.functional.pad(planes, (1, 1, 1, 1), mode=mode)
        square = torch.nn.functional.conv2d(planes, taps).square().sum(1)
        flat = square < 1e-28
        root = square.masked_fill(flat, 1.0).sqrt().masked_fill(flat, 0.0)
        return root.unflatten(0, image.shape[:2])

    a, b = magnitude(x), magnitude(y)
    return 1.0 - (2.0 * a * b + constant) / (a**2 + b**2 + constant)


def log(loss, eps=1e-2):
    """A(L), from its definition."""
    below = loss.clamp(max=1.0 - eps)
    return -torch.log1p(-below) + (loss - below) / eps


def errors(found, expected):
    """Relative errors in the 2-norm."""
    return [((a - b).norm() / b.norm()).item() for a, b in zip(found, expected, strict=True)]


@pytest.mark.parametrize("shape", [(2, 3, 3, 3), (1, 2, 21, 37), (1, 1, 70, 300)])
@pytest.mark.parametrize("padding", PADDINGS)
def test_agrees_with_the_textbook(padding, shape):
    x, y = torch.rand(2, *shape, dtype=torch.float64).unbind()
    x.requires_grad_(), y.requires_grad_()
    weight = torch.rand(shape[0], 1, *shape[2:], dtype=torch.float64)
    options = {"padding": padding, "data_range": 1.7, "gms_constant": 0.01}
    expected_map = log(textbook(x, y, padding, 0.01, 1.7))
    inner = weight[..., 1:-1, 1:-1] if padding == "valid" else weight
    inner = inner.expand(expected_map.shape)
    expected = (inner * expected_map).sum() / inner.sum()
    found = AmplifiedGMSLoss(**options)(x, y, weight)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    gradients = [torch.autograd.grad(loss, (x, y), retain_graph=True) for loss in (found, expected)]
    assert max(errors(*gradients)) < 1e-12

    found_map = AmplifiedGMSLoss(**options, reduction="none")(x, y, weight)
    torch.testing.assert_close(found_map, inner * expected_map)
    upstream = torch.rand_like(found_map)
    maps = (found_map, inner * expected_map)
    gradients = [torch.autograd.grad((upstream * each).sum(), (x, y)) for each in maps]
    assert max(errors(*gradients)) < 1e-12


def test_agrees_with_scipy():
    x, y = torch.rand(2, 1, 1, 20, 31, dtype=torch.float64).unbind()

    def magnitude(image):
        plane = image[0, 0].numpy(force=True)
        gradient = [ndimage.prewitt(plane, axis, mode="mirror") / 3.0 for axis in (0, 1)]
        return np.hypot(*gradient)

    a, b = magnitude(x), magnitude(y)
    found = functional.gms(x, y, reduction="none")[0, 0].numpy(force=True)
    assert found == pytest.approx((2 * a * b + 0.0026) / (a**2 + b**2 + 0.0026), rel=1e-12)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("wanted", ["input", "target", "both"])
def test_gradcheck(padding, wanted):
    x, y = torch.rand(2, 1, 2, 6, 7, dtype=torch.float64).unbind()
    x.requires_grad_(wanted != "target"), y.requires_grad_(wanted != "input")
    loss_function = AmplifiedGMSLoss(padding=padding)

    def moved(x, y):
        # Off the corners of mirrored images, whose gradient is always 0.
        weight = torch.ones_like(x)
        weight[..., [0, 0, -1, -1], [0, -1, 0, -1]] = 0.0
        return loss_function(x, y, weight)

    assert torch.autograd.gradcheck(moved, (x, y))


@pytest.mark.parametrize("module", [AmplifiedGMSLoss, AmplifiedMSGMSLoss])
@pytest.mark.parametrize("apart", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("scene", ["texture", "dark", "flat", "dark beside bright"])
def test_nearly_equal_images_lose_no_digits(scene, apart, module):
    """Float32 against the accurate form in float64; tests above compare that with the textbook."""
    _loses_no_digits(module(), pair(scene, apart))


def test_what_a_mask_hides_costs_msgms_no_digits():
    mask = torch.ones(1, 1, 64, 64)
    mask[..., 8:24, 16:40] = 0.0
    x, y = pair("flat", 1e-4)
    mask = torch.nn.functional.interpolate(mask, x.shape[2:])
    hidden = mask.expand_as(y) == 0
    x, y = x.masked_fill(hidden, 1e30), y.masked_fill(hidden, -1e30)
    _loses_no_digits(AmplifiedMSGMSLoss(), (x, y), mask)


def _loses_no_digits(loss_function, images, mask=None):
    exact = [image.requires_grad_() for image in images]
    rounded = [image.detach().float().requires_grad_() for image in exact]
    results = []
    for images in (rounded, exact):
        loss = loss_function(*images, mask=mask)
        gradients = torch.autograd.grad(loss, images)
        results.append((loss.double().view(1), *(g.double() for g in gradients)))
    assert max(errors(*results)) < 1e-5


def test_flat_images_have_a_finite_gradient():
    flat = torch.full((1, 2, 8, 9), 0.3)
    texture = torch.rand(1, 2, 8, 9)
    for x, y, equal in (
        (flat, flat, True),
        (flat, flat + 0.2, True),  # brightness is not seen
        (flat, texture, False),
        (texture, flat, False),
    ):
        x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
        loss = AmplifiedGMSLoss()(x, y)
        gradients = torch.autograd.grad(loss, (x, y))
        assert (loss.item() == 0.0) == equal
        for image, gradient in zip((x, y), gradients, strict=True):
            assert gradient.isfinite().all()
            assert bool(gradient.any()) == bool(image.amax() > image.amin())


def test_nan_reaches_the_positions_that_see_it_and_no_others():
    x, y = torch.rand(2, 1, 1, 12, 12).unbind()
    x[..., 5, 6] = NAN
    found = AmplifiedGMSLoss(reduction="none")(x, y)[0, 0].isnan()
    expected = torch.zeros(12, 12, dtype=torch.bool)
    expected[4:7, 5:8] = True
    expected[5, 6] = False  # the operator does not look at its center
    assert torch.equal(found, expected)
    assert AmplifiedGMSLoss()(x, y).isnan()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_layouts_and_half_types(layout, dtype):
    x, y = torch.rand(2, 2, 3, 18, 20).to(dtype).unbind()
    weight = torch.rand(2, 3, 18, 20)
    results = []
    for change in (LAYOUTS[layout], lambda image: image.float()):
        leaf = change(x).detach().requires_grad_()
        loss = AmplifiedGMSLoss()(leaf, change(y), LAYOUTS[layout](weight))
        results.append((loss, *torch.autograd.grad(loss, leaf)))
    torch.testing.assert_close(results[0][0], results[1][0])
    half = dtype != torch.float32
    torch.testing.assert_close(
        results[0][1].float(), results[1][1], rtol=1e-2 if half else 1e-6, atol=1e-6
    )


def test_threads_do_not_change_a_bit():
    x, y = torch.rand(2, 2, 3, 260, 270).unbind()
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaf = x.clone().requires_grad_()
            loss = AmplifiedMSGMSLoss()(leaf, y)
            found.append((loss.item(), torch.autograd.grad(loss, leaf)[0]))
    finally:
        torch.set_num_threads(before)
    assert all(value == found[0][0] and torch.equal(g, found[0][1]) for value, g in found)


@pytest.mark.parametrize(
    "loss_function",
    [
        AmplifiedGMSLoss(),
        pytest.param(AmplifiedMSGMSLoss(gms_scales=2), marks=pytest.mark.kernels_only),
        pytest.param(AmplifiedReconstructionLoss(gms=1.0), marks=pytest.mark.kernels_only),
    ],
    ids=["gms", "msgms", "sum"],
)
def test_compiles_to_one_graph(loss_function):
    torch._dynamo.reset()
    compiled = torch.compile(loss_function, fullgraph=True, backend="aot_eager")
    for batch, side in ((2, 16), (3, 21)):  # the second graph serves any size
        x, y = torch.rand(2, batch, 2, side, side + 3).unbind()
        weight = torch.rand(batch, 1, side, side + 3)
        leaves = [x.clone().requires_grad_() for _ in range(2)]
        losses = [
            f(leaf, y, weight) for f, leaf in zip((loss_function, compiled), leaves, strict=True)
        ]
        torch.autograd.backward(losses)
        torch.testing.assert_close(*losses)
        torch.testing.assert_close(leaves[0].grad, leaves[1].grad)


def halved(image):
    """Means of 2 x 2 pixels, one by one; along an odd side the last mean is of what is left."""
    sides = [range(0, side, 2) for side in image.shape[2:]]
    rows = [[image[..., i : i + 2, j : j + 2].mean((-2, -1)) for j in sides[1]] for i in sides[0]]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


@pytest.mark.parametrize("side", [16, 19])
def test_msgms_is_the_mean_over_halved_images(side):
    x, y = torch.rand(2, 2, 2, side, side + 2, dtype=torch.float64).unbind()
    weight = torch.rand(2, 1, side, side + 2, dtype=torch.float64)
    means: dict[Any, list[torch.Tensor]] = {"element": [], "image": [], "batch": []}
    a, b, m = x, y, weight
    for scale in range(3):
        if scale:
            a, b, m = halved(a), halved(b), halved(m)
        loss, full = textbook(a, b), m.expand(a.shape)
        means["element"].append((full * log(loss)).sum() / full.sum())
        means["image"].append((full * loss).sum((1, 2, 3)) / full.sum((1, 2, 3)))
        means["batch"].append((full * loss).sum() / full.sum())
    expected = {level: torch.stack(each).mean(0) for level, each in means.items()}
    expected = {
        "element": expected["element"],
        "image": log(expected["image"]).mean(),
        "batch": log(expected["batch"]),
    }
    for level, value in expected.items():
        found = AmplifiedMSGMSLoss(gms_scales=3, amplify_over=level)(x, y, weight)
        assert found.item() == pytest.approx(value.item(), rel=1e-12), level
    found = functional.msgms(x, y, gms_scales=1)
    assert found.item() == functional.gms(x, y).item()


def test_reductions_of_msgms():
    x, y = torch.rand(2, 3, 1, 20, 20).unbind()
    weight = torch.ones(3, 1, 20, 20)
    weight[1] = 0.0  # an image that does not count
    found = {
        reduction: AmplifiedMSGMSLoss(amplify_over="image", reduction=reduction)(x, y, weight)
        for reduction in ("image", "sum", "mean")
    }
    assert found["image"][1] == 0.0
    torch.testing.assert_close(found["sum"], found["image"].sum())
    torch.testing.assert_close(found["mean"], found["image"].sum() / 2)
    by_element = AmplifiedMSGMSLoss(reduction="image")
    assert by_element(x, y).shape == (3,)
    torch.testing.assert_close(by_element(x, y), by_element(x, y, torch.ones(3, 1, 20, 20)))
    assert AmplifiedMSGMSLoss(amplify_over="image")(x[:0], y[:0]).item() == 0.0


def test_the_sum_of_riad_is_one_module():
    x, y = torch.rand(2, 2, 3, 32, 40).unbind()
    weight = torch.rand(2, 1, 32, 40)
    for level in ("element", "image", "batch"):
        whole = AmplifiedReconstructionLoss(ssim=1.0, msgms=0.7, mse=0.5, amplify_over=level)
        parts = [
            (1.0, AmplifiedSSIMLoss(amplify_over=level)),
            (0.7, AmplifiedMSGMSLoss(amplify_over=level)),
            (0.5, AmplifiedMSELoss(amplify_over=level)),
        ]
        results = []
        for terms in ([(1.0, whole)], parts):
            leaf = x.clone().requires_grad_()
            loss = sum(k * part(leaf, y, weight) for k, part in terms)
            results.append((loss, *torch.autograd.grad(loss, leaf)))
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-8)


def test_maps_of_several_terms_add():
    x, y = torch.rand(2, 2, 3, 12, 14).unbind()
    whole = AmplifiedReconstructionLoss(ssim=0.0, mse=0.5, gms=2.0, reduction="none")(x, y)
    parts = [AmplifiedMSELoss(reduction="none"), AmplifiedGMSLoss(reduction="none")]
    torch.testing.assert_close(whole, 0.5 * parts[0](x, y) + 2.0 * parts[1](x, y))


def test_tangent_share_counts_every_term():
    x = torch.zeros(1, 1, 8, 8)
    y = x.clone()
    y[..., 4:] = 1.0
    loss = {"gms": AmplifiedGMSLoss(), "mse": AmplifiedMSELoss()}
    share = {name: each.tangent_share(x, y).item() for name, each in loss.items()}
    # Two columns see the edge: there a = 0, b = 1, L = 1/1.0026.
    assert share == {"gms": 0.25, "mse": 0.5}
    both = AmplifiedReconstructionLoss(ssim=0.0, mse=1.0, gms=1.0).tangent_share(x, y)
    assert both.item() == pytest.approx(0.375)
    scales = AmplifiedMSGMSLoss(gms_scales=2).tangent_share(x, y)
    assert scales.item() == pytest.approx((16 + 8) / (64 + 16))


# ---- Masks and ranges --------------------------------------------------------------------------


@pytest.mark.parametrize("module", [AmplifiedGMSLoss, AmplifiedMSGMSLoss])
def test_a_masked_rectangle_is_like_the_crop(module):
    """With "zeros", operators that reach beyond the mask or the image do not count, as "valid"."""
    x, y = torch.rand(2, 2, 3, 40, 48).unbind()
    mask = torch.zeros(2, 1, 40, 48, dtype=torch.bool)
    mask[..., 8:32, 8:40] = True
    x.masked_fill_(~mask, NAN), y.masked_fill_(~mask, math.inf)
    inside = (..., slice(8, 32), slice(8, 40))
    for padding in ("reflect", "valid", "zeros"):
        leaf, crop = x.clone().requires_grad_(), x[inside].clone().requires_grad_()
        found = module(padding=padding)(leaf, y, mask=mask)
        expected = module(padding="valid")(crop, y[inside])
        torch.testing.assert_close(found, expected)
        (gradient,), (of_crop,) = (
            torch.autograd.grad(loss, image) for loss, image in ((found, leaf), (expected, crop))
        )
        torch.testing.assert_close(gradient[inside], of_crop)
        assert gradient.masked_fill(mask, 0.0).abs().max() == 0.0


def with_gradients(loss, x, y, **tensors):
    """The loss or map, and the gradients of its sum with respect to both images."""
    leaves = [image.clone().requires_grad_() for image in (x, y)]
    found = loss(*leaves, **tensors)
    return (found.detach(), *torch.autograd.grad(found.sum(), leaves))


def holes(*shape, share=0.1):
    return (torch.rand(shape) >= share).float()


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.97])
@pytest.mark.parametrize(
    ("module", "reduction"),
    [(AmplifiedGMSLoss, "mean"), (AmplifiedGMSLoss, "none"), (AmplifiedMSGMSLoss, "mean")],
)
def test_hidden_pixels_may_hold_anything(module, reduction, share, padding):
    x, y = torch.rand(2, 2, 3, 33, 70).unbind()
    mask, weight = holes(2, 1, 33, 70, share=share), torch.rand(2, 1, 33, 70)
    hidden = (mask == 0).expand(x.shape)
    loss = module(padding=padding, reduction=reduction)
    for tensors in ({"mask": mask}, {"mask": mask > 0}, {"mask": mask, "weight": weight}):
        wanted = with_gradients(loss, x, y, **tensors)
        for value in (NAN, math.inf, -1e30):
            found = with_gradients(
                loss, x.masked_fill(hidden, value), y.masked_fill(hidden, -value), **tensors
            )
            for got, want in zip(found, wanted, strict=True):
                assert torch.equal(got, want)
            for gradient in found[1:]:
                assert not gradient[hidden].any()
                assert gradient.isfinite().all()


def test_a_visible_nan_is_not_hidden():
    x, y = torch.rand(2, 1, 1, 20, 30).unbind()
    mask = torch.ones(1, 1, 20, 30)
    mask[..., 5, 5] = 0.0
    x[..., 10, 20] = NAN
    loss, gradient, _ = with_gradients(AmplifiedGMSLoss(reduction="sum"), x, y, mask=mask)
    assert loss.isnan()
    assert gradient[..., :8, :].isfinite().all()


@pytest.mark.parametrize("padding", ["reflect", "valid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", ["element", "image", "batch"])
def test_a_mask_of_ones_changes_no_bit(level, dtype, padding):
    x, y = torch.rand(2, 2, 3, 41, 270, dtype=dtype).unbind()
    for reduction in REDUCTIONS[level]:
        loss = AmplifiedGMSLoss(padding=padding, amplify_over=level, reduction=reduction)
        plain = with_gradients(loss, x, y)
        for mask in (torch.ones(2, 1, 41, 270), torch.ones(2, dtype=torch.bool)):
            found = with_gradients(loss, x, y, mask=mask)
            for got, want in zip(found, plain, strict=True):
                assert torch.equal(got, want)


class SizesOfTensors(TorchDispatchMode):
    """Records how many elements the new tensors of PyTorch's own operators have."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function.namespace == "aten" and isinstance(result, torch.Tensor):
            given = {each.data_ptr() for each in args if isinstance(each, torch.Tensor)}
            self.sizes.append(0 if result.data_ptr() in given else result.numel())
        return result


@pytest.mark.kernels_only
@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_no_image_is_copied_for_a_mask(dtype):
    x, y = torch.rand(2, 2, 16, 20, 30).unbind()
    mask = holes(2, 1, 20, 30).to(dtype)
    leaf = x.clone().requires_grad_()
    with SizesOfTensors() as created:
        AmplifiedGMSLoss()(leaf, y, mask=mask).backward()
    assert 0 < max(created.sizes) < x.numel() / 2


def test_a_mask_counts_with_the_smallest_value_that_the_operator_sees():
    x, y = torch.rand(2, 1, 1, 10, 11).unbind()
    mask, weight = torch.rand(1, 1, 10, 11), torch.rand(1, 1, 10, 11)
    smallest = torch.ones(1, 1, 10, 11)
    for i in range(10):
        for j in range(11):
            around = mask[..., max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            smallest[..., i, j] = around.min()
    torch.testing.assert_close(
        AmplifiedGMSLoss()(x, y, weight, mask), AmplifiedGMSLoss()(x, y, weight * smallest)
    )


@pytest.mark.parametrize("module", [AmplifiedGMSLoss, AmplifiedMSGMSLoss])
def test_a_mask_of_ones_changes_nothing_and_of_zeros_gives_zero(module):
    x, y = torch.rand(2, 2, 3, 21, 22).unbind()
    ones = torch.ones(2, 1, 1, 1)
    torch.testing.assert_close(module()(x, y, mask=ones), module()(x, y))
    leaf = torch.full_like(x, NAN).requires_grad_()
    loss = module()(leaf, y, mask=0 * ones)
    loss.backward()
    assert loss.item() == 0.0
    assert leaf.grad is not None
    assert not leaf.grad.any()


@pytest.mark.parametrize("module", [AmplifiedGMSLoss, AmplifiedMSGMSLoss])
def test_one_data_range_per_image(module):
    x, y = torch.rand(2, 2, 3, 21, 22).unbind()
    ranges = torch.tensor([1.0, 255.0])
    scale = ranges.view(-1, 1, 1, 1)
    leaf, scaled = x.clone().requires_grad_(), (x * scale).requires_grad_()
    expected = module()(leaf, y)
    found = module()(scaled, y * scale, data_range=ranges)
    torch.testing.assert_close(found, expected)
    (gradient,), (expected_gradient,) = (
        torch.autograd.grad(loss, image) for loss, image in ((found, scaled), (expected, leaf))
    )
    torch.testing.assert_close(gradient * scale, expected_gradient)


# ---- Anomaly maps ------------------------------------------------------------------------------


def test_the_map_of_gms_is_its_loss():
    x, y = torch.rand(2, 2, 3, 20, 30).unbind()
    found = functional.anomaly_map(x, y, metric="gms", data_range=2.0, gms_constant=0.01)
    loss = AmplifiedGMSLoss(
        amplification="none", reduction="none", data_range=2.0, gms_constant=0.01
    )
    torch.testing.assert_close(found, loss(x, y).mean(1))


@pytest.mark.parametrize("channels", ["mean", "max"])
def test_the_map_of_msgms_adds_the_enlarged_scales(channels):
    x, y = torch.rand(2, 2, 3, 21, 30, dtype=torch.float64).unbind()
    found = functional.anomaly_map(x, y, metric="msgms", gms_scales=3, channel_reduction=channels)
    expected = torch.zeros(2, 21, 30, dtype=torch.float64)
    for _ in range(3):
        loss = textbook(x, y)
        loss = loss.mean(1) if channels == "mean" else loss.amax(1)
        larger = torch.nn.functional.interpolate(loss[:, None], (21, 30), mode="bilinear")
        expected += larger[:, 0] / 3
        x, y = halved(x), halved(y)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("side", [1, 3, 21])
def test_the_mean_filter_matches_scipy(side):
    x, y = torch.rand(2, 2, 3, 24, 30, dtype=torch.float64).unbind()
    rough = functional.anomaly_map(x, y, metric="msgms").numpy(force=True)
    found = functional.anomaly_map(x, y, metric="msgms", mean_filter=side)
    means = [ndimage.uniform_filter(each, side, mode="constant") for each in rough]
    assert found.numpy(force=True) == pytest.approx(np.stack(means), rel=1e-10)
    plain = functional.anomaly_map(x, y, metric="mse", mean_filter=side, smooth_sigma=1.0)
    assert plain.shape == (2, 24, 30)


@pytest.mark.parametrize("metric", ["gms", "msgms"])
def test_no_masked_pixel_leaks_into_a_map(metric):
    x, y = torch.rand(2, 1, 3, 32, 32).unbind()
    mask = torch.ones(1, 1, 32, 32)
    mask[..., 8:14, 8:14] = 0.0
    options = {"metric": metric, "mean_filter": 5, "smooth_sigma": 1.0}
    found = functional.anomaly_map(x.masked_fill(mask == 0, NAN), y, mask, **options)
    other = functional.anomaly_map(x.masked_fill(mask == 0, 9.0), y, mask, **options)
    assert torch.equal(found, other)
    assert not found[:, 8:14, 8:14].any() or metric == "msgms"
    ones = functional.anomaly_map(x, y, torch.ones_like(mask), metric=metric)
    torch.testing.assert_close(ones, functional.anomaly_map(x, y, metric=metric))


# ---- Errors ------------------------------------------------------------------------------------


def test_errors_come_before_any_work():
    x = torch.rand(1, 1, 8, 8)
    cases = [
        (lambda: AmplifiedGMSLoss(gms_constant=0.0), "gms_constant must be between 1e-12"),
        (lambda: AmplifiedMSGMSLoss(gms_scales=0), "gms_scales must be an integer from 1 to 16"),
        (lambda: AmplifiedMSGMSLoss(reduction="none"), "reduction='none' does not exist"),
        (lambda: AmplifiedMSGMSLoss(reduction="sum"), "reduction='sum' does not exist"),
        (
            lambda: AmplifiedReconstructionLoss(msgms=1.0, reduction="none"),
            "reduction='none' does not exist",
        ),
        (
            lambda: AmplifiedReconstructionLoss(gms=1.0, reduction="none", padding="valid"),
            "requires a single term",
        ),
        (lambda: AmplifiedReconstructionLoss(gms=1.0, spatial_dims=3), "spatial_dims must be 2"),
        (lambda: AmplifiedGMSLoss()(x[0], x[0]), r"input must be \(N, C, H, W\)"),
        (lambda: AmplifiedGMSLoss()(x[..., :1], x[..., :1]), "at least 2 pixels for GMS"),
        (lambda: AmplifiedMSGMSLoss()(x, x), "at least 9 pixels for 4 scales of GMS"),
        (
            lambda: AmplifiedReconstructionLoss(window_size=3, msgms=1.0)(x, x),
            "at least 9 pixels for 4 scales of GMS",
        ),
        (lambda: functional.anomaly_map(x, x, metric="gms", mean_filter=4), "mean_filter must be"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
    for call in (
        lambda: AmplifiedMSGMSLoss(gms_scales=2.0),  # type: ignore[arg-type] # the mistake under test
        lambda: AmplifiedMSGMSLoss(gms_scales=True),
        lambda: functional.anomaly_map(x, x, mean_filter=3.0),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match="must be"):
            call()


def test_zeros_has_no_smallest_side():
    x, y = torch.rand(2, 1, 1, 1, 1).unbind()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert AmplifiedMSGMSLoss(padding="zeros")(x, y).item() == 0.0  # Prewitt skips the center


@pytest.mark.reference_only
def test_a_halved_image_keeps_its_range_along_odd_sides():
    image = torch.full((1, 1, 5, 6), 0.7)
    assert torch.equal(gms.halved(image), torch.full((1, 1, 3, 3), 0.7))
