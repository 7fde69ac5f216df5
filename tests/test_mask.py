"""Masks: hidden pixels are in no window and may hold anything; a mask of ones costs no bit.

The loop over windows and the other known answers are in float64; tests/test_accuracy.py has scenes.
"""

import functools

import pytest
import torch

from lamp_kernels import (
    AmplifiedGMSLoss,
    AmplifiedMSGMSLoss,
    AmplifiedMSSSIMLoss,
    AmplifiedReconstructionLoss,
    AmplifiedSSIMLoss,
    backends,
    functional,
)
from lamp_kernels.spec import LossSpec

pytestmark = pytest.mark.usefixtures("each_backend")


@pytest.fixture(autouse=True)
def only_backends_with_masks(each_backend):
    reason = backends.BACKENDS[each_backend].unsupported_reason(
        LossSpec(masked=True), torch.empty(0)
    )
    if reason is not None:
        pytest.skip(f"{each_backend}: {reason}")


REDUCTIONS = [
    ("element", "mean"),
    ("element", "sum"),
    ("element", "image"),
    ("element", "none"),
    ("image", "mean"),
    ("image", "sum"),
    ("image", "image"),
    ("batch", "mean"),
]


def pair(shape, apart=0.1, dtype=torch.float64):
    target = torch.rand(shape, dtype=torch.float64)
    return (target + apart * torch.randn(shape, dtype=torch.float64)).to(dtype), target.to(dtype)


def holes(shape, share=0.3):
    return (torch.rand(shape, dtype=torch.float64) > share).double()


def fractions(shape):
    values = torch.rand(shape, dtype=torch.float64)
    return torch.where(values > 0.3, values, 0.0)


def results(loss, input, target, wanted="both", **arguments):
    """The loss, and the gradients of its sum with respect to the wanted images."""
    images = [image.detach().clone() for image in (input, target)]
    chosen = images if wanted == "both" else images[:1]
    for image in chosen:
        image.requires_grad_()
    value = loss(*images, **arguments)
    return [value.detach(), *torch.autograd.grad(value.sum(), chosen)]


def error(found, wanted):
    return ((found.double() - wanted.double()).norm() / wanted.double().norm()).item()


# ---- Known answers ------------------------------------------------------------------------------


def by_windows(x, y, mask, weight, size, padding):
    """The mean of (1 - SSIM)/2, window by window, in the textbook's moments of x and y."""
    radius, spec = size // 2, LossSpec(window_size=size)
    taps = torch.tensor(spec.window_taps, dtype=torch.float64)
    window = taps[:, None] * taps
    height, width = x.shape[-2:]
    mask, weight = mask.expand(x.shape), weight.expand(x.shape)

    def seen(at, length):
        if padding == "reflect":
            return -at if at < 0 else 2 * (length - 1) - at if at >= length else at
        return at if 0 <= at < length else None

    margin = radius if padding == "valid" else 0
    total, weights = x.new_zeros(()), x.new_zeros(())
    for i in range(margin, height - margin):
        at_rows = [seen(i + t - radius, height) for t in range(size)]
        rows = [t for t in range(size) if at_rows[t] is not None]
        for j in range(margin, width - margin):
            at_columns = [seen(j + t - radius, width) for t in range(size)]
            columns = [t for t in range(size) if at_columns[t] is not None]
            at = torch.tensor([at_rows[t] * width + at_columns[u] for t in rows for u in columns])
            g = window[rows][:, columns].flatten()
            g, a, b = g * mask.flatten(2)[..., at], x.flatten(2)[..., at], y.flatten(2)[..., at]
            here = mask[..., i, j] * weight[..., i, j]
            g = g / g.sum(-1, keepdim=True)
            g = torch.where(here[..., None] > 0, g, 1.0)  # any, because it does not count
            mean_a, mean_b = (g * a).sum(-1), (g * b).sum(-1)
            a, b = a - mean_a[..., None], b - mean_b[..., None]
            var_a, var_b, both = ((g * v).sum(-1) for v in (a * a, b * b, a * b))
            luminance = (2 * mean_a * mean_b + spec.k1**2) / (mean_a**2 + mean_b**2 + spec.k1**2)
            similarity = luminance * (2 * both + spec.k2**2) / (var_a + var_b + spec.k2**2)
            total = total + (here * (1 - similarity) / 2).sum()
            weights = weights + here.sum()
    return total / weights


