"""This library's SSIM loss under pytest-benchmark: pytest bench.

suite/cases.py lists the cases; every available backend runs each of them.
"""

from typing import Any

import pytest
from torch import Tensor

pytest.importorskip("pytest_benchmark")
from suite.cases import OPERATOR_CASES, OperatorCase, textured_pair

from lamp_kernels import AmplifiedSSIMLoss, backends


@pytest.mark.parametrize("backend", backends.available())
@pytest.mark.parametrize("case", OPERATOR_CASES, ids=lambda case: case.id)
def test_ssim_loss(benchmark: Any, case: OperatorCase, backend: str) -> None:
    """Time one call with the gradients that the case asks for."""
    loss_function = AmplifiedSSIMLoss(padding=case.padding, backend=backend)
    input, target = textured_pair(case.shape, dtype=case.dtype)
    input.requires_grad_(case.gradients != "none")
    target.requires_grad_(case.gradients == "both")

    def call() -> Tensor:
        input.grad = target.grad = None
        loss: Tensor = loss_function(input, target)
        if case.gradients != "none":
            loss.backward()
        return loss

    benchmark.extra_info["elements"] = input.numel()
    loss = benchmark.pedantic(call, rounds=5, iterations=1, warmup_rounds=1)
    assert loss.item() > 0
