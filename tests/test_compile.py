"""torch.compile and torch.export: a single graph with unchanged results for any batch size."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from lamp_kernels import (
    AmplifiedMSELoss,
    AmplifiedMSSSIMLoss,
    AmplifiedReconstructionLoss,
    AmplifiedSSIMLoss,
    functional,
)

pytestmark = pytest.mark.usefixtures("each_backend")

DEVICE = torch.get_default_device().type

MODULES = [
    AmplifiedSSIMLoss(),
    pytest.param(
        AmplifiedSSIMLoss(padding="valid", amplify_over="image", reduction="image"),
        marks=pytest.mark.kernels_only,
    ),
    AmplifiedMSELoss(reduction="none"),
    pytest.param(
        AmplifiedReconstructionLoss(l1=0.5, amplify_over="batch", padding="zeros"),
        marks=pytest.mark.kernels_only,
    ),
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
            # The first batch size is compiled as a constant, the second as a symbol.
            assert counter.frame_count <= 2
    # One more graph, in which height and width are symbols too.
    assert counter.frame_count <= 3


def name_of(function):
    return getattr(function, "__name__", str(function))


def mean_score(input, target, weight):
    return functional.anomaly_score(functional.anomaly_map(input, target), pooling="mean")


MS_SSIM = AmplifiedMSSSIMLoss(scale_weights=(0.5, 0.5), window_size=3, amplify_over="image")
DYNAMIC = [
    AmplifiedSSIMLoss(),
    AmplifiedSSIMLoss(window_size=3, padding="valid", reduction="none"),
    AmplifiedMSELoss(),
    AmplifiedReconstructionLoss(l1=0.5, window_size=3, amplify_over="image"),
    MS_SSIM,
    mean_score,
]
SLOW = (*DYNAMIC[:2], MS_SSIM)  # in the reference, whose operations are many


@pytest.mark.parametrize(
    "function",
    [pytest.param(each, marks=[pytest.mark.kernels_only] * (each in SLOW)) for each in DYNAMIC],
    ids=name_of,
)
def test_dynamic_sizes_from_the_first_call(function):
    """The first call's graph serves odd and even sides, above and below 4,096 elements."""
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(function, fullgraph=True, backend=counter, dynamic=True)
    counts = []
    for batch, height, width in [(3, 16, 18), (5, 21, 17), (4, 70, 81)]:
        x, y = torch.rand(2, batch, 2, height, width)
        weight = torch.rand(batch, 1, height, width)
        torch.testing.assert_close(compiled(x, y, weight), function(x, y, weight))
        counts.append(counter.frame_count)
    assert len(set(counts)) == 1


@pytest.mark.parametrize("dynamic", [None, True])
def test_options_that_change_between_calls(dynamic):
    """The compiler turns numeric arguments into symbols."""

    def loss(input, target, window_size, data_range):
        return functional.amplified_ssim_loss(
            input, target, window_size=window_size, data_range=data_range
        )

    compiled = torch.compile(loss, fullgraph=True, backend="eager", dynamic=dynamic)
    x, y = torch.rand(2, 2, 1, 20, 20)
    for window_size, data_range in [(5, 1.0), (7, 1.5), (9, 2.0)]:
        expected = loss(x, y, window_size, data_range)
        torch.testing.assert_close(compiled(x, y, window_size, data_range), expected)


@pytest.mark.reference_only
def test_inductor_compiles_the_reference_with_dynamic_sizes():
    loss_function = AmplifiedSSIMLoss(window_size=3)
    compiled = torch.compile(loss_function, fullgraph=True, dynamic=True)
    for size in [(3, 16, 18), (5, 70, 33)]:
        x, y = torch.rand(2, size[0], 2, *size[1:])
        leaves = [x.clone().requires_grad_() for _ in range(2)]
        losses = [loss_function(leaves[0], y), compiled(leaves[1], y)]
        torch.autograd.backward(losses)
        torch.testing.assert_close(losses[1], losses[0])
        torch.testing.assert_close(leaves[1].grad, leaves[0].grad, rtol=1e-4, atol=1e-7)


