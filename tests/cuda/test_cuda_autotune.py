"""Autotuning of Triton's tiles with real measurements."""

import pytest
import torch
from on_cuda import pair

from lamp_kernels import functional
from lamp_kernels.backends.triton import autotune


@pytest.mark.parametrize(
    "loss", [functional.amplified_ssim_loss, functional.amplified_mse_loss], ids=["ssim", "mse"]
)
def test_autotuning_measures_once_and_does_not_change_the_loss(kernels, loss, monkeypatch):
    if kernels != "triton":
        pytest.skip("only Triton has autotuning")
    monkeypatch.setattr(autotune, "_quickest", {})
    x, y = pair((2, 3, 200, 300))
    x.requires_grad_()
    results = []
    for wanted in (False, True, True):
        monkeypatch.setattr(autotune, "wanted", lambda wanted=wanted: wanted)
        value = loss(x, y, backend=kernels)
        results.append([value.detach(), *torch.autograd.grad(value, x)])
    for value, gradient in results[1:]:
        torch.testing.assert_close(value, results[0][0], rtol=1e-6, atol=0.0)
        assert (gradient - results[0][1]).norm() <= 1e-6 * results[0][1].norm()
    assert len(autotune._quickest) == 1
