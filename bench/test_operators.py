"""This library's SSIM loss under pytest-benchmark, case by case: pytest bench.

The cases are data, in suite/cases.py; every backend of the installation takes each of them.
"""

import pytest

pytest.importorskip("pytest_benchmark")
from suite.cases import OPERATOR_CASES, OperatorCase, textured_pair

from lamp_kernels import AmplifiedSSIMLoss, backends


@pytest.mark.parametrize("backend", backends.available())
@pytest.mark.parametrize("case", OPERATOR_CASES, ids=lambda case: case.id)
def test_ssim_loss(benchmark, case: OperatorCase, backend: str):
    """One call, with the gradients that the case wants."""
    loss_function = AmplifiedSSIMLoss(padding=case.padding, backend=backend)
    input, target = textured_pair(case.shape, dtype=case.dtype)
    input.requires_grad_(case.gradients != "none")
    target.requires_grad_(case.gradients == "both")

    def call():
        input.grad = target.grad = None
        loss = loss_function(input, target)
        if case.gradients != "none":
            loss.backward()
        return loss

    benchmark.extra_info["elements"] = input.numel()
    loss = benchmark.pedantic(call, rounds=5, iterations=1, warmup_rounds=1)
    assert loss.item() > 0
