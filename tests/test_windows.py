"""Windows other than the Gaussian one, on each backend: uniform, and taps of one's own."""

from typing import Any

import pytest
import torch
import window_loop
from packages import optional

from lamp_kernels import AmplifiedMSSSIMLoss, AmplifiedSSIMLoss, functional, windows
from lamp_kernels.compat import skimage

metrics = optional("skimage.metrics")
torchmetrics = optional("torchmetrics.functional.image")

pytestmark = pytest.mark.usefixtures("each_backend")

TAPS: Any = {
    "uniform": ({"window": "uniform", "window_size": 5}, [0.2] * 5),
    "taps": ({"window": (0.0, 1.0, 3.0, 1.0, 0.0)}, [0.0, 1.0, 3.0, 1.0, 0.0]),
    "list": ({"window": [2, 1, 2]}, [2.0, 1.0, 2.0]),
}


def images(*shape, dtype=torch.float32):
    x = torch.rand(shape, dtype=dtype)
    return x, (x + 0.2 * torch.randn(shape, dtype=dtype)).clamp(0, 1)


@pytest.mark.parametrize("padding", ["reflect", "valid", "zeros"])
@pytest.mark.parametrize("window", TAPS)
def test_map_matches_a_loop_over_windows(window, padding):
    options, taps = TAPS[window]
    x, y = images(1, 1, 9, 8, dtype=torch.float64)
    first, second = (image[0, 0].numpy(force=True) for image in (x, y))
    expected = window_loop.dissimilarity(first, second, taps, padding=padding)
    found = functional.ssim(x, y, padding=padding, reduction="none", **options)
    wanted = 1 - torch.from_numpy(expected).to(found)
    torch.testing.assert_close(found[0, 0], wanted, rtol=0, atol=1e-12)


@pytest.mark.beside_reference
@pytest.mark.parametrize("window", TAPS)
@pytest.mark.parametrize("module", [AmplifiedSSIMLoss, AmplifiedMSSSIMLoss])
def test_loss_and_gradients_match_the_reference(module, window):
    options = TAPS[window][0]
    if module is AmplifiedMSSSIMLoss:
        options = options | {"scale_weights": (0.5, 0.5)}
    x, y = images(2, 3, 24, 20)
    results = []
    for backend in (None, "reference"):
        dtype = torch.float32 if backend is None else torch.float64
        pair = [image.to(dtype).requires_grad_() for image in (x, y)]
        loss = module(backend=backend, **options)(*pair)
        results.append([loss.detach(), *torch.autograd.grad(loss, pair)])
    for found, expected in zip(*results, strict=True):
        assert (found - expected).norm() <= 2e-6 * expected.norm()


def test_gaussian_taps_are_the_gaussian_window():
    x, y = images(1, 2, 16, 16)
    found = functional.ssim(x, y, window=windows.gaussian(7, 1.1))
    torch.testing.assert_close(found, functional.ssim(x, y, window_size=7, sigma=1.1))


def test_default_of_scikit_image():
    x, y = images(1, 1, 24, 29, dtype=torch.float64)
    options = skimage.preset()
    assert (options["window"], options["window_size"]) == ("uniform", 7)
    expected = metrics.structural_similarity(
        *(image[0, 0].numpy(force=True) for image in (x, y)), data_range=1.0
    )
    assert functional.ssim(x, y, **options).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kernel_size", [11, 7])
def test_uniform_window_of_torchmetrics(kernel_size):
    """Its map is the one under "reflect"; only a Gaussian window ignores kernel_size there."""
    x, y = images(2, 3, 24, 29)
    found = functional.ssim(
        x, y, window="uniform", window_size=kernel_size, padding="reflect", reduction="image"
    )
    expected = torchmetrics.structural_similarity_index_measure(
        x, y, gaussian_kernel=False, kernel_size=kernel_size, data_range=1.0, reduction="none"
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"window": "box"}, ValueError, "window must be one of gaussian, uniform; got 'box'"),
        ({"window": ()}, ValueError, "odd number of taps from 1 to 31, got 0"),
        ({"window": (1.0, 1.0)}, ValueError, "odd number of taps from 1 to 31, got 2"),
        ({"window": [1.0] * 33}, ValueError, "odd number of taps from 1 to 31, got 33"),
        ({"window": (1.0, 2.0, 3.0)}, ValueError, r"symmetric, got \(1.0, 2.0, 3.0\)"),
        ({"window": (-1.0, 3.0, -1.0)}, ValueError, r"window\[0\].*-1.0"),
        ({"window": (0.0, 0.0, 0.0)}, ValueError, "positive, finite sum"),
        ({"window": (1.0, 0.0, 1.0)}, ValueError, "positive tap in the middle"),
        ({"window": (1.0, float("nan"), 1.0)}, ValueError, r"window\[1\].*nan"),
        ({"window": 5}, TypeError, "sequence of taps, got 5"),
        ({"window": torch.ones(3)}, TypeError, r"shape \(3,\).*tolist"),
        ({"window": (1, 2, 1), "window_size": 5}, ValueError, "window_size must be left out"),
        ({"window": "uniform", "window_size": 4}, ValueError, "window_size.*4"),
    ],
    ids=str,
)
def test_bad_window(options, error, message):
    with pytest.raises(error, match=message):
        AmplifiedSSIMLoss(**options)
