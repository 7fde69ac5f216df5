"""Gradients of both inputs: against finite differences, and against what the README promises."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from lamp_kernels import AmplifiedCharbonnierLoss, amplify, functional, modules
from lamp_kernels.spec import REDUCTIONS

pytestmark = pytest.mark.usefixtures("each_backend")

CELLS = [(level, reduction) for level, row in REDUCTIONS.items() for reduction in row]


def images(*shape):
    """Two images with no kink of |x - y| or of A within a finite-difference step."""
    x = torch.rand(shape, dtype=torch.float64)
    return x.requires_grad_(), (1.0 - x.detach() + 0.03).requires_grad_()


@pytest.mark.parametrize(
    ("padding", "dissimilarity"),
    # The border decides about windows, the other only about a factor.
    [
        ("reflect", "half"),
        ("reflect", "full"),
        ("valid", "half"),
        ("zeros", "full"),
        pytest.param("valid", "full", marks=pytest.mark.thorough("another pair")),
        pytest.param("zeros", "half", marks=pytest.mark.thorough("another pair")),
    ],
)
@pytest.mark.parametrize(("level", "reduction"), CELLS)
def test_ssim(level, reduction, padding, dissimilarity):
    def loss(x, y):
        return functional.amplified_ssim_loss(
            x,
            y,
            window_size=5,
            padding=padding,
            dissimilarity=dissimilarity,
            amplify_over=level,
            reduction=reduction,
        )

    assert gradcheck(loss, images(2, 1, 6, 7))


@pytest.mark.parametrize(("level", "reduction"), CELLS)
def test_all_terms_with_weight(level, reduction):
    weight = torch.rand(2, 1, 5, 6)

    def loss(x, y):
        return functional.amplified_reconstruction_loss(
            x,
            y,
            weight,
            ssim=0.7,
            mse=1.3,
            l1=0.4,
            window_size=3,
            data_range=1.5,
            amplify_over=level,
            reduction=reduction,
        )

    assert gradcheck(loss, images(2, 2, 5, 6))


@pytest.mark.parametrize(("gamma", "delta"), [(0.5, 0.1), (3.0, 0.5)])
@pytest.mark.parametrize("name", modules.__all__)
def test_power(name, gamma, delta):
    options = {"amplification": "power", "gamma": gamma, "delta": delta}
    if name == "AmplifiedReconstructionLoss":
        options |= {"l1": 0.4, "charbonnier": 0.6}
    if "SSIM" in name or name == "AmplifiedReconstructionLoss":
        options["window_size"] = 3
    if name == "AmplifiedMSSSIMLoss":
        options["scale_weights"] = (0.4, 0.6)
    if name == "AmplifiedMSGMSLoss":
        options["gms_scales"] = 2
    assert gradcheck(getattr(modules, name)(**options), images(2, 1, 6, 7))


@pytest.mark.parametrize("amplification", ["log", "none"])
@pytest.mark.parametrize("epsilon", [1e-2, 0.3])
def test_charbonnier(epsilon, amplification):
    loss = AmplifiedCharbonnierLoss(
        charbonnier_epsilon=epsilon, data_range=1.5, amplification=amplification
    )
    assert gradcheck(loss, images(2, 2, 5, 6))


@pytest.mark.reference_only
def test_second_derivative_of_the_reference():
    def loss(x, y):
        return functional.amplified_ssim_loss(x, y, window_size=3, backend="reference")

    assert gradgradcheck(loss, images(1, 1, 5, 5))


def test_amplification_has_slope_one_over_one_minus_loss_up_to_the_knee():
    eps = 0.05
    loss = torch.linspace(0.0, 2.0, 401, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(amplify(loss, eps=eps).sum(), loss)
    expected = torch.where(loss <= 1 - eps, 1 / (1 - loss), torch.tensor(1 / eps).double())
    torch.testing.assert_close(slope, expected.detach())


@pytest.mark.parametrize(
    ("amplification", "eps", "least", "most"),
    [("none", 1e-2, 0.001, 0.002), ("log", 1e-2, 0.93, 0.95), ("log", 1e-4, 0.99999, 1.0)],
)
def test_the_share_of_one_wrong_pixel_in_the_gradient(amplification, eps, least, most):
    """The README's figures on eps, as a share of the squared gradient norm."""
    x = torch.full((1, 1, 256, 256), 0.1, requires_grad=True)
    with torch.no_grad():
        x[..., 128, 128] = 1.0
    functional.amplified_mse_loss(
        x, torch.zeros_like(x), amplification=amplification, eps=eps
    ).backward()
    assert x.grad is not None
    squares = x.grad.double().square()
    assert least < (squares[..., 128, 128].sum() / squares.sum()).item() < most


def test_a_clamped_variance_keeps_its_derivative():
    """Rounding may make variances of nearly equal images negative; the gradient must survive."""
    generator = torch.Generator(torch.get_default_device()).manual_seed(1)
    y = torch.full((1, 1, 64, 64), 0.3, dtype=torch.float64)
    x = y + 2e-5 * torch.randn(y.shape, generator=generator, dtype=torch.float64)
    x[..., :20] += 0.5  # moves the level of x - y away from the noise elsewhere, to expose rounding
    x, y = x.float().double(), y.float().double()
    gradients = []
    for dtype in (torch.float64, torch.float32):
        leaf = x.to(dtype).requires_grad_()
        losses = functional.amplified_ssim_loss(leaf, y.to(dtype), reduction="none")
        (gradient,) = torch.autograd.grad(losses[..., 30:].sum(), leaf)
        gradients.append(gradient.double())
    relative = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    assert relative.item() <= 1e-2  # 0.4 with a plain clamp


def test_only_inputs_that_require_grad_get_a_gradient():
    x, y = torch.rand(2, 1, 1, 12, 12)
    loss = functional.amplified_ssim_loss(x, y.requires_grad_())
    loss.backward()
    assert y.grad is not None
    assert x.grad is None
    assert not functional.amplified_ssim_loss(x, x).requires_grad
