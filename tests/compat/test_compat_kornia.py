"""`lamp_kernels.compat.kornia` against the package itself."""

import inspect
import itertools
from typing import Any

import pytest
import torch
from packages import optional
from pictures import PICTURES, pair

from lamp_kernels import backends
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
    # kornia 0.8, the version for Python 3.10, treats any unknown padding as "same".
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
def test_matches_the_package_within_its_rounding_error(picture, apart):
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
        gradients.append(torch.autograd.grad(function(pair[0], pair[1], 11), pair))
    for found, expected in zip(*gradients, strict=True):
        assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_omitting_eps_changes_black_images_as_documented():
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


def test_eps_zero_is_valid_for_any_range():
    x, y = images(1, 1, 20, 20)
    for max_val, size in itertools.product([0.1, 1.0], [5, 11]):
        found = ours.ssim_loss(x, y, size, max_val, 0.0)
        expected = kornia.losses.ssim_loss(x, y, size, max_val, 0.0)
        assert found.item() == pytest.approx(expected.item(), abs=1e-6)


def test_bad_images():
    x = torch.rand(1, 1, 20, 20)
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        ours.ssim_loss(x[0], x[0], 11)
    with pytest.raises(ValueError, match=r"img1 must be .*img1\.permute\(2, 0, 1\)\[None\]"):
        ours.ssim_loss(x[0].permute(1, 2, 0), x[0].permute(1, 2, 0), 11)
    with pytest.raises(TypeError, match=r"img2.*torch\.complex64"):
        ours.ssim_loss(x, x.to(torch.complex64), 11)
    with pytest.raises(TypeError, match=r"img1 must be a torch\.Tensor, got ndarray"):
        ours.SSIMLoss(11)(x.numpy(force=True), x)


HALF = [torch.float16, torch.bfloat16]
PAIRS = [
    *((dtype, dtype) for dtype in [*HALF, torch.float32, torch.float64, torch.uint8]),
    (torch.float16, torch.bfloat16),
    (torch.bfloat16, torch.float32),
    (torch.uint8, torch.float64),
]


@pytest.mark.skipif(
    getattr(kornia, "__version__", "").startswith("0.8."), reason="kornia 0.8 rejects other dtypes"
)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("dtypes", PAIRS, ids=str)
def test_dtype_matches_the_package(dtypes, reduction):
    pair = [(7 * x).to(dtype) for x, dtype in zip(images(2, 3, 20, 24), dtypes, strict=True)]
    found = ours.ssim_loss(pair[0], pair[1], 7, 7.0, reduction=reduction)
    expected = kornia.losses.ssim_loss(*pair, 7, 7.0, reduction=reduction)
    assert found.dtype == expected.dtype
    atol = {torch.float16: 1e-3, torch.bfloat16: 8e-3}.get(found.dtype, 1e-6)
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", HALF)
def test_half_types_are_rounded_only_once(dtype):
    x, y = (image.to(dtype) for image in images(2, 3, 20, 24))
    wide = ours.ssim_loss(x.float(), y.float(), 11)
    assert ours.ssim_loss(x, y, 11) == wide.to(dtype)


def test_max_val_as_a_tensor():
    x, y = images(1, 2, 20, 20)
    expected = ours.ssim_loss(x, y, 7, 0.9)
    array: Any = torch.tensor(0.9).numpy(force=True)
    for max_val in (torch.tensor(0.9), torch.tensor([0.9]), array):
        torch.testing.assert_close(ours.ssim_loss(x, y, 7, max_val), expected)
        torch.testing.assert_close(ours.SSIMLoss(7, max_val)(x, y), expected)
    with pytest.raises(TypeError, match=r"max_val .*shape \(2,\)"):
        ours.ssim_loss(x, y, 7, torch.ones(2))


# ---- Volumes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("ssim3d_loss", "losses"),
        ("SSIM3DLoss", "losses"),
        ("ssim3d", "metrics"),
        ("SSIM3D", "metrics"),
    ],
)
def test_signatures_for_volumes(name, module):
    theirs = inspect.signature(getattr(getattr(kornia, module), name)).parameters.values()
    found = inspect.signature(getattr(ours, name)).parameters.values()
    assert [(p.name, p.kind, p.default) for p in found] == [
        (p.name, p.kind, p.default) for p in theirs
    ]
    assert name in ours.__all__


