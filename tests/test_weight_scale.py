"""Means do not depend on the scale of the weight, and sums are proportional to it."""

import pytest
import torch

from lamp_kernels import functional, weights

pytestmark = pytest.mark.usefixtures("each_backend")

FUNCTIONS = [
    functional.amplified_ssim_loss,
    functional.amplified_mse_loss,
    functional.amplified_l1_loss,
    functional.amplified_reconstruction_loss,
    functional.amplified_ms_ssim_loss,
]
SCALES = [1e37, 3e38, 1e30, 1e-30, 1e-37, 1e-40]
SMALL = {"window_size": 3, "scale_weights": (0.5, 0.5)}


def results(function, x, y, weight, **options):
    """The loss, and the gradient of its sum with respect to x."""
    if function is functional.amplified_ms_ssim_loss:
        options |= SMALL
    x = x.clone().requires_grad_()
    loss = function(x, y, weight, **options)
    return loss.detach(), torch.autograd.grad(loss.sum(), x)[0]


def images(dtype=torch.float32):
    y = torch.rand(3, 2, 16, 20)
    return (y + 0.1 * torch.randn_like(y)).clamp(0, 1).to(dtype), y.to(dtype)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    ("level", "reduction"),
    [("element", "mean"), ("element", "image"), ("image", "mean"), ("batch", "mean")],
)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_means(function, level, reduction, scale):
    x, y = images()
    options = {"amplify_over": level, "reduction": reduction}
    ones = torch.ones(3, 1, 16, 20)
    wanted = results(function, x, y, ones, **options)
    found = results(function, x, y, scale * ones, **options)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("scale", [1e37, 1e-45])
def test_other_dtypes(dtype, scale):
    x, y = images(dtype)
    ones = torch.ones(3, 1, 16, 20)
    wanted = results(functional.amplified_ssim_loss, x, y, ones)
    found = results(functional.amplified_ssim_loss, x, y, scale * ones)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("scale", [1e300, 1e-60, 1e-320])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_in_float64(dtype, scale):
    x, y = images(dtype)
    ones = torch.ones(3, 1, 16, 20, dtype=torch.float64)
    for function in FUNCTIONS:
        wanted = results(function, x, y, ones)
        torch.testing.assert_close(results(function, x, y, scale * ones), wanted)


@pytest.mark.parametrize("scale", [1e30, 1e-30])
@pytest.mark.parametrize("function", FUNCTIONS[:4])
def test_sums_of_dark_images(function, scale):
    x, y = (0.01 * image for image in images())
    ones = torch.ones(3, 1, 16, 20)
    wanted = results(function, x, y, ones, reduction="sum")
    found = results(function, x, y, scale * ones, reduction="sum")
    scaled_back = tuple(each / scale for each in found)
    torch.testing.assert_close(scaled_back, wanted, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_a_sum_does_not_overflow():
    y = torch.zeros(2, 1, 16, 16)
    x = (0.1 * torch.randn_like(y)).clamp(0, 1)
    ones = torch.ones_like(y)
    wanted = results(functional.amplified_ssim_loss, x, y, ones, reduction="sum")[1]
    found = results(functional.amplified_ssim_loss, x, y, 1e35 * ones, reduction="sum")[1]
    torch.testing.assert_close(found / 1e35, wanted, rtol=1e-4, atol=1e-4)


def test_each_image_is_scaled_separately():
    x, y = images()
    weight = torch.tensor([1e37, 1.0, 1e-40]).view(3, 1, 1, 1).expand(3, 1, 16, 20)
    for function in FUNCTIONS:
        for level in ("element", "image"):
            options = {"amplify_over": level, "reduction": "image"}
            wanted = results(function, x, y, torch.ones(3), **options)
            found = results(function, x, y, weight, **options)
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-9)


def test_weights_outside_all_window_centers_have_no_effect():
    x, y = images()
    weight = torch.full((3, 1, 16, 20), 1e38)
    weight[..., 5:-5, 5:-5] = 1e-30
    options = {"padding": "valid"}
    wanted = results(functional.amplified_ssim_loss, x, y, None, **options)
    found = results(functional.amplified_ssim_loss, x, y, weight, **options)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-9)


def test_zero_weights_empty_batches_and_nan():
    x, y = images()
    for function in FUNCTIONS:
        assert results(function, x, y, torch.zeros(3, 1, 16, 20))[0] == 0.0
        assert results(function, x[:0], y[:0], 1e37 * torch.ones(0, 1, 1, 1))[0] == 0.0
        assert results(function, x, y, torch.full((3,), torch.nan))[0].isnan()


@pytest.mark.parametrize("strange", [torch.nan, torch.inf])
def test_a_nonfinite_weight_affects_only_its_image(strange):
    x, y = images()
    weight = torch.full((3, 1, 16, 20), 1e37)
    weight[1, 0, 8, 8] = strange
    found = results(functional.amplified_ssim_loss, x, y, weight, reduction="image")[0]
    wanted = results(functional.amplified_ssim_loss, x, y, None, reduction="image")[0]
    assert found[1].isnan()
    torch.testing.assert_close(found[::2], wanted[::2])


def test_negative_weights_are_scaled_by_their_magnitude():
    x, y = images()
    weight = 0.5 + torch.rand(3, 1, 16, 20)
    for scale in (1.0, 1e30):
        found = functional.amplified_ssim_loss(x, y, -scale * weight, reduction="sum")
        wanted = functional.amplified_ssim_loss(x, y, scale * weight, reduction="sum")
        torch.testing.assert_close(found, -wanted)


@pytest.mark.parametrize(
    ("level", "reduction"),
    [("element", "mean"), ("element", "sum"), ("image", "mean"), ("image", "image")],
)
def test_compiled_and_eager_agree(level, reduction):
    x, y = images()
    options = {"amplify_over": level, "reduction": reduction}
    compiled = torch.compile(functional.amplified_ssim_loss, fullgraph=True, backend="aot_eager")
    for scale in (1.0, 1e37, 1e-40):
        weight = scale * torch.rand(3, 1, 16, 20)
        expected = functional.amplified_ssim_loss(x, y, weight, **options)
        torch.testing.assert_close(compiled(x, y, weight, **options), expected)


@pytest.mark.parametrize("scale", [1.0, 1e37])
def test_an_expanded_weight_is_not_materialized(scale):
    def sums_of(mask):
        return [mask.flatten(1).sum(1)]

    def shape_of(weight):
        mask, _, _ = weights.scaled(weight, torch.float32, "batch", sums_of, lambda mask: mask)
        sizes = zip(mask.shape, mask.stride(), strict=True)
        return torch.tensor([size for size, step in sizes if step > 0])

    weight = torch.full((3, 1, 1, 20), scale).expand(3, 2, 16, 20)
    compiled = torch.compile(shape_of, fullgraph=True, backend="eager")
    for function in (shape_of, compiled):
        assert function(weight).prod() == 60
