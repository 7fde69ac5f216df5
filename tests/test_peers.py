"""SSIM and its gradient against other packages that compute the same thing, in float64."""

import math

import pytest
import torch
from packages import optional
from textbook import ssim_map

from lamp_kernels import AmplifiedSSIMLoss, functional

kornia = optional("kornia")
np = optional("numpy")
pytorch_msssim = optional("pytorch_msssim")
skimage_data = optional("skimage.data")
skimage_metrics = optional("skimage.metrics")
torchmetrics = optional("torchmetrics")

pytestmark = [
    pytest.mark.usefixtures("each_backend"),
    pytest.mark.cpu_only("some of the other packages take arrays, not tensors"),
]


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(7)
    x = torch.rand((2, 3, 48, 60), generator=generator, dtype=torch.float64)
    y = (x + 0.2 * torch.randn(x.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    return x, y


def test_known_value_from_scikit_image():
    clean = skimage_data.camera()
    noisy = clean + 20.0 * np.random.RandomState(5).randn(*clean.shape)
    noisy = noisy.clip(0, 255).astype(clean.dtype)
    x, y = (torch.from_numpy(i.astype(np.float64))[None, None] for i in (clean, noisy))
    found = functional.ssim(x, y, data_range=255.0)
    assert found.item() == pytest.approx(0.3579642362365813, abs=1e-12)


def test_scikit_image(images):
    x, y = images
    options = {"gaussian_weights": True, "use_sample_covariance": False, "channel_axis": 0}
    for image, other, found in zip(x, y, functional.ssim(x, y, reduction="image"), strict=True):
        expected = skimage_metrics.structural_similarity(
            image.numpy(), other.numpy(), data_range=1.0, **options
        )
        assert found.item() == pytest.approx(expected, abs=1e-13)


def test_gradient_of_scikit_image(images):
    # scikit-image differentiates the mean of the uncropped map with respect to the second image,
    # under reflection with the edge pixel repeated. Two windows away from the border, that equals
    # our gradient of the map's sum divided by the number of pixels.
    x, y = images
    image, other = x[0, 0], y[0, 0].clone().requires_grad_()
    _, expected = skimage_metrics.structural_similarity(
        image.numpy(),
        other.detach().numpy(),
        data_range=1.0,
        gaussian_weights=True,
        use_sample_covariance=False,
        gradient=True,
    )
    total = functional.ssim(image[None, None], other[None, None], reduction="none").sum()
    (gradient,) = torch.autograd.grad(total / other.numel(), other)
    inner = (slice(10, -10), slice(10, -10))
    assert gradient[inner].numpy() == pytest.approx(expected[inner], abs=1e-15)


def test_kornia_charbonnier(images):
    x, y = images
    found = functional.amplified_charbonnier_loss(
        x, y, charbonnier_epsilon=1.0, amplification="none", reduction="none"
    )
    # kornia computes sqrt(d^2 + 1) - 1, without scaling.
    theirs = kornia.losses.charbonnier_loss(x, y, reduction="none") / (math.sqrt(2.0) - 1.0)
    torch.testing.assert_close(found, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("padding", "theirs"), [("reflect", "same"), ("valid", "valid")])
def test_kornia_value_and_gradient(images, padding, theirs):
    # kornia adds 1e-12 to its denominators and clamps (1 - S)/2 at 0 and 1.
    x, y = images
    x.requires_grad_()
    ours = AmplifiedSSIMLoss(padding=padding, amplification="none")(x, y)
    other = kornia.losses.ssim_loss(x, y, window_size=11, padding=theirs)
    assert ours.item() == pytest.approx(other.item(), abs=1e-9)
    (gradient,) = torch.autograd.grad(ours, x)
    (expected,) = torch.autograd.grad(other, x)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-12)


def test_torchmetrics(images):
    x, y = images
    expected = torchmetrics.functional.image.structural_similarity_index_measure(
        x, y, data_range=1.0
    )
    found = functional.ssim(x, y, padding="reflect")
    assert found.item() == pytest.approx(expected.item(), abs=1e-9)


def test_pytorch_msssim(images):
    # Its taps are rounded to float32, which leaves an error of 7e-7.
    x, y = images
    expected = pytorch_msssim.ssim(x, y, data_range=1.0)
    assert functional.ssim(x, y).item() == pytest.approx(expected.item(), abs=2e-6)


@pytest.mark.parametrize(
    ("settings", "theirs"),
    [
        ({}, lambda x, y: kornia.losses.SSIMLoss(11, padding="same")(x, y)),
        ({"padding": "valid"}, lambda x, y: kornia.losses.SSIMLoss(11, padding="valid")(x, y)),
        (
            {"dissimilarity": "full"},
            lambda x, y: (
                1 - torchmetrics.image.StructuralSimilarityIndexMeasure(data_range=1.0)(x, y)
            ),
        ),
        (
            {"dissimilarity": "full", "padding": "valid"},
            lambda x, y: 1 - pytorch_msssim.ssim(x, y, data_range=1.0),
        ),
        (
            {"dissimilarity": "full", "padding": "zeros"},
            lambda x, y: 1 - ssim_map(x.numpy(), y.numpy(), padding="zeros").mean(),
        ),
    ],
    ids=["kornia same", "kornia valid", "torchmetrics", "pytorch-msssim", "fused-ssim's formula"],
)
def test_the_settings_in_the_readme_match_each_package(images, settings, theirs):
    loss_function = AmplifiedSSIMLoss(amplification="none", **settings)
    assert loss_function(*images).item() == pytest.approx(float(theirs(*images)), abs=2e-6)


def test_textbook_formula_with_many_channels():
    x, y = torch.rand(2, 2, 17, 12, 13, dtype=torch.float64)
    found = functional.ssim(x, y, padding="reflect", reduction="none")
    assert found.numpy() == pytest.approx(ssim_map(x.numpy(), y.numpy()), abs=1e-12)


@pytest.mark.parametrize("padding", ["reflect", "valid", "zeros"])
@pytest.mark.parametrize(
    ("window_size", "sigma"),
    [
        *[(3, 0.5), (5, 1e-3), (7, 1.0), (9, 20.0), (11, 1.5), (13, 2.0), (15, 4.0)],
        pytest.param(1, 1.5, marks=pytest.mark.reference_only),
        pytest.param(31, 9.0, marks=pytest.mark.reference_only),
    ],
)
def test_textbook_formula(images, padding, window_size, sigma):
    x, y = images
    options = {
        "data_range": 1.7,
        "window_size": window_size,
        "sigma": sigma,
        "k1": 0.02,
        "k2": 0.05,
        "padding": padding,
    }
    found = functional.ssim(x, y, reduction="none", **options)
    expected = ssim_map(x.numpy(), y.numpy(), **options)
    assert found.numpy() == pytest.approx(expected, abs=1e-12)
