"""MS-SSIM and its amplified loss against pytorch-msssim and against the written-out definition."""

import copy
import math
import pickle
from functools import partial
from typing import Any

import pytest
import scenes
import torch
from packages import optional
from torch.nn.functional import avg_pool2d

from lamp_kernels import AmplifiedMSSSIMLoss, amplify, functional
from lamp_kernels.functional import amplified_ms_ssim_loss, ms_ssim
from lamp_kernels.spec import SCALE_WEIGHTS

pytorch_msssim = optional("pytorch_msssim")

pytestmark = pytest.mark.usefixtures("each_backend")

# For images with sides of 9 or more.
SMALL: dict[str, Any] = {"scale_weights": (0.2, 0.3, 0.5), "window_size": 5, "sigma": 1.0}


def images(*shape, dtype=torch.float64):
    """A pair (N, C, H, W) of smooth textures with noise between them."""
    x = avg_pool2d(torch.rand(shape, dtype=dtype), 3, 1, 1)
    return x, (x + 0.1 * torch.randn(shape, dtype=dtype)).clamp(0, 1)


def window(channels, size=11, sigma=1.5):
    """float64 taps for pytorch-msssim, whose own are rounded to float32."""
    place = torch.arange(size, dtype=torch.float64) - size // 2
    taps = torch.exp(-(place**2) / (2 * sigma**2))
    return (taps / taps.sum()).view(1, 1, 1, -1).repeat(channels, 1, 1, 1)


def opposite(*shape):
    """A texture and its negative: the contrast-structure term is negative at the finest scale."""
    x = torch.rand(shape, dtype=torch.float64)
    return x, 1.0 - x


def contrast_structure(x, y, **options):
    """1 - q at each position, from SSIM = (1 - p)(1 - q) and separately computed window means."""
    size, sigma = options.get("window_size", 11), options.get("sigma", 1.5)
    taps = window(x.shape[1], size, sigma)

    def mean(plane):
        rows = torch.nn.functional.conv2d(plane, taps, groups=plane.shape[1])
        return torch.nn.functional.conv2d(rows, taps.transpose(-1, -2), groups=plane.shape[1])

    mu_x, mu_y = mean(x), mean(y)
    luminance = (2 * mu_x * mu_y + 1e-4) / (mu_x**2 + mu_y**2 + 1e-4)
    return functional.ssim(x, y, padding="valid", reduction="none", **options) / luminance