@pytest.mark.beside_reference
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8], ids=str)
def test_volumes(padding, dtype, monkeypatch):
    monkeypatch.setattr(backends, "_from_environment", None)  # GPUs have no kernels for them
    x, y = ((7 * image).to(dtype) for image in images(2, 2, 9, 11, 10))
    for reduction in ("mean", "sum", "none"):
        found = ours.ssim3d_loss(x, y, 5, 7.0, reduction=reduction, padding=padding)
        expected = kornia.losses.ssim3d_loss(x, y, 5, 7.0, reduction=reduction, padding=padding)
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=5e-6)
        module = ours.SSIM3DLoss(5, 7.0, reduction=reduction, padding=padding)
        torch.testing.assert_close(module(x, y), found, rtol=0, atol=0)
    of_map = ours.ssim3d(x, y, 5, 7.0, padding=padding)
    expected = kornia.metrics.ssim3d(x, y, 5, 7.0, padding=padding)
    torch.testing.assert_close(of_map, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.SSIM3D(5, 7.0, padding=padding)(x, y), of_map, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"img1 must be \(N, C, D, H, W\)"):
        ours.ssim3d(x[0], y[0], 5)
    with pytest.raises(ValueError, match=r"window_size.*4"):
        ours.SSIM3D(4)


# ---- MS_SSIMLoss -------------------------------------------------------------------------------

NEWER = pytest.mark.skipif(
    getattr(kornia, "__version__", "").startswith("0.8."),
    reason="kornia 0.8 pairs channels with the scales of other channels",
)


@NEWER
@pytest.mark.beside_reference
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reduction": "none"},
        {"reduction": "sum", "alpha": 0.84, "compensation": 1.0},
        {"sigmas": (2.0, 1.0), "K": (0.03, 0.1), "data_range": 3.0},
        {"sigmas": [0.4], "alpha": 1.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(2, 3, 40, 33), (1, 1, 5, 5), (2, 2, 20, 24)])
def test_ms_ssim_loss(shape, options):
    x, y = (x.double() for x in images(*shape))
    theirs = kornia.losses.MS_SSIMLoss(**options).double()
    gradients = []
    for module in (ours.MS_SSIMLoss(**options), theirs):
        pair = [image.clone().requires_grad_() for image in (x, y)]
        loss = module(*pair)
        gradients.append([loss.detach(), *torch.autograd.grad(loss.sum(), pair)])
    for found, expected in zip(*gradients, strict=True):
        # kornia creates its masks in float32 and then converts them
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@NEWER
@pytest.mark.beside_reference
@pytest.mark.parametrize("picture", PICTURES)
def test_ms_ssim_loss_matches_the_package_within_its_rounding_error(picture):
    x, y = pair(picture, 1e-2)
    options: Any = {"alpha": 1.0, "compensation": 1.0}
    expected = ours.MS_SSIMLoss(**options)(x.double(), y.double()).item()
    theirs = kornia.losses.MS_SSIMLoss(**options)(x, y).item()
    found = ours.MS_SSIMLoss(**options)(x, y).item()
    assert found == pytest.approx(expected, abs=2e-7)
    assert abs(found - theirs) <= abs(theirs - expected) + 1e-6


@NEWER
@pytest.mark.beside_reference
@pytest.mark.filterwarnings("ignore:Using a target size")  # raised by kornia itself
@pytest.mark.parametrize("dtypes", PAIRS, ids=str)
def test_ms_ssim_loss_dtype_and_batch_of_one(dtypes):
    pair = [(7 * x).to(dtype) for x, dtype in zip(images(3, 2, 20, 24), dtypes, strict=True)]
    found = ours.MS_SSIMLoss(data_range=7.0)(pair[0], pair[1][:1])
    expected = kornia.losses.MS_SSIMLoss(data_range=7.0)(pair[0], pair[1][:1])
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-4)


@pytest.mark.beside_reference
def test_ms_ssim_loss_signature_state_and_errors():
    found = inspect.signature(ours.MS_SSIMLoss).parameters.values()
    theirs = inspect.signature(kornia.losses.MS_SSIMLoss).parameters.values()
    assert [(p.name, p.kind, p.default) for p in found] == [
        (p.name, p.kind, p.default) for p in theirs
    ]
    module = torch.nn.Sequential(ours.MS_SSIMLoss())
    assert not module.state_dict()
    module.load_state_dict({"0._g_masks": torch.zeros(15, 1, 33, 33)})  # a checkpoint of kornia 0.8
    for options, message in (
        ({"sigmas": ()}, "sigmas"),
        ({"sigmas": (1.0, 0.0)}, r"sigmas\[1\]"),
        ({"K": (0.01,)}, "K must be two"),
        ({"alpha": "1"}, "alpha"),
        ({"compensation": float("inf")}, "compensation"),
        ({"reduction": "max"}, "reduction"),
        ({"data_range": 0.0}, "data_range"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            ours.MS_SSIMLoss(**options)
    image = torch.rand(2, 3, 20, 20)
    with pytest.raises(ValueError, match=r"img1 must be \(N, C, H, W\)"):
        ours.MS_SSIMLoss()(image[0], image[0])
    with pytest.raises(ValueError, match="img1 and img2 must have the same shape"):
        ours.MS_SSIMLoss()(image, image[:, :1])


def test_ms_ssim_loss_accepts_alpha_as_a_tensor():
    assert ours.MS_SSIMLoss(alpha=torch.tensor(-0.5)).alpha == -0.5
