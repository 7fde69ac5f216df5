"""Autocast, gradient scaling, and precision settings that must have no effect."""

from typing import Any

import pytest
import torch

from lamp_kernels import (
    AmplifiedL1Loss,
    AmplifiedMSELoss,
    AmplifiedReconstructionLoss,
    AmplifiedSSIMLoss,
    functional,
)

pytestmark = pytest.mark.usefixtures("each_backend")

DEVICE = torch.get_default_device().type
MODULES = [AmplifiedSSIMLoss, AmplifiedMSELoss, AmplifiedL1Loss, AmplifiedReconstructionLoss]


def network():
    return torch.nn.Conv2d(3, 3, 3, padding=1)


@pytest.mark.parametrize("module", MODULES)
def test_autocast_with_bfloat16_output_and_float32_target(module):
    target = torch.rand(2, 3, 16, 16)
    model = network()
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        output = model(target)
        loss = module()(output, target)
    assert output.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    # Nothing in the loss runs in bfloat16: the same values outside autocast give the same loss.
    expected = module()(output.float(), target)
    assert loss.item() == expected.item()
    loss.backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_has_no_effect_on_equal_dtypes(dtype):
    x, y = torch.rand(2, 2, 3, 16, 16).to(dtype)
    expected = AmplifiedReconstructionLoss()(x, y)
    maps = functional.anomaly_map(x, y, smooth_sigma=1.0)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        assert AmplifiedReconstructionLoss()(x, y).item() == expected.item()
        assert torch.equal(functional.anomaly_map(x, y, smooth_sigma=1.0), maps)


@pytest.mark.parametrize("module", MODULES)
def test_gradient_scaler(module):
    """Scaling the loss scales the gradient, and the optimizer takes the same step as without it."""
    target = torch.rand(2, 3, 16, 16)
    models = [network(), network()]
    models[1].load_state_dict(models[0].state_dict())
    scaler = torch.amp.GradScaler(DEVICE, init_scale=2.0**16)
    plain, scaled = (torch.optim.SGD(model.parameters(), lr=0.1) for model in models)

    module()(models[0](target), target).backward()
    plain.step()
    scaler.scale(module()(models[1](target), target)).backward()
    scaler.step(scaled)
    scaler.update()
    assert scaler.get_scale() == 2.0**16  # no step was skipped for an infinity
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)


def test_scaled_float16_gradients_do_not_overflow():
    x, y = torch.rand(2, 1, 1, 32, 32).half()
    leaf = x.clone().requires_grad_()
    (1024.0 * AmplifiedSSIMLoss()(leaf, y)).backward()
    full = x.float().requires_grad_()
    (1024.0 * AmplifiedSSIMLoss()(full, y.float())).backward()
    torch.testing.assert_close(leaf.grad, full.grad.half(), rtol=0, atol=0)


@pytest.fixture
def low_precision():
    """A function that allows reduced precision in all of PyTorch's settings; undone afterwards."""
    backends: Any = torch.backends  # mkldnn.conv exists, but is not annotated
    before = (
        backends.mkldnn.conv.fp32_precision,
        backends.cuda.matmul.allow_tf32,
        backends.cudnn.allow_tf32,
    )

    def use() -> None:
        torch.set_float32_matmul_precision("medium")
        backends.mkldnn.conv.fp32_precision = "bf16"
        backends.cuda.matmul.allow_tf32 = True
        backends.cudnn.allow_tf32 = True

    yield use
    (
        backends.mkldnn.conv.fp32_precision,
        backends.cuda.matmul.allow_tf32,
        backends.cudnn.allow_tf32,
    ) = before


def test_independent_of_precision_settings(low_precision):
    """These settings affect matrix products, but no operation that computes a loss."""
    x, y = torch.rand(2, 2, 3, 32, 32)
    square = torch.rand(256, 256)

    def everything():
        leaf = x.clone().requires_grad_()
        loss = AmplifiedReconstructionLoss()(leaf, y)
        return [loss.detach(), *torch.autograd.grad(loss, leaf)]

    before, product_before = everything(), square @ square
    low_precision()
    after, product_after = everything(), square @ square
    if torch.equal(product_before, product_after):
        pytest.skip("the settings have no effect on this CPU: it has no bfloat16 matrix product")
    assert all(torch.equal(b, a) for b, a in zip(before, after, strict=True))
