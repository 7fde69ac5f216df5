"""`lamp_kernels.compat.fused_ssim` against the formula, because the package itself needs a GPU.

According to its source: fused_ssim(img1, img2, padding="same", train=True); padding "same" (zeros
outside) or "valid" (the same map, cropped by 5); window 11, sigma 1.5, C1 = 0.01^2, C2 = 0.03^2;
returns the mean of the map, with a gradient for `img1` only.
"""

import inspect
from typing import Any

import pytest
import torch
from packages import optional
from textbook import ssim_map

from lamp_kernels import backends
from lamp_kernels.compat.fused_ssim import FusedSSIMMap, fused_ssim, fused_ssim3d

pytorch_msssim = optional("pytorch_msssim")

pytestmark = pytest.mark.usefixtures("each_backend")


def images(*shape):
    x = torch.rand(shape)
    return x, (x + 0.2 * torch.randn(shape)).clamp(0, 1)


@pytest.mark.parametrize("function", [fused_ssim, fused_ssim3d])
def test_signature(function):
    parameters = inspect.signature(function).parameters.values()
    assert [(parameter.name, parameter.default) for parameter in parameters] == [
        ("img1", inspect.Parameter.empty),
        ("img2", inspect.Parameter.empty),
        ("padding", "same"),
        ("train", True),
    ]
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert all(parameter.kind is positional for parameter in parameters)


@pytest.mark.parametrize(("padding", "border"), [("same", "zeros"), ("valid", "valid")])
@pytest.mark.parametrize("shape", [(2, 3, 40, 33), (1, 1, 11, 12)])
def test_value(padding, border, shape):
    x, y = images(*shape)
    found = fused_ssim(x, y, padding)
    pair = [image.double().numpy(force=True) for image in (x, y)]
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(ssim_map(*pair, padding=border).mean(), abs=1e-6)


def test_default_is_zero_padding_even_for_small_images():
    x, y = images(1, 2, 4, 7)
    pair = [image.double().numpy(force=True) for image in (x, y)]
    expected = ssim_map(*pair, padding="zeros").mean()
    assert fused_ssim(x, y).item() == pytest.approx(expected, abs=1e-6)


def test_gradient_under_zero_padding():
    x, y = (image.double() for image in images(1, 2, 30, 26))
    x.requires_grad_()
    taps = torch.arange(-5, 6, dtype=torch.float64).square().div(-4.5).exp()
    win = (taps / taps.sum()).view(1, 1, 1, -1).repeat(2, 1, 1, 1)
    # pytorch-msssim on images with a frame of five black pixels computes the zero-padded map.
    pair = [torch.nn.functional.pad(image, (5,) * 4) for image in (x, y)]
    expected = pytorch_msssim.ssim(*pair, data_range=1.0, win=win)
    found = fused_ssim(x, y)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(found, x)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, x)[0], rtol=1e-9, atol=1e-15)


def test_only_the_first_image_gets_a_gradient_and_only_in_training():
    x, y = (image.requires_grad_() for image in images(1, 1, 16, 16))
    fused_ssim(x, y).backward()
    assert x.grad.norm() > 0
    assert y.grad is None
    assert not fused_ssim(x, y, train=False).requires_grad
    with torch.no_grad():
        assert not fused_ssim(x, y).requires_grad


def test_noncontiguous_second_image():
    x, y = images(2, 3, 16, 20)
    strided = y.transpose(-1, -2).contiguous().transpose(-1, -2)
    assert not strided.is_contiguous()
    torch.testing.assert_close(fused_ssim(x, strided), fused_ssim(x, y), rtol=0, atol=1e-7)


def test_errors():
    x, _ = images(1, 1, 16, 16)
    with pytest.raises(ValueError, match=r"padding must be one of same, valid; got 'reflect'"):
        fused_ssim(x, x, padding="reflect")
    with pytest.raises(ValueError, match="img1 must have sides of at least 11"):
        fused_ssim(x[..., :10], x[..., :10], "valid")
    with pytest.raises(ValueError, match=r"img1 must be \(N, C, H, W\).*img1\[None\]"):
        fused_ssim(x.expand(1, 20, 16, 16)[0], x.expand(1, 20, 16, 16)[0])
    with pytest.raises(TypeError, match="ndarray"):
        fused_ssim(x, x.numpy(force=True))


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_map(padding):
    x, y = (image.requires_grad_() for image in images(2, 3, 20, 24))
    found = FusedSSIMMap.apply(0.01**2, 0.03**2, x, y, padding)
    border = {"same": "zeros"}.get(padding, padding)
    expected = ssim_map(*(image.double().numpy(force=True) for image in (x, y)), padding=border)
    torch.testing.assert_close(found.double(), torch.from_numpy(expected), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.mean(), fused_ssim(x, y, padding))
    found.mean().backward()
    assert x.grad.norm() > 0
    assert y.grad is None
    assert not FusedSSIMMap.apply(0.01**2, 0.03**2, x, y, padding, False).requires_grad


def test_map_accepts_other_constants_and_rejects_unsupported_arguments():
    x, y = images(1, 1, 16, 16)
    constant: Any = torch.tensor(0.3**2)  # not annotated, as in the package
    other = FusedSSIMMap.apply(0.02**2, constant, x, y)
    assert other.mean() > FusedSSIMMap.apply(0.01**2, 0.03**2, x, y).mean()
    with pytest.raises(ValueError, match=r"img1 must be \(N, C, D, H, W\)"):
        FusedSSIMMap.apply(0.01**2, 0.03**2, x, y, "same", True, 3)
    with pytest.raises(ValueError, match=r"C2.*-1"):
        FusedSSIMMap.apply(0.01**2, -1, x, y)


@pytest.mark.beside_reference
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_volumes(padding, monkeypatch):
    monkeypatch.setattr(backends, "_from_environment", None)  # GPUs have no kernels for them
    x, y = (image.double().requires_grad_() for image in images(1, 2, 12, 11, 13))
    taps = torch.arange(-5, 6, dtype=torch.float64).square().div(-4.5).exp()
    win = (taps / taps.sum()).view(1, 1, 1, 1, -1).repeat(2, 1, 1, 1, 1)
    pair = [x, y]
    if padding == "same":  # pytorch-msssim within a frame of black voxels
        pair = [torch.nn.functional.pad(image, (5,) * 6) for image in pair]
    expected = pytorch_msssim.ssim(*pair, data_range=1.0, win=win)
    found = fused_ssim3d(x, y, padding)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(found, x)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, x)[0], rtol=1e-9, atol=1e-15)
    of_map = FusedSSIMMap.apply(0.01**2, 0.03**2, x, y, padding, True, 3)
    torch.testing.assert_close(of_map.mean(), found)
    assert not fused_ssim3d(x, y, padding, train=False).requires_grad