@functools.cache
def known(size, padding, mask_shape, fractional, weighted):
    """Images, mask, weight, and the loss and gradients by the loop over windows."""
    x, y = pair((2, 2, 11, 12))
    mask = fractions(mask_shape) if fractional else holes(mask_shape)
    if mask_shape == (2,):
        mask = torch.tensor([1.0, 0.0], dtype=torch.float64)
    weight = torch.rand(2, 1, 11, 12, dtype=torch.float64) if weighted else None
    full = mask.view(2, 1, 1, 1) if mask.dim() == 1 else mask
    every = torch.ones(1, dtype=torch.float64) if weight is None else weight
    return x, y, mask, weight, results(by_windows, x, y, mask=full, weight=every, size=size,
                                       padding=padding)  # fmt: skip


@pytest.mark.parametrize("padding", ["reflect", "valid", "zeros"])
@pytest.mark.parametrize(
    ("size", "mask_shape", "fractional", "weighted"),
    [
        (3, (2, 1, 11, 12), False, False),
        (7, (2, 2, 11, 12), True, True),
        (11, (1, 1, 11, 12), True, False),
        (11, (2, 2, 11, 12), False, True),
        (7, (2,), False, False),
    ],
)
def test_a_loop_over_windows(each_backend, padding, size, mask_shape, fractional, weighted):
    x, y, mask, weight, wanted = known(size, padding, mask_shape, fractional, weighted)

    def loss(input, target):
        options = {"window_size": size, "padding": padding, "amplification": "none"}
        return functional.amplified_ssim_loss(input, target, weight, mask=mask, **options)

    found = results(loss, x, y)
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-13)
    for got, want in zip(results(loss, x, y, "input"), found[:2], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("size", [3, 7, 11])
def test_a_rectangle_is_the_crop(each_backend, size):
    x, y = pair((2, 3, 40, 300))
    mask = torch.zeros(2, 1, 40, 300)
    mask[..., 9:31, 20:280] = 1
    loss = AmplifiedSSIMLoss(window_size=size, padding="zeros")
    found = results(loss, x, y, mask=mask)
    inner = [image[..., 9:31, 20:280] for image in (x, y)]
    wanted = results(loss, *inner, mask=torch.ones(1, 1, 1, 1))
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-12, atol=0.0)
    for got, want in zip(found[1:], wanted[1:], strict=True):
        torch.testing.assert_close(got[..., 9:31, 20:280], want, rtol=1e-9, atol=1e-16)
        assert not (got * (1 - mask)).any()


# ---- Hidden pixels ------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["reflect", "valid", "zeros"])
@pytest.mark.parametrize("share", [0.1, 0.97, 0.9995])
def test_hidden_pixels_may_hold_anything(each_backend, padding, share):
    x, y = pair((2, 2, 30, 70), dtype=torch.float32)
    mask = holes((2, 1, 30, 70), share)
    hidden = (mask == 0).expand(x.shape)
    loss = AmplifiedReconstructionLoss(mse=1.0, l1=0.5, charbonnier=0.5, padding=padding)
    wanted = results(loss, x, y, mask=mask)
    for values in (float("nan"), float("inf"), -1e30):
        found = results(
            loss, x.masked_fill(hidden, values), y.masked_fill(hidden, -values), mask=mask
        )
        for got, want in zip(found, wanted, strict=True):
            assert torch.equal(got, want)
        for gradient in found[1:]:
            assert (gradient[hidden] == 0).all()
            assert gradient[~hidden].isfinite().all()