# ---- MS-SSIM itself ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 1, 176, 161), (1, 2, 163, 165)], ids=["even", "odd"])
def test_pytorch_msssim_value_and_gradients(shape):
    x, y = (image.requires_grad_() for image in images(*shape))
    found = ms_ssim(x, y, reduction="image")
    expected = pytorch_msssim.ms_ssim(
        x, y, data_range=1.0, size_average=False, win=window(shape[1])
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(ms_ssim(x, y), expected.mean(), rtol=1e-12, atol=0)
    for ours, theirs in zip(
        torch.autograd.grad(found.sum(), (x, y)),
        torch.autograd.grad(expected.sum(), (x, y)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-15)


def test_options_reach_every_scale():
    x, y = images(1, 1, 40, 50)
    y = 0.9 * y
    options: Any = {"data_range": 1.7, "k1": 0.02, "k2": 0.05, "window_size": 5, "sigma": 1.0}
    # A single scale is SSIM raised to the power of its weight.
    found = ms_ssim(x, y, scale_weights=[0.5], **options)
    expected = pytorch_msssim.ssim(
        x, y, data_range=1.7, K=(0.02, 0.05), win=window(1, size=5, sigma=1.0)
    )
    assert found.item() == pytest.approx(expected.sqrt().item(), rel=1e-12)
    found = ms_ssim(x, y, scale_weights=[0.5, 0.5], **options)
    for name in options:
        fewer = {key: value for key, value in options.items() if key != name}
        assert not torch.equal(ms_ssim(x, y, scale_weights=[0.5, 0.5], **fewer), found), name


def test_equal_and_nearly_equal_images():
    x = torch.rand(1, 2, 96, 96)
    assert ms_ssim(x, x, padding="reflect").item() == 1.0
    near = x + 1e-4 * torch.randn_like(x)
    loss = partial(amplified_ms_ssim_loss, amplification="none", dissimilarity="full")
    # 1 - MS-SSIM is 6e-8 here, the spacing of float32 at 1.
    found, expected = loss(near, x), loss(near.double(), x.double())
    assert expected.item() < 1e-7
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_scale_with_weight_zero_does_not_count():
    x, y = images(1, 1, 40, 40)
    found = ms_ssim(x, y, scale_weights=[0.0, 1.0])
    halves = (avg_pool2d(image, 2) for image in (x, y))
    assert found.item() == pytest.approx(functional.ssim(*halves).item(), rel=1e-12)


# ---- Amplification at each level ---------------------------------------------------------------


@pytest.mark.parametrize("a", [0.5, 1.0])
@pytest.mark.parametrize("level", ["image", "batch"])
def test_image_and_batch_level_amplify_one_minus_ms_ssim(level, a):
    x, y = images(3, 2, 24, 27)
    y[0] = x[0]
    kind: Any = "half" if a == 0.5 else "full"
    per_image = a * (1 - ms_ssim(x, y, reduction="image", **SMALL))
    loss = AmplifiedMSSSIMLoss(amplify_over=level, padding="valid", dissimilarity=kind, **SMALL)
    if level == "image":
        expected = amplify(per_image)
        for reduction, value in [
            ("image", expected),
            ("mean", expected.mean()),
            ("sum", expected.sum()),
        ]:
            loss.reduction = reduction
            torch.testing.assert_close(loss(x, y), value)
    else:
        torch.testing.assert_close(loss(x, y), amplify(per_image.mean()))


@pytest.mark.parametrize("a", [0.5, 1.0])
def test_element_level_amplifies_each_position_of_each_scale(a):
    x, y = images(2, 2, 24, 27)
    found = AmplifiedMSSSIMLoss(
        padding="valid", dissimilarity="half" if a == 0.5 else "full", **SMALL
    )(x, y)
    options: dict[str, Any] = {"window_size": 5, "sigma": 1.0}
    expected = 0.0
    fine = x, y
    for number, weight in enumerate(SMALL["scale_weights"]):
        sides = [side % 2 for side in fine[0].shape[2:]]
        if number == 2:
            similarity = functional.ssim(*fine, padding="valid", reduction="none", **options)
        else:
            similarity = contrast_structure(*fine, **options)
        expected += weight * amplify(a * (1 - similarity)).mean()
        fine = avg_pool2d(fine[0], 2, padding=sides), avg_pool2d(fine[1], 2, padding=sides)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


def test_without_amplification_every_level_is_one_minus_ms_ssim():
    x, y = images(2, 3, 24, 27)
    expected = 1 - ms_ssim(x, y, padding="reflect", **SMALL)
    for level in ("element", "image", "batch"):
        loss = AmplifiedMSSSIMLoss(amplification="none", amplify_over=level, **SMALL)
        torch.testing.assert_close(loss(x, y), 0.5 * expected)


def test_amplified_ms_ssim_of_one_channel_is_minus_its_logarithm():
    x, y = images(1, 1, 24, 27)
    loss = AmplifiedMSSSIMLoss(
        amplify_over="image", dissimilarity="full", padding="valid", eps=1e-6, **SMALL
    )
    assert loss(x, y).item() == pytest.approx(-math.log(ms_ssim(x, y, **SMALL)), rel=1e-12)


def test_the_levels_agree_for_small_losses():
    x = torch.rand(2, 1, 96, 96, dtype=torch.float64)
    y = x + 1e-3 * torch.randn_like(x)
    values = [
        AmplifiedMSSSIMLoss(amplify_over=level)(x, y).item()
        for level in ("element", "image", "batch")
    ]
    assert values == pytest.approx([values[0]] * 3, rel=1e-3)
    assert len(set(values)) == 3


# ---- Gradients ---------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["element", "image", "batch"])
def test_a_negative_scale_has_a_finite_gradient(level):
    x, y = opposite(2, 1, 176, 176)
    # This case does occur: pytorch-msssim's terms are negative here, and it clamps them.
    assert ms_ssim(x, y).item() == 0.0
    assert contrast_structure(x, y).mean() < 0
    x.requires_grad_()
    loss = AmplifiedMSSSIMLoss(amplify_over=level)(x, y)
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert (gradient.norm() > 0) == (level == "element")


def test_a_negative_channel_does_not_affect_the_gradients_of_the_others():
    x, y = opposite(1, 2, 24, 24)
    y[:, 1] = x[:, 1] + 0.1
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(ms_ssim(x, y, **SMALL), x)
    assert gradient[:, 0].abs().max() == 0
    assert gradient[:, 1].norm() > 0
    assert gradient.isfinite().all()


@pytest.mark.parametrize("level", ["element", "image", "batch"])
@pytest.mark.parametrize("amplification", ["log", "none"])
def test_gradcheck(level, amplification):
    x, y = (image.requires_grad_() for image in images(2, 2, 9, 11))
    weight = torch.rand(2, 1, 9, 11, dtype=torch.float64)
    loss = AmplifiedMSSSIMLoss(
        amplify_over=level,
        amplification=amplification,
        scale_weights=(0.4, 0.6),
        window_size=3,
        sigma=1.0,
    )
    assert torch.autograd.gradcheck(loss, (x, y, weight), fast_mode=True)


def test_training_raises_the_similarity():
    target = images(1, 1, 96, 96, dtype=torch.float32)[0]
    x = torch.nn.Parameter(torch.rand(1, 1, 96, 96))
    optimizer = torch.optim.Adam([x], lr=0.03)
    loss_function = AmplifiedMSSSIMLoss()
    before = ms_ssim(x, target, padding="reflect").item()
    for _ in range(10):
        optimizer.zero_grad()
        loss_function(x, target).backward()
        optimizer.step()
    assert ms_ssim(x, target, padding="reflect").item() > before + 0.2


@pytest.mark.beside_reference
@pytest.mark.parametrize("level", ["element", "image"])
@pytest.mark.parametrize("apart", [1e-2, 1e-5])
@pytest.mark.parametrize("scene", scenes.SCENES)
def test_accuracy_in_float32(each_backend, scene, apart, level):
    pair = scenes.pair(scene, apart)
    results = []
    for dtype, backend in [(torch.float32, each_backend), (torch.float64, "reference")]:
        x, y = (image.to(dtype) for image in pair)
        x.requires_grad_()
        loss = AmplifiedMSSSIMLoss(amplify_over=level, backend=backend)(x, y)
        results.append((loss.item(), torch.autograd.grad(loss, x)[0].double()))
    (found, gradient), (expected, exact) = results
    assert found == pytest.approx(expected, rel=1e-5)
    assert (gradient - exact).norm() <= 1e-5 * exact.norm()


# ---- Weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["element", "image", "batch"])
@pytest.mark.parametrize("amplification", ["log", "none"])
class TestWeights:
    def loss(self, level, amplification, reduction="mean"):
        return AmplifiedMSSSIMLoss(
            amplify_over=level, amplification=amplification, reduction=reduction, **SMALL
        )

    def test_constant_weight_changes_nothing(self, level, amplification):
        x, y = images(2, 3, 24, 28)
        loss = self.loss(level, amplification)
        for shape in [(1,), (2,), (1, 1, 1, 28), (2, 1, 24, 28), (1, 3, 1, 1)]:
            torch.testing.assert_close(loss(x, y, 2.5 * torch.ones(shape)), loss(x, y))

    def test_zero_leaves_an_image_out(self, level, amplification):
        x, y = images(3, 2, 24, 28)
        loss = self.loss(level, amplification)
        weight = torch.tensor([True, False, True]).view(3, 1, 1, 1)
        torch.testing.assert_close(loss(x, y, weight), loss(x[::2], y[::2]))

    def test_zero_leaves_a_channel_out(self, level, amplification):
        x, y = images(2, 3, 24, 28)
        loss = self.loss(level, amplification)
        weight = torch.tensor([1.0, 0.0, 1.0]).view(1, 3, 1, 1)
        torch.testing.assert_close(loss(x, y, weight), loss(x[:, ::2], y[:, ::2]))

    def test_all_zero_and_empty_batch(self, level, amplification):
        x, y = (image.requires_grad_() for image in images(2, 3, 24, 28))
        for loss in (
            self.loss(level, amplification)(x, y, torch.zeros(1)),
            self.loss(level, amplification)(x[:0], y[:0]),
        ):
            assert loss.item() == 0.0
            assert torch.autograd.grad(loss, x)[0].abs().max() == 0

    def test_only_the_weighted_part_of_the_image_counts(self, level, amplification):
        # Unweighted pixels farther away than two windows and the downsampling have no effect.
        x, y = images(1, 1, 24, 64)
        weight = torch.zeros(1, 1, 1, 64)
        weight[..., :16] = 1
        other = y.clone()
        other[..., 48:] = 1 - other[..., 48:]
        loss = self.loss(level, amplification)
        torch.testing.assert_close(loss(x, y, weight), loss(x, other, weight), rtol=1e-12, atol=0)
        assert not torch.isclose(loss(x, y), loss(x, other))

    def test_image_reduction(self, level, amplification):
        if level == "batch":
            with pytest.raises(ValueError, match="reduction='image'"):
                self.loss(level, amplification, "image")
            return
        x, y = images(2, 2, 24, 28)
        weight = torch.rand(2, 1, 24, 28)
        found = self.loss(level, amplification, "image")(x, y, weight)
        loss = self.loss(level, amplification)
        each = [loss(x[[n]], y[[n]], weight[[n]]) for n in range(2)]
        torch.testing.assert_close(found, torch.stack(each))


# ---- PyTorch's conventions, errors -------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data_range", 1.5),
        ("window_size", 3),
        ("sigma", 0.8),
        ("k1", 0.9),
        ("k2", 0.3),
        ("padding", "zeros"),
        ("dissimilarity", "full"),
        ("scale_weights", [0.1, 0.9]),
        ("amplification", "none"),
        ("amplify_over", "image"),
        ("eps", 0.9),
        ("reduction", "image"),
    ],
)
def test_every_option_of_the_module_reaches_the_function(name, value):
    x, y = images(2, 2, 24, 28)
    options = SMALL | {name: value}
    found = AmplifiedMSSSIMLoss(**options)(x, y)
    assert torch.equal(found, amplified_ms_ssim_loss(x, y, **options))
    assert not torch.equal(found, amplified_ms_ssim_loss(x, y, **SMALL))


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_conventions(clone):
    loss = AmplifiedMSSSIMLoss(eps=0.2, **SMALL)
    assert loss.state_dict() == {}
    assert "scale_weights=(0.2, 0.3, 0.5)" in repr(loss)
    x, y = images(1, 1, 24, 24)
    assert torch.equal(clone(loss)(x, y), loss(x, y))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype):
    x, y = (image.to(dtype).requires_grad_() for image in images(1, 2, 24, 28))
    loss = AmplifiedMSSSIMLoss(**SMALL)
    found = loss(x, y)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(x.float(), y.float()), rtol=1e-6, atol=0)
    found.backward()
    assert x.grad.dtype == dtype


