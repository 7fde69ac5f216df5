"""`lamp_kernels.compat.pytorch_msssim` against the package itself."""

import inspect
import warnings

import pytest
import torch
from packages import optional
from pictures import PICTURES, pair
from torch.nn.functional import avg_pool2d

from lamp_kernels import backends
from lamp_kernels.compat import pytorch_msssim as ours

pytorch_msssim = optional("pytorch_msssim")

pytestmark = pytest.mark.usefixtures("each_backend")

# Absolute limits in float32, on noise. The package's own MS-SSIM is off by up to 3e-6 (its taps are
# rounded, and the coarse scales have little contrast), so we also compare with the package in
# float64. On flat images it is off by much more.
PACKAGE_LIMIT = {"ssim": 1e-6, "ms_ssim": 3e-6}
EXACT_LIMIT = 2e-7


def exact(name, x, y, *, win_size=11, win_sigma=1.5, **options):
    """The package in float64, with taps not rounded to float32."""
    taps = torch.arange(win_size, dtype=torch.float64) - win_size // 2
    taps = torch.exp(-(taps**2) / (2 * win_sigma**2))
    win = (taps / taps.sum()).view(1, 1, 1, -1).repeat(x.shape[1], 1, 1, 1)
    return getattr(pytorch_msssim, name)(x.double(), y.double(), win=win, **options)


def images(*shape, scale=255.0, dtype=torch.float32):
    x = torch.rand(shape)
    return x.to(dtype) * scale, (x + 0.2 * torch.randn(shape)).clamp(0, 1).to(dtype) * scale


@pytest.mark.parametrize("name", ["ssim", "ms_ssim", "SSIM", "MS_SSIM"])
def test_signature(name):
    def parameters(module):
        found = inspect.signature(getattr(module, name)).parameters.values()
        return [(parameter.name, parameter.kind, parameter.default) for parameter in found]

    assert parameters(ours) == parameters(pytorch_msssim)
    assert name in ours.__all__


CALLS = [
    {},
    {"size_average": False},
    {"win_size": 7, "win_sigma": 1.1},
    {"K": [0.02, 0.4]},
]


@pytest.mark.parametrize("options", CALLS, ids=str)
@pytest.mark.parametrize(("name", "sides"), [("ssim", (48, 61)), ("ms_ssim", (163, 170))])
def test_function(name, sides, options):
    x, y = images(2, 3, *sides)
    found = getattr(ours, name)(x, y, **options)
    expected = getattr(pytorch_msssim, name)(x, y, **options)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=PACKAGE_LIMIT[name])
    torch.testing.assert_close(
        found.double(), exact(name, x, y, **options), rtol=0, atol=EXACT_LIMIT
    )


@pytest.mark.parametrize("name", ["ssim", "ms_ssim"])
def test_gradient(name):
    x, y = (image.requires_grad_() for image in images(1, 2, 163, 163, scale=1.0))
    found = torch.autograd.grad(getattr(ours, name)(x, y, 1.0), (x, y))
    theirs = torch.autograd.grad(getattr(pytorch_msssim, name)(x, y, 1.0), (x, y))
    right = torch.autograd.grad(exact(name, x, y, data_range=1.0), (x, y))
    for each, other, expected in zip(found, theirs, right, strict=True):
        assert (each - expected).norm() <= 5e-6 * expected.norm()  # downsampling rounds
        assert (each - other).norm() <= 1e-4 * expected.norm()


@pytest.mark.parametrize("name", ["ssim", "ms_ssim"])
def test_closer_to_float64_than_the_package(name):
    # Smooth images of low contrast, where E[x^2] - E[x]^2 loses digits.
    x = avg_pool2d(torch.rand(1, 1, 180, 180), 5, 1, 2)
    y = x + 0.05 * torch.randn_like(x)
    expected = exact(name, x, y, data_range=1.0).item()
    theirs = getattr(pytorch_msssim, name)(x, y, 1.0).item()
    found = getattr(ours, name)(x, y, 1.0).item()
    assert found == pytest.approx(expected, abs=EXACT_LIMIT)
    assert abs(found - expected) < abs(theirs - expected)


@pytest.mark.parametrize("name", ["ssim", "ms_ssim"])
@pytest.mark.parametrize("apart", [1e-1, 1e-2, 1e-3])
@pytest.mark.parametrize("picture", PICTURES)
def test_matches_the_package_within_its_rounding_error(picture, apart, name):
    x, y = pair(picture, apart)
    expected = exact(name, x, y, data_range=1.0).item()
    theirs = getattr(pytorch_msssim, name)(x, y, 1.0).item()
    found = getattr(ours, name)(x, y, 1.0).item()
    assert abs(found - theirs) <= abs(theirs - expected) + 1e-6
    assert found == pytest.approx(expected, abs=EXACT_LIMIT)


