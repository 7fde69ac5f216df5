"""`lamp_kernels.compat.kornia` beside the package itself."""

import inspect
import itertools

import pytest
import torch
from packages import optional
from pictures import PICTURES, pair

from lamp_kernels.compat import kornia as ours

kornia = optional("kornia")

pytestmark = pytest.mark.usefixtures("each_backend")


def images(*shape):
    x = torch.rand(shape)
    return x, (x + 0.2 * torch.randn(shape)).clamp(0, 1)


@pytest.mark.parametrize("name", ["ssim_loss", "SSIMLoss"])
def test_signature(name):
    def parameters(module):
        found = inspect.signature(getattr(module, name)).parameters.values()
        return [(parameter.name, parameter.kind, parameter.default) for parameter in found]

    assert parameters(ours) == parameters(kornia.losses)
    assert name in ours.__all__


@pytest.mark.parametrize("window_size", [5, 11])
@pytest.mark.parametrize("padding", ["same", "valid", "VALID"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_function_and_module(window_size, padding, reduction):
    x, y = images(2, 3, 30, 37)
    options = {"reduction": reduction, "padding": padding}
    # kornia 0.8, which Python 3.10 has, takes any word that it does not know for "same".
    known = padding.lower() if kornia.__version__.startswith("0.8.") else padding
    expected = kornia.losses.ssim_loss(x, y, window_size, reduction=reduction, padding=known)
    for found in (
        ours.ssim_loss(x, y, window_size, **options),
        ours.SSIMLoss(window_size, **options)(x, y),
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("apart", [1e-1, 1e-2, 1e-3])
@pytest.mark.parametrize("picture", PICTURES)
def test_as_near_to_the_package_as_its_own_rounding_lets_it_be(picture, apart):
    x, y = pair(picture, apart)
    expected = kornia.losses.ssim_loss(x.double(), y.double(), 11).item()
    theirs = kornia.losses.ssim_loss(x, y, 11).item()
    found = ours.ssim_loss(x, y, 11).item()
    assert abs(found - theirs) <= abs(theirs - expected) + 1e-6
    assert found == pytest.approx(expected, abs=2e-7)


def test_sum():
    x, y = images(1, 1, 20, 20)
    found, expected = (
        f(x, y, 11, reduction="sum") for f in (ours.ssim_loss, kornia.losses.ssim_loss)
    )
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_max_val_by_position():
    x, y = images(1, 2, 20, 20)
    found = ours.ssim_loss(255 * x, 255 * y, 7, 255.0)
    expected = kornia.losses.ssim_loss(255 * x, 255 * y, 7, 255.0)
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    assert ours.SSIMLoss(7, 255.0)(255 * x, 255 * y) == found


def test_gradients():
    x, y = images(1, 2, 24, 24)
    gradients = []
    for function in (ours.ssim_loss, kornia.losses.ssim_loss):
        pair = [image.clone().requires_grad_() for image in (x, y)]
        gradients.append(torch.autograd.grad(function(*pair, 11), pair))
    for found, expected in zip(*gradients, strict=True):
        assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_what_eps_would_add_is_what_the_module_says():
    black = torch.zeros(1, 1, 20, 20, dtype=torch.float64)
    assert ours.ssim_loss(black, black, 11).item() == 0.0
    theirs = kornia.losses.ssim_loss(black, black, 11)
    assert theirs.item() == pytest.approx(1e-12 / (2 * 1e-4 * 9e-4), rel=1e-3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"eps": 1e-6}, NotImplementedError, "eps=1e-06"),
        ({"max_val": 0.1}, NotImplementedError, "eps=1e-12 with max_val=0.1"),
        ({"eps": -1.0}, ValueError, "eps.*-1.0"),
        ({"max_val": 0.0}, ValueError, "max_val.*0.0"),
        ({"window_size": 4}, ValueError, "window_size.*4"),
        ({"reduction": "max"}, ValueError, "reduction.*'max'"),
        ({"padding": "reflect"}, ValueError, "padding.*'reflect'"),
        ({"padding": None}, TypeError, "padding.*None"),
    ],
    ids=str,
)
def test_bad_option(options, error, message):
    x = torch.rand(1, 1, 20, 20)
    options = {"window_size": 11} | options
    with pytest.raises(error, match=message):
        ours.ssim_loss(x, x, **options)
    with pytest.raises(error, match=message):
        ours.SSIMLoss(**options)


def test_no_eps_is_legal_whatever_the_range():
    x, y = images(1, 1, 20, 20)
    for max_val, size in itertools.product([0.1, 1.0], [5, 11]):
        found = ours.ssim_loss(x, y, size, max_val, 0.0)
        expected = kornia.losses.ssim_loss(x, y, size, max_val, 0.0)
        assert found.item() == pytest.approx(expected.item(), abs=1e-6)


def test_bad_images():
    x = torch.rand(1, 1, 20, 20)
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        ours.ssim_loss(x[0], x[0], 11)
    with pytest.raises(TypeError, match=r"torch\.uint8"):
        ours.ssim_loss(x.byte(), x.byte(), 11)