def test_a_visible_nan_is_not_hidden(each_backend):
    x, y = pair((1, 1, 40, 60), dtype=torch.float32)
    mask = holes((1, 1, 40, 60))
    mask[..., 20, 30] = 1
    x[..., 20, 30] = float("nan")
    found = results(AmplifiedSSIMLoss(reduction="sum"), x, y, mask=mask)
    assert found[0].isnan()
    seen = torch.zeros_like(mask)
    seen[..., 10:31, 20:41] = 1  # by windows that see the NaN
    assert found[1][(seen == 0) & (mask > 0)].isfinite().all()


@pytest.mark.parametrize(("level", "reduction"), REDUCTIONS)
def test_a_mask_of_zeros_gives_zero(each_backend, level, reduction):
    x, y = pair((2, 1, 16, 20), dtype=torch.float32)
    loss = AmplifiedReconstructionLoss(amplify_over=level, reduction=reduction)
    found = results(loss, torch.full_like(x, float("nan")), y, mask=torch.zeros(2, 1, 16, 20))
    assert not any(each.any() for each in found)


# ---- A mask of ones -----------------------------------------------------------------------------


def assert_ones_change_no_bit(loss, shape, dtype=torch.float32, wanted="both"):
    x, y = pair(shape, dtype=dtype)
    plain = results(loss, x, y, wanted)
    for mask in (torch.ones(shape[0], 1, *shape[2:]), torch.ones(shape[0], dtype=torch.bool)):
        for got, want in zip(results(loss, x, y, wanted, mask=mask), plain, strict=True):
            assert torch.equal(got, want)


@pytest.mark.parametrize(("level", "reduction"), REDUCTIONS)
@pytest.mark.parametrize("padding", ["reflect", "valid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mask_of_ones_changes_no_bit(each_backend, level, reduction, padding, dtype):
    loss = AmplifiedSSIMLoss(padding=padding, amplify_over=level, reduction=reduction)
    assert_ones_change_no_bit(loss, (3, 3, 41, 270), dtype)


@pytest.mark.kernels_only
@pytest.mark.parametrize("padding", ["reflect", "valid"])
@pytest.mark.parametrize("size", [3, 5, 9, 11, 15])
@pytest.mark.parametrize("shape", [(1, 1, 15, 16), (2, 3, 150, 33), (1, 2, 20, 600)])
def test_a_mask_of_ones_changes_no_bit_of_any_window(each_backend, shape, size, padding):
    for wanted in ("both", "input"):
        loss = AmplifiedReconstructionLoss(mse=1.0, l1=0.5, window_size=size, padding=padding)
        assert_ones_change_no_bit(loss, shape, wanted=wanted)


@pytest.mark.parametrize("sides", [(176, 192), (177, 181)])
@pytest.mark.parametrize(
    "loss",
    [
        AmplifiedMSSSIMLoss(),
        AmplifiedMSSSIMLoss(amplify_over="image"),
        AmplifiedMSSSIMLoss(amplification="none"),
        AmplifiedGMSLoss(),
        AmplifiedMSGMSLoss(),
        AmplifiedReconstructionLoss(ssim=0.3, mse=0.0),
        AmplifiedReconstructionLoss(ssim=0.3, gms=0.3, msgms=0.7, mse=0.0),
    ],
    ids=repr,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mask_of_ones_changes_no_bit_of_other_metrics(each_backend, loss, sides, dtype):
    assert_ones_change_no_bit(loss, (2, 3, *sides), dtype)


def test_a_weight_beside_a_mask_of_ones(each_backend):
    x, y = pair((2, 3, 41, 70), dtype=torch.float32)
    weight = torch.rand(2, 1, 41, 70)
    loss = functools.partial(AmplifiedSSIMLoss(), weight=weight)
    found = results(loss, x, y, mask=torch.ones(2, 1, 41, 70))
    for got, want in zip(found, results(loss, x, y), strict=True):
        assert torch.equal(got, want)


# ---- Dtypes, threads, transforms ----------------------------------------------------------------


def layouts_of(mask):
    """The same mask, in every way to lay it out."""
    yield mask.expand(2, 3, 30, 300)
    yield mask.expand(2, 3, 30, 300).contiguous(memory_format=torch.channels_last)
    yield mask.transpose(-1, -2).contiguous().transpose(-1, -2)
    yield torch.stack([mask, 1 - mask], dim=-1)[..., 0]


def test_any_layout_of_the_mask(each_backend):
    x, y = pair((2, 3, 30, 300))
    for shape in ((2, 1, 30, 300), (1, 1, 30, 1), (1, 3, 1, 300)):
        mask = holes(shape)
        wanted = results(AmplifiedSSIMLoss(), x, y, mask=mask)
        for laid_out in layouts_of(mask.expand(2, 3, 30, 300).contiguous()):
            found = results(AmplifiedSSIMLoss(), x, y, mask=laid_out)
            for got, want in zip(found, wanted, strict=True):
                torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-16)


@pytest.mark.parametrize("share", [0.3, 0.999])
def test_neither_threads_nor_repetition_change_a_bit(each_backend, share):
    x, y = pair((2, 3, 80, 300), dtype=torch.float32)
    mask = holes((2, 1, 80, 300), share)
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 1, 2, 3):
            torch.set_num_threads(count)
            found.append(results(AmplifiedSSIMLoss(), x, y, mask=mask))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        for got, want in zip(other, found[0], strict=True):
            assert torch.equal(got, want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.bool, torch.int64])
