"""The kernels run on the current stream, and the host does not wait for them."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from on_cuda import as_leaves, assert_same, pair, results

from lamp_kernels import (
    AmplifiedL1Loss,
    AmplifiedMSELoss,
    AmplifiedReconstructionLoss,
    AmplifiedSSIMLoss,
)

SHAPE = (2, 3, 70, 130)
CYCLES = 100_000_000  # about 50 ms, far longer than it takes to queue a few calls
CASES = {
    "ssim": (AmplifiedSSIMLoss, {}),
    "valid": (AmplifiedSSIMLoss, {"padding": "valid"}),
    "map": (AmplifiedSSIMLoss, {"reduction": "none"}),
    "images": (AmplifiedReconstructionLoss, {"l1": 0.5, "amplify_over": "image"}),
    "batch": (AmplifiedReconstructionLoss, {"amplify_over": "batch"}),
    "mse": (AmplifiedMSELoss, {}),
    "l1": (AmplifiedL1Loss, {"reduction": "sum"}),
}
every_loss = pytest.mark.parametrize(("module", "options"), CASES.values(), ids=CASES)
weighted = pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])


def weight_of(weighted):
    return (torch.rand(2, 1, *SHAPE[2:], device="cuda"),) if weighted else ()


@every_loss
def test_kernels_run_on_the_current_stream(kernels, module, options):
    """On any other stream the kernels would read NaN, before the input is written."""
    loss_function = module(**options, backend=kernels)
    x, y = pair(SHAPE)
    expected = results(loss_function, x, y)
    late = torch.full_like(x, float("nan"))
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(CYCLES)
        late.copy_(x)
        found = results(loss_function, late, y)
        late.fill_(float("nan"))  # the kernels must not run later either
    stream.synchronize()
    assert_same(found, expected)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # it does not detect every wait
@every_loss
@weighted
def test_the_host_does_not_wait(kernels, module, options, weighted):
    """PyTorch raises on any wait, and the calls return before the work queued ahead has ended."""
    loss_function = module(**options, backend=kernels)
    weight = weight_of(weighted)
    images = as_leaves(*pair(SHAPE))
    ranges = torch.ones(SHAPE[0], device="cuda")

    def calls():
        loss = loss_function(*images, *weight)
        torch.autograd.grad(loss.sum(), images)
        with torch.no_grad():
            loss_function(*images, *weight)
            loss_function(*images, *weight, data_range=ranges)

    calls()  # loads or compiles each kernel, and fills the allocator's cache
    done = torch.cuda.Event()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.cuda._sleep(4 * CYCLES)
        done.record()
        calls()
        waited = done.query()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert not waited


def test_backward_runs_on_the_stream_of_the_forward_pass(kernels):
    loss_function = AmplifiedSSIMLoss(backend=kernels)
    x, y = pair(SHAPE)
    expected = results(loss_function, x, y)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    leaves = as_leaves(x, y)
    with torch.cuda.stream(stream):
        torch.cuda._sleep(CYCLES)
        loss = loss_function(*leaves)
    torch.cuda.current_stream().wait_stream(stream)
    found = [loss.detach(), *torch.autograd.grad(3.0 * loss, leaves)]
    torch.cuda.synchronize()
    assert torch.equal(found[0], expected[0])
    for one, other in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(one, 3.0 * other)


def test_several_streams_from_several_threads(kernels):
    loss_function = AmplifiedReconstructionLoss(l1=0.5, backend=kernels)
    pairs = [pair((2, 3, side, 90), seed=side) for side in (40, 16, 70, 33) for _ in range(4)]
    expected = [results(loss_function, *images) for images in pairs]
    torch.cuda.synchronize()

    def on_a_stream(images):
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            found = results(loss_function, *images)
        stream.synchronize()
        return found

    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(on_a_stream, pairs), expected, strict=True):
            assert_same(found, wanted)


def test_the_kernels_that_a_call_launches(kernels):
    """One or two launches for SSIM, one for sums, and one in backward, which exits at factor 1."""
    if kernels != "native":
        pytest.skip("tests the native kernels")
    loss_function = AmplifiedSSIMLoss(backend=kernels)
    x, y = pair(SHAPE)
    leaf = x.requires_grad_()
    loss_function(leaf, y).backward()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities, acc_events=True) as profile:
        leaf.grad = None
        loss_function(leaf, y).backward()
        torch.cuda.synchronize()
    on_device = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    ours = [event.name for event in on_device if "lamp_kernels" in event.name]
    if not on_device:
        pytest.skip("the profiler does not report kernels on this machine")
    names = [event.name for event in on_device]
    known = "ssim_kernel|ssim_losses_kernel|ssim_gradients_kernel|batch_sum_kernel|scale_kernel"
    found = [match[0] for one in ours if (match := re.search(known, one))]
    # The shape and the device decide between the two designs.
    designs = (["ssim_kernel"], ["ssim_losses_kernel", "ssim_gradients_kernel"])
    assert found in [[*ssim, "batch_sum_kernel", "scale_kernel"] for ssim in designs], names
    assert not [name for name in names if "reduce_kernel" in name]  # PyTorch's sum


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_backward_scales_each_image(kernels, dtype, layout):
    """By 1 and other factors, for image sizes that are not a multiple of the vector size."""
    loss_function = AmplifiedSSIMLoss(reduction="image", backend=kernels)
    x, y = (image.to(dtype).to(memory_format=layout) for image in pair((3, 3, 35, 133)))
    leaf = x.requires_grad_()
    (unscaled,) = torch.autograd.grad(loss_function(leaf, y).sum(), leaf)
    factors = torch.tensor([1.0, -2.0, 0.5], device="cuda")
    (scaled,) = torch.autograd.grad(loss_function(leaf, y), leaf, factors.to(loss_dtype(dtype)))
    assert torch.equal(scaled, unscaled * factors.to(dtype).view(-1, 1, 1, 1))


def loss_dtype(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32
