"""The promised accuracy: float32 against float64, loss and gradient, on scenes that cancel."""

import pytest
import torch
from scenes import EVEN, SCENES, UNEVEN, pair

from lamp_kernels import (
    AmplifiedL1Loss,
    AmplifiedMSELoss,
    AmplifiedReconstructionLoss,
    AmplifiedSSIMLoss,
    functional,
)

pytestmark = pytest.mark.usefixtures("each_backend")

APART = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5]


def errors(loss_function, x, y):
    """Relative error of the loss, and of the gradient for both inputs in the L2 norm."""
    results = {}
    for dtype in (torch.float64, torch.float32):
        inputs = [tensor.to(dtype).requires_grad_() for tensor in (x, y)]
        loss = loss_function(*inputs)
        assert loss.dtype == dtype
        results[dtype] = [loss.detach(), *torch.autograd.grad(loss, inputs)]
    return [
        ((low.double() - high).norm() / high.norm()).item()
        for low, high in zip(results[torch.float32], results[torch.float64], strict=True)
    ]


PADDINGS = ["reflect", "valid", "zeros"]
# A flat image in the black frame of "zeros" is not evenly lit.
EVENLY_LIT = [(scene, p) for scene in EVEN for p in PADDINGS if (scene, p) != ("flat", "zeros")]
UNEVENLY_LIT = [("flat", "zeros"), *((scene, padding) for scene in UNEVEN for padding in PADDINGS)]


@pytest.mark.parametrize("apart", APART)
@pytest.mark.parametrize(("scene", "padding"), EVENLY_LIT)
def test_evenly_lit_scenes(scene, padding, apart):
    assert max(errors(AmplifiedSSIMLoss(padding=padding), *pair(scene, apart))) <= 1e-5


@pytest.mark.parametrize("apart", APART)
@pytest.mark.parametrize(("scene", "padding"), UNEVENLY_LIT)
def test_unevenly_lit_scenes(scene, padding, apart):
    assert max(errors(AmplifiedSSIMLoss(padding=padding), *pair(scene, apart))) <= 1e-4


@pytest.mark.parametrize("offset", [0.1, 0.3])
@pytest.mark.parametrize("scene", SCENES)
def test_brightness_offset(scene, offset):
    # The promise speaks of L <= 0.9: on the dark scene an offset of 0.3 leaves L at 0.5.
    limit = 1e-5 if scene == "flat" else 1e-4
    assert max(errors(AmplifiedSSIMLoss(), *pair(scene, 1e-3, offset))) <= limit


@pytest.mark.parametrize("eps", [1e-1, 1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("module", [AmplifiedMSELoss, AmplifiedL1Loss, AmplifiedSSIMLoss])
def test_a_steep_tangent_costs_no_digits_below_it(module, eps):
    assert max(errors(module(eps=eps), *pair("texture", 1e-2))) <= 1e-6


@pytest.mark.parametrize(
    "window_size",
    [
        3,
        5,
        7,
        9,
        13,
        15,
        *(pytest.param(size, marks=pytest.mark.reference_only) for size in (1, 31)),
    ],
)
@pytest.mark.parametrize("scene", EVEN)
def test_other_windows(scene, window_size):
    loss_function = AmplifiedSSIMLoss(window_size=window_size, sigma=max(0.5, window_size / 7))
    assert max(errors(loss_function, *pair(scene, 1e-3))) <= 1e-5


@pytest.mark.parametrize("apart", APART)
def test_flat_with_noise_is_where_the_textbook_formula_fails(apart):
    """What this promise is worth: E[x^2] - mu^2 in float32 on the same images."""
    x, y = pair("flat", apart)
    options = {"padding": "valid", "amplification": "none", "dissimilarity": "full"}
    exact = functional.amplified_ssim_loss(x, y, **options)
    ours = functional.amplified_ssim_loss(x.float(), y.float(), **options)
    assert ours.item() == pytest.approx(exact.item(), rel=1e-6)
    if apart <= 1e-4:
        pytorch_msssim = pytest.importorskip("pytorch_msssim")
        theirs = 1.0 - pytorch_msssim.ssim(x.float(), y.float(), data_range=1.0)
        assert abs(theirs.item() - exact.item()) > 1e-3 * exact.item()


@pytest.mark.parametrize("apart", [*APART, 0.0])
@pytest.mark.parametrize("scene", SCENES)
def test_no_loss_is_negative(scene, apart):
    x, y = pair(scene, apart)
    for low, high in [(x, y), (-x, y), (1e3 * x, -1e3 * y)]:
        losses = functional.amplified_ssim_loss(low.float(), high.float(), reduction="none")
        assert losses.min().item() >= 0.0


def test_equal_images_lose_exactly_nothing():
    x, _ = pair("texture", 1e-1)
    image = x.float().requires_grad_()
    loss = AmplifiedReconstructionLoss(l1=1.0)(image, image.detach())
    (gradient,) = torch.autograd.grad(loss, image)
    assert loss.item() == 0.0
    assert gradient.abs().max().item() == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype):
    x, y = (tensor.to(dtype) for tensor in pair("texture", 1e-1))
    half = x.clone().requires_grad_()
    full = x.float().requires_grad_()
    loss, expected = AmplifiedSSIMLoss()(half, y), AmplifiedSSIMLoss()(full, y.float())
    assert loss.dtype == torch.float32
    assert loss.item() == expected.item()
    loss.backward()
    expected.backward()
    assert half.grad.dtype == dtype
    torch.testing.assert_close(half.grad, full.grad.to(dtype), rtol=0, atol=0)