def train(loss_function, compiler, batches):
    """Run a few training steps and return their losses, gradients and the final weights."""
    torch.manual_seed(0)
    model = torch.nn.Conv2d(1, 1, 3, padding=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def forward(target):
        return loss_function(model(target), target)

    step = compiler(forward)
    results = []
    for size in batches:
        optimizer.zero_grad()
        loss = step(torch.rand(size, 1, 16, 16))
        loss.backward()
        results.append(loss.detach())
        results += [p.grad.clone() for p in model.parameters() if p.grad is not None]
        optimizer.step()
    return [*results, *(p.detach() for p in model.parameters())]


STEPS = [
    AmplifiedReconstructionLoss(),
    pytest.param(
        AmplifiedReconstructionLoss(amplify_over="image", padding="zeros"),
        marks=pytest.mark.kernels_only,
    ),
]


@pytest.mark.parametrize("loss_function", STEPS, ids=str)
def test_a_whole_training_step_with_any_batch_size(loss_function):
    """The compiled step matches eager, and nothing is recompiled after the dynamic batch size."""
    counter = CompileCounterWithBackend("aot_eager")
    counts = []

    def compiler(function):
        compiled = torch.compile(function, fullgraph=True, backend=counter)

        def counted(*arguments):
            result = compiled(*arguments)
            counts.append(counter.frame_count)
            return result

        return counted

    batches = [3, 5, 2, 8, 5]
    found = train(loss_function, compiler, batches)
    expected = train(loss_function, lambda function: function, batches)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert counts == [1, 2, 2, 2, 2]


def test_a_whole_training_step_under_inductor():
    loss_function, batches = AmplifiedReconstructionLoss(), [2, 2]
    found = train(loss_function, lambda f: torch.compile(f, fullgraph=True), batches)
    expected = train(loss_function, lambda f: f, batches)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "image", "none"])
def test_autocast_inside_a_compiled_step(reduction):
    loss_function = AmplifiedSSIMLoss(reduction=reduction)
    model = torch.nn.Conv2d(1, 1, 3, padding=1)
    target = torch.rand(2, 1, 16, 16)

    def forward():
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            return loss_function(model(target), target).sum()

    losses = [forward(), torch.compile(forward, fullgraph=True, backend="aot_eager")()]
    gradients = [torch.autograd.grad(loss, model.weight)[0] for loss in losses]
    assert losses[1].dtype == torch.float32
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("loss_function", MODULES, ids=str)
def test_export(loss_function):
    x, y = torch.rand(2, 2, 1, 16, 16)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(loss_function, (x, y), dynamic_shapes=({0: batch}, {0: batch}))
    x, y = torch.rand(2, 5, 1, 16, 16)
    torch.testing.assert_close(program.module()(x, y), loss_function(x, y))


class FunctionModule(torch.nn.Module):
    """Wraps a function in a module, because only modules can be exported."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, input, target, weight):
        return self.function(input, target, weight)


def score(input, target, weight):
    return functional.anomaly_score(functional.anomaly_map(input, target), pooling="topk", k=0.01)


def ssim(input, target, weight):
    return functional.ssim(input, target)


EXPORTED = [*DYNAMIC, score, ssim]
# Dynamo, which only strict export uses, is tested above; tracing takes seconds.
STRICT = [MS_SSIM, score]


@pytest.mark.parametrize(
    ("function", "strict"),
    [*((function, False) for function in EXPORTED), *((function, True) for function in STRICT)],
    ids=name_of,
)
def test_export_with_dynamic_sides(function, strict):
    if torch.__version__ < "2.13" and function is MS_SSIM:
        pytest.skip("PyTorch before 2.13 exports avg_pool2d for only even or only odd sides")
    sides = {
        dim: torch.export.Dim(name, min=16, max=512) for dim, name in ((2, "height"), (3, "width"))
    }
    x, y = torch.rand(2, 2, 2, 32, 34)
    program = torch.export.export(
        FunctionModule(function),
        (x, y, torch.rand(2, 1, 32, 34)),
        dynamic_shapes=(sides, sides, sides),
        strict=strict,
    ).module()
    for height, width in [(48, 40), (21, 33), (16, 18)]:
        x, y = torch.rand(2, 2, 2, height, width)
        weight = torch.rand(2, 1, height, width)
        torch.testing.assert_close(program(x, y, weight), function(x, y, weight))


@pytest.mark.parametrize("loss_function", MODULES, ids=str)
def test_checkpointing(loss_function):
    x, y = torch.rand(2, 2, 1, 16, 16)
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    loss_function(leaves[0], y).sum().backward()
    torch.utils.checkpoint.checkpoint(
        loss_function, leaves[1], y, use_reentrant=False
    ).sum().backward()
    assert torch.equal(leaves[0].grad, leaves[1].grad)
