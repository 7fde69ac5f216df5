"""`lamp_kernels.compat.skimage` against the package itself."""

import inspect

import pytest
import torch
from packages import optional

from lamp_kernels import AmplifiedSSIMLoss
from lamp_kernels.compat.skimage import preset, structural_similarity

metrics = optional("skimage.metrics")

pytestmark = pytest.mark.usefixtures("each_backend")


def images(*shape, scale=1.0):
    x = torch.rand(shape, dtype=torch.float64)
    return scale * x, scale * (x + 0.2 * torch.randn(shape, dtype=torch.float64)).clamp(0, 1)


def package(x, y, **options):
    return metrics.structural_similarity(*(z.numpy(force=True) for z in (x, y)), **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"win_size": 11},
        {"use_sample_covariance": False},
        {"K1": 0.03, "K2": 0.2},
        {"gaussian_weights": True},
        {"gaussian_weights": True, "sigma": 1.0, "use_sample_covariance": False},
    ],
    ids=str,
)
def test_value(options):
    x, y = images(24, 29)
    found = structural_similarity(x, y, data_range=1.0, **options)
    assert found.shape == ()
    assert found.item() == pytest.approx(package(x, y, data_range=1.0, **options), abs=1e-12)


@pytest.mark.parametrize(("shape", "axis"), [((24, 29, 3), -1), ((3, 24, 29), 0), ((24, 2, 29), 1)])
def test_channels_and_range(shape, axis):
    x, y = images(*shape, scale=255.0)
    options = {"data_range": 255, "channel_axis": axis}
    expected = package(x, y, **options)
    assert structural_similarity(x, y, **options).item() == pytest.approx(expected, abs=1e-12)
    options["data_range"] = torch.tensor(255.0)
    found = structural_similarity(x.float(), y.float(), **options)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_signature():
    ours = inspect.signature(structural_similarity).parameters
    for name, theirs in inspect.signature(metrics.structural_similarity).parameters.items():
        if name != "kwargs":
            assert (ours[name].kind, ours[name].default) == (theirs.kind, theirs.default)


def test_preset_makes_a_loss_match_the_package():
    x, y = images(2, 3, 24, 29)
    loss = AmplifiedSSIMLoss(amplification="none", dissimilarity="full", **preset())(x, y)
    each = [package(a, b, data_range=1.0, channel_axis=0) for a, b in zip(x, y, strict=True)]
    assert 1.0 - loss.item() == pytest.approx(sum(each) / 2, abs=1e-12)


@pytest.mark.parametrize("options", [{}, {"win_size": 3}, {"gaussian_weights": True, "sigma": 0.8}])
def test_volumes(options):
    x, y = images(12, 14, 16)
    expected = package(x, y, data_range=1.0, **options)
    found = structural_similarity(x, y, data_range=1.0, **options)
    assert found.item() == pytest.approx(expected, abs=1e-12)
    of_channels = structural_similarity(
        torch.stack([x, x], -1), torch.stack([y, x], -1), data_range=1.0, channel_axis=-1, **options
    )
    assert of_channels.item() == pytest.approx((expected + 1) / 2, abs=1e-12)
    loss = AmplifiedSSIMLoss(
        amplification="none", dissimilarity="full", **preset(**options, spatial_dims=3)
    )
    assert 1.0 - loss(x[None, None], y[None, None]).item() == pytest.approx(expected, abs=1e-12)


def test_gradient():
    x, y = images(16, 20)
    y.requires_grad_()
    (found,) = torch.autograd.grad(structural_similarity(x, y, data_range=1.0), y)
    step = torch.zeros_like(y)
    step[8, 9] = 1e-5
    with torch.no_grad():
        change = package(x, y + step, data_range=1.0) - package(x, y - step, data_range=1.0)
    assert found[8, 9].item() == pytest.approx(change / 2e-5, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"gradient": True}, NotImplementedError, "gradient"),
        ({"full": True}, NotImplementedError, "full"),
        ({"data_range": None}, ValueError, "data_range"),
        ({"data_range": torch.ones(2)}, TypeError, r"data_range.*shape \(2,\)"),
        ({"win_size": 8}, ValueError, "win_size.*8"),
        ({"win_size": 7, "gaussian_weights": True}, ValueError, "win_size.*11.*7"),
        ({"win_size": 17}, ValueError, "im1 must have sides of at least 17 pixels"),
        ({"channel_axis": 0}, ValueError, "im1 must have three or four dimensions"),
        ({"K1": 0.0}, ValueError, "K1"),
        ({"K2": -1.0}, ValueError, "K2"),
        ({"sigma": 0.0, "gaussian_weights": True}, ValueError, "sigma"),
    ],
    ids=str,
)
def test_errors(options, error, message):
    x, y = images(16, 20)
    with pytest.raises(error, match=message):
        structural_similarity(x, y, **{"data_range": 1.0, **options})


def test_bad_images():
    x, y = images(16, 20)
    with pytest.raises(ValueError, match=r"im1 must be \(H, W\) or \(D, H, W\).*channel_axis"):
        structural_similarity(x[..., None], y[..., None], data_range=1.0)
    with pytest.raises(ValueError, match="im1 and im2 must have the same shape"):
        structural_similarity(x, y[1:], data_range=1.0)
    with pytest.raises(TypeError, match=r"im2.*ndarray; use torch\.as_tensor\(im2\)"):
        structural_similarity(x, y.numpy(force=True), data_range=1.0)


def test_uint8_images_and_an_invalid_channel_axis():
    x = torch.rand(24, 29, 3)
    with pytest.raises(TypeError, match=r"im1 .*uint8; use image\.float"):
        structural_similarity((255 * x).byte(), (255 * x).byte(), channel_axis=-1)
    with pytest.raises(TypeError, match="channel_axis must be an integer or None, got 'c'"):
        structural_similarity(x, x, data_range=1.0, channel_axis="c")  # type: ignore[arg-type] # the mistake under test