@pytest.mark.parametrize("size_average", [True, False])
def test_nonnegative_ssim(size_average):
    x = torch.rand(2, 2, 32, 32)
    y = x.clone()
    y[0, 0] = 1 - y[0, 0]
    options = {"data_range": 1.0, "size_average": size_average}
    for clamped in (True, False):
        found = ours.ssim(x, y, nonnegative_ssim=clamped, **options)
        expected = pytorch_msssim.ssim(x, y, nonnegative_ssim=clamped, **options)
        torch.testing.assert_close(found, expected, rtol=0, atol=PACKAGE_LIMIT["ssim"])
    assert not torch.allclose(ours.ssim(x, y, nonnegative_ssim=True, **options), found)


def test_ms_ssim_weights():
    x, y = images(2, 1, 161, 164)
    weights = [0.5, 0.2, 0.3]
    expected = pytorch_msssim.ms_ssim(x, y, weights=weights)
    assert ours.ms_ssim(x, y, weights=weights).item() == pytest.approx(
        expected.item(), abs=PACKAGE_LIMIT["ms_ssim"]
    )


def test_ms_ssim_with_a_negative_scale():
    x, y = images(1, 1, 161, 161)
    y = 255 - x
    x.requires_grad_()
    found, expected = ours.ms_ssim(x, y), pytorch_msssim.ms_ssim(x, y)
    assert found.item() == expected.item() == 0.0
    assert torch.autograd.grad(found, x)[0].isfinite().all()


@pytest.mark.parametrize("name", ["SSIM", "MS_SSIM"])
@pytest.mark.parametrize(
    "options",
    [
        {"channel": 1},
        {"channel": 1, "data_range": 100.0, "size_average": False, "K": (0.03, 0.1)},
        {"channel": 1, "win_size": 5, "win_sigma": 0.9},
    ],
    ids=str,
)
def test_module(name, options):
    x, y = images(2, 1, 162, 163)
    found = getattr(ours, name)(**options)(x, y)
    expected = getattr(pytorch_msssim, name)(**options)(x, y)
    torch.testing.assert_close(found, expected, rtol=0, atol=PACKAGE_LIMIT[name.lower()])


def test_options_that_only_one_module_has():
    x, y = images(1, 1, 161, 161)
    weights = [0.5, 0.5]
    expected = pytorch_msssim.MS_SSIM(channel=1, weights=weights)(x, y)
    found = ours.MS_SSIM(channel=1, weights=weights)(x, y)
    assert found.item() == pytest.approx(expected.item(), abs=PACKAGE_LIMIT["ms_ssim"])
    y = 255 - x
    assert ours.SSIM(channel=1, nonnegative_ssim=True)(x, y).item() == 0.0


@pytest.mark.parametrize("shape", [(2, 3, 5, 20, 24), (2, 3, 1, 20, 24), (1, 2, 20, 1, 24)])
def test_five_dimensions_without_a_window_along_depth(shape):
    x, y = images(*shape)
    for nonnegative_ssim in (False, True):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = ours.ssim(x, y, size_average=False, nonnegative_ssim=nonnegative_ssim)
        messages = [str(warning.message) for warning in caught]
        assert [f"{shape}" in text for text in messages] == ([True] if 1 not in shape[2:] else [])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = pytorch_msssim.ssim(
                x, y, size_average=False, nonnegative_ssim=nonnegative_ssim
            )
        torch.testing.assert_close(found, expected, rtol=0, atol=PACKAGE_LIMIT["ssim"])


@pytest.mark.filterwarnings("ignore:.*not smoothed")
def test_module_with_volumes():
    x, y = images(1, 2, 5, 16, 16)
    assert ours.SSIM(channel=2, spatial_dims=3)(x, y) == ours.ssim(x, y)
    with pytest.raises(ValueError, match="spatial_dims=2"):
        ours.SSIM(channel=2)(x, y)


@pytest.mark.beside_reference
@pytest.mark.parametrize(
    "options", [{}, {"size_average": False, "nonnegative_ssim": True}], ids=str
)
def test_volumes(options, monkeypatch):
    monkeypatch.setattr(backends, "_from_environment", None)  # GPUs have no kernels for them
    x, y = (image.requires_grad_() for image in images(2, 3, 12, 13, 11))
    found, expected = (f.ssim(x, y, **options) for f in (ours, pytorch_msssim))
    torch.testing.assert_close(found, expected, rtol=0, atol=PACKAGE_LIMIT["ssim"])
    module = ours.SSIM(channel=3, spatial_dims=3, **options)
    torch.testing.assert_close(module(x, y), found, rtol=0, atol=0)
    pairs = zip(*(torch.autograd.grad(v.sum(), (x, y)) for v in (found, expected)), strict=True)
    for gradient, other in pairs:
        assert (gradient - other).norm() <= 1e-4 * other.norm()


WIN = torch.ones(1, 1, 1, 11) / 11