def test_mixed_dtypes_require_autocast():
    x, y = images(1, 2, 24, 28, dtype=torch.float32)
    loss = AmplifiedMSSSIMLoss(**SMALL)
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        found = loss(x.bfloat16(), y)
    torch.testing.assert_close(found, loss(x.bfloat16().float(), y))
    with pytest.raises(TypeError, match=r"torch\.bfloat16 and torch\.float32"):
        loss(x.bfloat16(), y)


def test_channels_last():
    x, y = images(2, 3, 24, 28)
    for level in ("element", "image"):
        loss = AmplifiedMSSSIMLoss(amplify_over=level, **SMALL)
        found = loss(*(image.to(memory_format=torch.channels_last) for image in (x, y)))
        torch.testing.assert_close(found, loss(x, y), rtol=1e-12, atol=0)


@pytest.mark.parametrize("level", ["element", "image"])
def test_nan_is_not_hidden(level):
    x, y = images(2, 1, 24, 28)
    x[0, 0, 3, 3] = math.nan
    found = AmplifiedMSSSIMLoss(amplify_over=level, reduction="image", **SMALL)(x, y)
    assert found.isnan().tolist() == [True, False]


@pytest.mark.kernels_only
def test_compiles_to_one_graph():
    x, y = images(1, 1, 24, 28, dtype=torch.float32)
    one = AmplifiedMSSSIMLoss(scale_weights=(0.4, 0.6), window_size=5)
    other = AmplifiedMSSSIMLoss(scale_weights=(0.4, 0.6), window_size=5, amplify_over="image")

    def both(x, y):
        return one(x, y) + other(x, y)

    results = []
    for function in (both, torch.compile(both, fullgraph=True, backend="aot_eager")):
        own = x.clone().requires_grad_()
        value = function(own, y)
        value.backward()
        results.append((value.detach(), own.grad))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ((), ValueError, r"scale_weights must be positive, got \(\)"),
        ((0.0, 0.0), ValueError, "scale_weights"),
        ((0.5, -0.5), ValueError, r"scale_weights\[1\].*-0.5"),
        ((0.5, math.nan), ValueError, r"scale_weights\[1\].*nan"),
        ((0.5, "1"), TypeError, r"scale_weights\[1\].*'1'"),
        (0.5, TypeError, r"scale_weights.*0.5"),
        ("0.5", TypeError, r"scale_weights.*'0.5'"),
    ],
)
def test_scale_weights(value, error, message):
    image = torch.rand(1, 1, 24, 24)
    for call in (
        lambda: AmplifiedMSSSIMLoss(scale_weights=value),
        lambda: amplified_ms_ssim_loss(image, image, scale_weights=value),
        lambda: ms_ssim(image, image, scale_weights=value),
    ):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize(
    ("level", "reduction"),
    [
        ("element", "none"),
        ("element", "sum"),
        ("image", "none"),
        ("batch", "sum"),
        ("batch", "image"),
    ],
)
def test_reduction_that_the_level_does_not_support(level, reduction):
    with pytest.raises(ValueError, match=f"reduction='{reduction}'.*amplify_over='{level}'"):
        AmplifiedMSSSIMLoss(amplify_over=level, reduction=reduction)
    image = torch.rand(1, 1, 96, 96)
    with pytest.raises(ValueError, match=f"reduction='{reduction}'.*amplify_over='{level}'"):
        amplified_ms_ssim_loss(image, image, amplify_over=level, reduction=reduction)


