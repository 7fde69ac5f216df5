"""Training on the device: mixed precision, compilation, memory."""

import pytest
import torch
from on_cuda import as_leaves, assert_near, h_plane_bytes, pair, results

from lamp_kernels import AmplifiedMSELoss, AmplifiedReconstructionLoss, AmplifiedSSIMLoss

SHAPE = (4, 3, 1024, 1024)
ELEMENTS = torch.Size(SHAPE).numel()
SLACK = 2**22  # bytes for sums, factors and unsplit allocator blocks: 8 % of a gradient


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("module", [AmplifiedSSIMLoss, AmplifiedReconstructionLoss])
def test_autocast_with_half_output_and_float32_target(kernels, module, dtype):
    loss_function = module(backend=kernels)
    model = torch.nn.Conv2d(3, 3, 3, padding=1).cuda()
    target, _ = pair((2, 3, 40, 50))
    with torch.autocast("cuda", dtype=dtype):
        output = model(target)
        loss = loss_function(output, target)
    assert output.dtype == dtype
    assert loss.dtype == torch.float32
    assert loss.item() == loss_function(output.float(), target).item()
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10)  # so that no gradient overflows
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler.scale(loss).backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0
    scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.parametrize("module", [AmplifiedSSIMLoss, AmplifiedReconstructionLoss])
def test_compiled(kernels, module, mode):
    """The mode "reduce-overhead" uses CUDA graphs."""
    torch._dynamo.reset()
    loss_function = module(backend=kernels)

    def penalized(x, y):
        return loss_function(torch.sigmoid(x), y) + 0.1 * x.square().mean()

    compiled = torch.compile(penalized, fullgraph=True, mode=mode)
    for seed in range(4):
        x, y = pair((2, 3, 40, 50), seed=seed)
        leaves = [x.clone().requires_grad_() for _ in range(2)]
        losses = [f(leaf, y) for f, leaf in zip((penalized, compiled), leaves, strict=True)]
        for loss in losses:
            loss.backward()
        assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-5)
        expected, found = (leaf.grad for leaf in leaves)
        assert expected is not None
        assert found is not None
        assert_near([found], [expected.double()], 1e-5)


def peak_of(function):
    """Peak bytes allocated while `function` ran, beyond those allocated before."""
    function()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = function()
    torch.cuda.synchronize()
    del result
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("grad", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("module", [AmplifiedSSIMLoss, AmplifiedMSELoss])
def test_each_gradient_takes_four_bytes_per_element(kernels, module, grad):
    x, y = pair(SHAPE)
    x.requires_grad_(grad[0])
    y.requires_grad_(grad[1])
    loss_function = module(backend=kernels)
    wanted = [image for image in (x, y) if image.requires_grad]

    def run():
        loss = loss_function(x, y)
        return torch.autograd.grad(loss, wanted) if wanted else loss

    expected = 4 * ELEMENTS * len(wanted)
    scratch = h_plane_bytes(kernels, SHAPE, len(wanted)) if module is AmplifiedSSIMLoss else 0
    assert expected <= peak_of(run) <= expected + scratch + SLACK
    with torch.no_grad():
        assert peak_of(lambda: loss_function(x, y)) <= SLACK


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types_store_the_gradient_in_float32_and_rounded(kernels, dtype):
    images = as_leaves(*pair(SHAPE, dtype))
    loss_function = AmplifiedSSIMLoss(backend=kernels)
    peak = peak_of(
        lambda: torch.autograd.grad(loss_function(images[0], images[1].detach()), images[:1])
    )
    # The h planes are freed before the gradient is rounded.
    assert peak <= max(6 * ELEMENTS, 4 * ELEMENTS + h_plane_bytes(kernels, SHAPE, 1)) + SLACK


def test_minimizing_the_loss_recovers_the_target(kernels):
    """200 optimizer steps on the pixels themselves move the image to its target."""
    x, y = pair((1, 1, 64, 64), seed=5)
    image = x.clone().requires_grad_()
    optimizer = torch.optim.Adam([image], lr=0.01)
    loss_function = AmplifiedReconstructionLoss(backend=kernels)
    before = results(loss_function, x, y)[0].item()
    for _ in range(200):
        optimizer.zero_grad()
        loss_function(image, y).backward()
        optimizer.step()
    assert loss_function(image, y).item() < 0.05 * before