@pytest.mark.parametrize("name", ["ssim", "ms_ssim"])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"win": WIN}, NotImplementedError, "win must be None"),
        ({"win_size": 10}, ValueError, "win_size.*10"),
        ({"win_size": 11.0}, TypeError, "win_size.*11.0"),
        ({"win_sigma": 0.0}, ValueError, "win_sigma.*0.0"),
        ({"K": (0.01,)}, ValueError, r"K.*\(0.01,\)"),
        ({"K": (0.0, 0.03)}, ValueError, r"K\[0\].*0.0"),
        ({"K": (0.01, -1.0)}, ValueError, r"K\[1\].*-1.0"),
        ({"data_range": 0}, ValueError, "data_range.*0"),
    ],
    ids=str,
)
def test_bad_option(name, options, error, message):
    x = torch.rand(1, 1, 161, 161)
    with pytest.raises(error, match=message):
        getattr(ours, name)(x, x, **options)
    if "win" not in options:
        with pytest.raises(error, match=message):
            getattr(ours, name.upper())(channel=1, **options)


def test_bad_weights():
    x = torch.rand(1, 1, 161, 161)
    with pytest.raises(ValueError, match=r"weights\[1\].*-0.5"):
        ours.ms_ssim(x, x, weights=[0.5, -0.5])
    assert ours.ms_ssim(x, x, weights=None).item() == 1.0


@pytest.mark.parametrize("name", ["ssim", "ms_ssim"])
def test_bad_images(name):
    function = getattr(ours, name)
    x = torch.rand(1, 1, 161, 161)
    with pytest.raises(TypeError, match="X must be a torch"):
        function(x.numpy(force=True), x)
    with pytest.raises(ValueError, match=r"same shape, got \(1, 1, 161, 161\)"):
        function(x, x[..., 1:])
    with pytest.raises(ValueError, match=r"X must be \(N, C, H, W\) or .*3 dimensions.*X\[None\]"):
        function(x[0].expand(20, 161, 161), x[0].expand(20, 161, 161))
    with pytest.raises(ValueError, match=r"X\.permute\(2, 0, 1\)\[None\]"):
        function(x[0].permute(1, 2, 0), x[0].permute(1, 2, 0))
    last = x.expand(1, 3, 161, 161).permute(0, 2, 3, 1)
    with pytest.raises(ValueError, match=r"X\.permute\(0, 3, 1, 2\)"):
        function(last, last)
    if name == "ms_ssim":
        with pytest.raises(NotImplementedError, match=r"X of shape \(1, 1, 20, 161, 161\)"):
            function(x.expand(1, 20, 161, 161)[None], x.expand(1, 20, 161, 161)[None])
    with pytest.raises(ValueError, match=r"\b10\b"):
        function(x[:, :, :10], x[:, :, :10])
    with pytest.raises(ValueError, match="X must fit channel=3"):
        getattr(ours, name.upper())()(x, x)


AS_NUMBERS = [torch.tensor, lambda x: torch.tensor(x).numpy(force=True), list]


@pytest.mark.parametrize("convert", AS_NUMBERS)
def test_options_as_tensors_arrays_or_lists(convert):
    x, y = images(1, 2, 161, 164)
    for name, options in {"ssim": {}, "ms_ssim": {"weights": [0.5, 0.5]}}.items():
        options = {"K": [0.02, 0.05]} | options
        expected = getattr(ours, name)(x, y, 200.0, **options)
        given = {key: convert(value) for key, value in options.items()}
        scale = 200.0 if convert is list else convert(200.0)
        torch.testing.assert_close(getattr(ours, name)(x, y, scale, **given), expected)
        module = getattr(ours, name.upper())(scale, channel=2, **given)
        torch.testing.assert_close(module(x, y), expected)


@pytest.mark.parametrize("name", ["ssim", "ms_ssim"])
def test_a_data_range_per_image_is_rejected(name):
    x, y = images(2, 1, 161, 161)
    with pytest.raises(TypeError, match=r"data_range .*shape \(2,\)"):
        getattr(ours, name)(x, y, torch.ones(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size_average", [True, False])
@pytest.mark.parametrize("name", ["ssim", "ms_ssim"])
def test_dtype_matches_the_package(name, size_average, dtype):
    x, y = images(2, 1, 161, 163, scale=1.0, dtype=dtype)
    found = getattr(ours, name)(x, y, 1.0, size_average)
    assert found.dtype == getattr(pytorch_msssim, name)(x, y, 1.0, size_average).dtype
    wide = getattr(ours, name)(x.to(torch.float64), y.to(torch.float64), 1.0, size_average)
    torch.testing.assert_close(found, wide.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("name", ["ssim", "ms_ssim"])
def test_an_empty_batch_matches_the_package(name):
    empty = torch.rand(0, 3, 200, 200)
    for size_average in (True, False):
        found = getattr(ours, name)(empty, empty, size_average=size_average)
        wanted = getattr(pytorch_msssim, name)(empty, empty, size_average=size_average)
        torch.testing.assert_close(found, wanted, equal_nan=True)