@pytest.mark.parametrize(("padding", "least"), [("valid", 161), ("reflect", 81), ("zeros", 1)])
def test_smallest_image(padding, least):
    image = torch.rand(1, 1, least, least + 1)
    assert amplified_ms_ssim_loss(image, image, padding=padding).item() == 0.0
    if least == 1:
        return
    for shape in [(1, 1, least - 1, 200), (1, 1, 200, least - 1)]:
        small = torch.rand(shape)
        with pytest.raises(
            ValueError, match=f"at least {least} pixels for 5 scales of window_size=11"
        ):
            amplified_ms_ssim_loss(small, small, padding=padding)


def test_bad_tensors():
    image = torch.rand(1, 1, 96, 96)
    with pytest.raises(ValueError, match="same shape"):
        amplified_ms_ssim_loss(image, image[..., 1:])
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        amplified_ms_ssim_loss(image[0], image[0])
    with pytest.raises(ValueError, match="does not broadcast"):
        amplified_ms_ssim_loss(image, image, torch.ones(95))
    with pytest.raises(ValueError, match="reduction"):
        ms_ssim(image, image, reduction="none")  # type: ignore[arg-type] # the mistake under test


def test_the_default_weights_match_pytorch_msssim():
    x, y = images(1, 1, 161, 161)
    listed = pytorch_msssim.ms_ssim(x, y, data_range=1.0, weights=list(SCALE_WEIGHTS))
    assert torch.equal(listed, pytorch_msssim.ms_ssim(x, y, data_range=1.0))