def test_any_dtype_of_the_mask(each_backend, dtype):
    x, y = pair((2, 3, 20, 24), dtype=torch.float32)
    mask = holes((2, 1, 20, 24))
    loss = AmplifiedSSIMLoss()
    wanted = results(loss, x, y, mask=mask.float())
    for got, want in zip(results(loss, x, y, mask=mask.to(dtype)), wanted, strict=True):
        assert torch.equal(got, want)


def test_vmap(each_backend):
    x, y = pair((3, 2, 1, 16, 20))
    mask = holes((3, 2, 1, 16, 20))

    def loss(input, target, mask):
        return functional.amplified_ssim_loss(input, target, mask=mask)

    found = torch.vmap(torch.func.grad(loss))(x, y, mask)
    for each in range(3):
        wanted = results(loss, x[each], y[each], "input", mask=mask[each])[1]
        torch.testing.assert_close(found[each], wanted, rtol=1e-9, atol=1e-15)


def test_compiled(each_backend):
    torch.compiler.reset()
    x, y = pair((2, 2, 20, 24))
    mask = holes((2, 1, 20, 24)).bool()
    loss = AmplifiedSSIMLoss()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for got, want in zip(
        results(compiled, x, y, mask=mask), results(loss, x, y, mask=mask), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-13)


# ---- Maps and scales ----------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["ssim", "mse"])
def test_the_map_of_hidden_pixels_is_zero_and_does_not_spread(each_backend, metric):
    """A uniform error stays uniform however much is hidden, with smoothing, too."""
    x = torch.rand(2, 2, 30, 40, dtype=torch.float64)
    y = x + 0.1
    mask = holes((2, 1, 30, 40))
    hidden = x.masked_fill(mask == 0, float("nan"))
    found = functional.anomaly_map(hidden, y, mask, metric=metric, smooth_sigma=2.0)
    assert not (found * (1 - mask[:, 0])).any()
    if metric == "mse":
        torch.testing.assert_close(found, 0.01 * mask[:, 0], rtol=1e-9, atol=1e-12)
    plain = functional.anomaly_map(x, y, torch.ones(2, 1, 1, 1), metric=metric, smooth_sigma=2.0)
    wanted = functional.anomaly_map(x, y, metric=metric, smooth_sigma=2.0)
    torch.testing.assert_close(plain, wanted, rtol=1e-12, atol=1e-15)


