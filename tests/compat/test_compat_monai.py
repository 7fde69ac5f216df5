"""`lamp_kernels.compat.monai` against the package itself."""

import inspect

import pytest
import torch
from packages import optional

from lamp_kernels.compat.monai import SSIMLoss

theirs = optional("monai.losses")


def images(*shape, dtype=torch.float32):
    x = torch.rand(shape, dtype=dtype)
    return x, (x + 0.2 * torch.randn(shape, dtype=dtype)).clamp(0, 1)


def test_signature():
    ours, package = (inspect.signature(loss).parameters for loss in (SSIMLoss, theirs.SSIMLoss))
    assert [*ours] == [*package]
    for name, parameter in package.items():
        assert (ours[name].kind, ours[name].default) == (parameter.kind, parameter.default)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel_type": "uniform", "win_size": 7, "reduction": "none"},
        {"win_size": (5, 5), "kernel_sigma": (0.9, 0.9), "reduction": "sum"},
        {"k1": 0.02, "k2": 0.4, "data_range": 2.0, "reduction": "none"},
    ],
    ids=str,
)
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_value_and_gradient(spatial_dims, options):
    options = {
        name: value[:1] * spatial_dims if isinstance(value, tuple) else value
        for name, value in options.items()
    }
    x, y = images(2, 2, *[13, 12, 14][:spatial_dims])
    results = []
    for loss in (SSIMLoss(spatial_dims, **options), theirs.SSIMLoss(spatial_dims, **options)):
        pair = [image.clone().requires_grad_() for image in (x, y)]
        value = loss(*pair)
        results.append([value.detach(), *torch.autograd.grad(value.sum(), pair)])
    for found, expected in zip(*results, strict=True):
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_a_data_range_per_image():
    x, y = images(2, 1, 16, 20)
    ranges = torch.tensor([1.0, 3.0])
    expected = theirs.SSIMLoss(2, data_range=ranges.view(2, 1, 1, 1), reduction="none")(x, y)
    for given in (ranges, ranges.view(2, 1, 1, 1)):
        found = SSIMLoss(2, data_range=given, reduction="none")(x, y)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    loss = SSIMLoss(2, reduction="none")
    loss.data_range = ranges  # as fastMRI's trainings do, batch by batch
    torch.testing.assert_close(loss(x, y), expected, rtol=0, atol=1e-5)


def test_float64_and_a_window_that_is_as_large_as_the_image():
    x, y = images(3, 1, 11, 11, dtype=torch.float64)
    found = SSIMLoss(2)(x, y)
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(theirs.SSIMLoss(2)(x, y).item(), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"spatial_dims": 1}, ValueError, "spatial_dims must be 2 or 3, got 1"),
        ({"win_size": 10}, ValueError, "win_size.*10"),
        ({"win_size": (7, 5)}, NotImplementedError, r"win_size must be the same.*\(7, 5\)"),
        ({"win_size": (7,)}, ValueError, "win_size must have 2 numbers"),
        ({"kernel_sigma": 0.0}, ValueError, "kernel_sigma.*0.0"),
        ({"kernel_type": "box"}, ValueError, "kernel_type.*'box'"),
        ({"reduction": "image"}, ValueError, "reduction.*'image'"),
        ({"data_range": 0}, ValueError, "data_range.*0"),
        ({"k2": -1.0}, ValueError, "k2.*-1"),
    ],
    ids=str,
)
def test_bad_option(options, error, message):
    with pytest.raises(error, match=message):
        SSIMLoss(**{"spatial_dims": 2} | options)


def test_bad_images():
    x = torch.rand(1, 1, 12, 12)
    with pytest.raises(ValueError, match=r"input must be \(N, C, D, H, W\)"):
        SSIMLoss(3)(x, x)
    with pytest.raises(ValueError, match="same shape"):
        SSIMLoss(2)(x, x[..., 1:])
    with pytest.raises(ValueError, match="at least 11 pixels"):
        SSIMLoss(2)(x[..., :9], x[..., :9])
