"""torch.compile and torch.export: one graph, the same numbers, any batch size."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from lamp_kernels import AmplifiedMSELoss, AmplifiedReconstructionLoss, AmplifiedSSIMLoss

MODULES = [
    AmplifiedSSIMLoss(),
    AmplifiedSSIMLoss(padding="valid", amplify_over="image", reduction="image"),
    AmplifiedMSELoss(reduction="none"),
    AmplifiedReconstructionLoss(l1=0.5, amplify_over="batch", padding="zeros"),
]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()


@pytest.mark.parametrize("loss_function", MODULES, ids=str)
def test_one_graph_for_every_size(loss_function):
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss_function, fullgraph=True, backend=counter)
    for batch, height, width in [(3, 16, 18), (5, 16, 18), (2, 16, 18), (4, 70, 80), (4, 20, 33)]:
        x, y = torch.rand(2, batch, 2, height, width)
        weight = torch.rand(batch, 1, height, width)
        leaves = [x.clone().requires_grad_() for _ in range(2)]
        losses = [
            function(leaf, y, weight).sum()
            for function, leaf in zip((loss_function, compiled), leaves, strict=True)
        ]
        torch.autograd.backward(losses)
        torch.testing.assert_close(losses[1], losses[0])
        torch.testing.assert_close(leaves[1].grad, leaves[0].grad)
        if height == 16:
            # The first batch size is compiled as a constant, the second as a variable.
            assert counter.frame_count <= 2
    # Then the sides, once for images of less than 4,096 elements and once for larger ones.
    assert counter.frame_count <= 4


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # inside Inductor
def test_a_whole_training_step_under_inductor():
    loss_function = AmplifiedReconstructionLoss()
    target = torch.rand(2, 1, 16, 16)
    results = []
    for compiling in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Conv2d(1, 1, 3, padding=1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def forward(model=model):
            return loss_function(model(target), target)

        step = torch.compile(forward, fullgraph=True) if compiling else forward
        losses = []
        for _ in range(2):
            optimizer.zero_grad()
            loss = step()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        results.append([*losses, *(p.detach() for p in model.parameters())])
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)


def test_export():
    x, y = torch.rand(2, 2, 1, 16, 16)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(
        AmplifiedSSIMLoss(), (x, y), dynamic_shapes=({0: batch}, {0: batch})
    )
    x, y = torch.rand(2, 5, 1, 16, 16)
    torch.testing.assert_close(program.module()(x, y), AmplifiedSSIMLoss()(x, y))


def test_checkpointing():
    x, y = torch.rand(2, 2, 1, 16, 16)
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    AmplifiedSSIMLoss()(leaves[0], y).backward()
    torch.utils.checkpoint.checkpoint(
        AmplifiedSSIMLoss(), leaves[1], y, use_reentrant=False
    ).backward()
    assert torch.equal(leaves[0].grad, leaves[1].grad)