def test_ms_ssim_sees_no_hidden_pixel(each_backend):
    x, y = pair((2, 2, 40, 50))
    mask = holes((2, 1, 40, 50), 0.2)
    loss = AmplifiedMSSSIMLoss(window_size=5, scale_weights=(0.3, 0.3, 0.4))
    wanted = results(loss, x, y, mask=mask)
    found = results(loss, x.masked_fill(mask == 0, float("nan")), y, mask=mask)
    for got, want in zip(found, wanted, strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("padding", ["reflect", "zeros"])
def test_a_hidden_center_spreads_no_nan(padding):
    """NaN reaches the pixels of the windows that see it and whose center is visible, no others."""
    x, y = torch.rand(2, 1, 1, 24, 40).unbind()
    x[..., 9, 15] = float("nan")
    mask = torch.ones(1, 1, 24, 40)
    mask[..., 11:, :] = (torch.rand(13, 40) < 0.1).float()
    mask[..., 10, ::2] = 0.0
    visible = mask.clone()
    visible[..., 9, 15] = 1.0
    seen = torch.zeros_like(mask)
    seen[..., 9, 15] = 1.0
    reach = torch.nn.functional.max_pool2d(seen, 5, stride=1, padding=2) * visible
    reach = (torch.nn.functional.max_pool2d(reach, 5, stride=1, padding=2) > 0) & (mask > 0)
    leaf = x.requires_grad_()
    loss = AmplifiedSSIMLoss(window_size=5, padding=padding)(leaf, y, mask=mask)
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert loss.isnan()
    assert torch.equal(~gradient.isfinite(), reach)


def test_masks_read_from_files_must_be_scaled(each_backend):
    x, y = pair((2, 3, 20, 20))
    mask = torch.randint(0, 2, (2, 1, 20, 20), dtype=torch.uint8)
    with pytest.raises(
        ValueError, match="mask must be between 0 and 1, got 0 to 255; use mask > 0"
    ):
        AmplifiedSSIMLoss()(x, y, mask=255 * mask)
    found = AmplifiedSSIMLoss()(x, y, mask=mask)
    assert torch.equal(found, AmplifiedSSIMLoss()(x, y, mask=mask > 0))


SOFT = torch.exp(-((torch.arange(64.0) - 20) ** 2) / 18)
STEEP = torch.sigmoid(torch.linspace(-100, 100, 64)).expand(64, 64)
HOLE = torch.ones(64, 64)
HOLE[20:40, 10:40] = 0.0
COLUMN = torch.zeros(64, 64)
COLUMN[:, 30] = 1e-42
MASKS = {"soft": torch.outer(SOFT, SOFT), "steep": STEEP, "hole": HOLE, "column": COLUMN}


@pytest.mark.beside_reference
@pytest.mark.parametrize("options", [{}, {"sigma": 0.5, "window_size": 15}, {"window": "uniform"}])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_windows_that_see_next_to_nothing(each_backend, mask, options, dtype):
    """Their sums are subnormal numbers, whose reciprocals are infinite."""
    x, y = pair((2, 3, 64, 64), dtype=dtype)
    hidden = MASKS[mask][None, None]
    found = results(AmplifiedSSIMLoss(**options), x, y, mask=hidden)
    assert all(each.isfinite().all() for each in found)
    if mask == "column" and dtype == torch.float32:  # float64 sees something
        return
    exact = AmplifiedSSIMLoss(**options, backend="reference")
    wanted = results(exact, x.double(), y.double(), mask=hidden.double())
    limit = 1e-4 if dtype == torch.float32 else 1e-10
    for got, want in zip(found, wanted, strict=True):
        assert (got.double() - want).norm() <= limit * want.norm()
