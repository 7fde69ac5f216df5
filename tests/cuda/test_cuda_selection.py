"""Which backend computes losses of CUDA tensors, and which inputs are rejected."""

import copy
import warnings

import pytest
import torch
from on_cuda import assert_same, pair, results

from lamp_kernels import AmplifiedSSIMLoss, backends, functional, ops, self_check
from lamp_kernels.backends import native
from lamp_kernels.spec import LossSpec, Term

SHAPE = (2, 3, 33, 47)
FUNCTIONS = [
    functional.amplified_ssim_loss,
    functional.amplified_mse_loss,
    functional.amplified_l1_loss,
    functional.amplified_reconstruction_loss,
]


def test_the_automatic_choice_is_a_backend_with_kernels(kernels):
    x, _ = pair(SHAPE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert backends.resolve(None, x) in ("native", "triton")
    assert backends.resolve(kernels, x) == kernels


def test_windows_that_the_kernels_do_not_support(kernels):
    x, _ = pair(SHAPE)
    if kernels == "native":
        with pytest.raises(ValueError, match="window_size=17"):
            backends.resolve(kernels, x, window_size=17)


def test_the_report_names_the_devices_and_the_self_check_passes():
    assert torch.cuda.get_device_name(0) in backends.report()
    checks = list(self_check.run())
    assert [check for check in checks if "cuda:0" in check.name]
    assert [check for check in checks if not check.passed] == []


@pytest.mark.parametrize("function", FUNCTIONS)
def test_images_on_different_devices_are_rejected(function):
    x, y = pair(SHAPE)
    with pytest.raises(ValueError, match="same device, got cuda:0 and cpu"):
        function(x, y.cpu())
    with pytest.raises(ValueError, match="same device, got cpu and cuda:0"):
        function(x.cpu(), y)
    with pytest.raises(ValueError, match="weight must be on the same device as input, got cpu"):
        function(x, y, torch.ones(1, device="cpu"))


@pytest.mark.parametrize("moved", range(4), ids=["input", "target", "weight", "factors"])
def test_the_operator_rejects_tensors_on_two_devices(kernels, moved):
    """Called directly, without the checks in Python."""
    if kernels != "native":
        pytest.skip("tests the native operator")
    x, y = pair(SHAPE)
    weight, factors = torch.ones(2, 1, 33, 47, device="cuda"), torch.ones(2, 1, device="cuda")
    arguments = [x, y, weight, factors]
    spec = ops.FlatSpec.of(LossSpec((Term("ssim"),)))

    def call():
        *first, last = arguments
        given = (*first, None, None, last, (), "nothing", "images", True, True)
        torch.ops.lamp_kernels.image_losses(*given, *spec)

    call()
    arguments[moved] = arguments[moved].cpu()
    with pytest.raises(RuntimeError):
        call()


def test_a_copied_module_computes_on_the_device(kernels):
    loss_function = copy.deepcopy(AmplifiedSSIMLoss(backend=kernels))
    x, y = pair(SHAPE)
    assert loss_function(x, y).device == x.device


@pytest.fixture
def two_devices(needs_cuda):
    if torch.cuda.device_count() < 2:
        pytest.skip("requires two CUDA devices")


@pytest.mark.usefixtures("two_devices")
class TestTwoDevices:
    def test_images_on_a_device_other_than_the_current_one(self, kernels):
        loss_function = AmplifiedSSIMLoss(backend=kernels)
        x, y = pair(SHAPE)
        expected = results(loss_function, x, y)
        assert torch.cuda.current_device() == 0
        found = results(loss_function, x.to("cuda:1"), y.to("cuda:1"))
        assert torch.cuda.current_device() == 0
        assert all(tensor.device == torch.device("cuda", 1) for tensor in found)
        if torch.cuda.get_device_capability(0) == torch.cuda.get_device_capability(1):
            assert_same([tensor.to("cuda:0") for tensor in found], expected)

    def test_images_on_two_cuda_devices_are_rejected(self, kernels):
        x, y = pair(SHAPE)
        with pytest.raises(ValueError, match="same device, got cuda:0 and cuda:1"):
            AmplifiedSSIMLoss(backend=kernels)(x, y.to("cuda:1"))

    def test_kernels_run_on_the_current_stream_of_the_tensors_device(self, kernels):
        x, y = pair(SHAPE, device="cuda:1")
        expected = results(AmplifiedSSIMLoss(backend=kernels), x, y)
        late = torch.full_like(x, float("nan"))
        torch.cuda.synchronize(1)
        with torch.cuda.device(1):
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                torch.cuda._sleep(50_000_000)
                late.copy_(x)
        with torch.cuda.stream(stream), torch.cuda.device(0):
            found = results(AmplifiedSSIMLoss(backend=kernels), late, y)
        stream.synchronize()
        assert_same(found, expected)


def test_the_kernels_are_compiled_for_this_device(kernels):
    if kernels == "native":
        assert native.cuda_unsupported_reason(0) is None
