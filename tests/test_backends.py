"""Which backend computes, and what is said where a request cannot be met."""

import subprocess
import sys
import warnings

import pytest
import torch

from lamp_kernels import AmplifiedSSIMLoss, backends, functional, reference

IMAGE = torch.rand(1, 1, 16, 16)


@pytest.fixture
def cuda_image(monkeypatch):
    """What `resolve` sees of a CUDA tensor; there is no GPU here."""
    monkeypatch.setattr(backends, "_warned_of_cuda", False)

    class OnCuda(torch.Tensor):
        is_cuda = True

    return torch.rand(1).as_subclass(OnCuda)


def test_automatic_choice_is_the_fastest_available():
    assert backends.resolve(None, IMAGE) == backends.available()[0]


def test_reference_is_always_there():
    assert backends.available()[-1] == "reference"
    assert backends.resolve("reference", IMAGE) == "reference"
    assert backends.unavailable("reference") is None


@pytest.mark.parametrize("name", ["native", "triton"])
def test_explicit_request_that_cannot_be_met(name):
    if backends.unavailable(name) is None:
        pytest.skip(f"{name} is available here")
    for call in (
        lambda: backends.resolve(name, IMAGE),
        lambda: AmplifiedSSIMLoss(backend=name),
        lambda: functional.amplified_mse_loss(IMAGE, IMAGE, backend=name),
        lambda: functional.ssim(IMAGE, IMAGE, backend=name),
        lambda: functional.anomaly_map(IMAGE, IMAGE, backend=name),
    ):
        with pytest.raises(ValueError, match=f"backend='{name}' is not available: .*{name}"):
            call()


def test_unknown_name():
    with pytest.raises(ValueError, match="backend must be one of native, triton, reference"):
        backends.resolve("opencl", IMAGE)
    with pytest.raises(TypeError, match="backend"):
        backends.resolve(3, IMAGE)
    with pytest.raises(TypeError, match=r"input must be a torch\.Tensor, got NoneType"):
        backends.resolve(None, None)
    with pytest.raises(ValueError, match="window_size"):
        backends.resolve(None, IMAGE, window_size=10)


def test_environment_variable_stands_between_argument_and_default(monkeypatch):
    monkeypatch.setattr(backends, "_from_environment", "opencl")
    assert backends.resolve("reference", IMAGE) == "reference"
    with pytest.raises(ValueError, match="LAMP_KERNELS_BACKEND must be one of"):
        backends.resolve(None, IMAGE)


def test_environment_variable_is_read_at_import():
    program = (
        "import torch, lamp_kernels\n"
        "print(lamp_kernels.backends.resolve(None, torch.rand(1)))\n"
        "print(lamp_kernels.backends.report())"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={"LAMP_KERNELS_BACKEND": "reference"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.startswith("reference\n")
    assert "LAMP_KERNELS_BACKEND=reference" in result.stdout


def test_the_reference_on_cuda_warns_once(cuda_image):
    with pytest.warns(UserWarning, match=r"plain PyTorch reference: .*native.*triton"):
        assert backends.resolve(None, cuda_image) == "reference"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert backends.resolve(None, cuda_image) == "reference"


def test_the_reference_asked_for_on_cuda_does_not_warn(cuda_image):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backends.resolve("reference", cuda_image)


def test_every_loss_goes_through_resolve(monkeypatch):
    asked = []

    def resolve(requested, input, *, window_size):
        asked.append((requested, window_size))
        return "reference"

    monkeypatch.setattr(backends, "resolve", resolve)
    functional.amplified_ssim_loss(IMAGE, IMAGE, window_size=7)
    functional.amplified_l1_loss(IMAGE, IMAGE, reduction="none", backend="reference")
    functional.anomaly_map(IMAGE, IMAGE, window_size=5)
    assert asked == [(None, 7), ("reference", 11), (None, 5)]


def test_report():
    text = backends.report()
    for word in ("lamp_kernels", torch.__version__, "cpu", *backends.BACKENDS):
        assert word in text
    for name in backends.BACKENDS:
        assert (backends.unavailable(name) or "available") in text


def test_the_reference_is_what_computes(monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("reference called")

    monkeypatch.setattr(reference, "image_sums", refuse)
    with pytest.raises(RuntimeError, match="reference called"):
        functional.amplified_ssim_loss(IMAGE, IMAGE, backend="reference")
