"""Tests that require a CUDA device; without one they are skipped."""

import os
from collections.abc import Iterator

import pytest
import torch

from lamp_kernels import backends

# The backends with kernels: those listed in LAMP_KERNELS_TEST_BACKENDS, installed or not, so that
# one process can run the native kernels and another Triton's. Without the variable, all installed
# ones, and always native, so that a skip shows why it is unavailable.
NAMED = os.environ.get("LAMP_KERNELS_TEST_BACKENDS")
KERNELS = [
    name
    for name in backends.BACKENDS
    if name != "reference"
    and (
        name in NAMED.split(",")
        if NAMED
        else name == "native" or backends.BACKENDS[name].unavailable_reason() is None
    )
]


def unsupported_reason(name: str) -> str | None:
    """Why the backend cannot compute losses on the first CUDA device, or None."""
    return backends.unsupported_reason(name, torch.empty(0, device="cuda"))


@pytest.fixture(autouse=True)
def needs_cuda() -> Iterator[None]:
    """Skip without a device; finish all queued work before the next test."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    yield
    torch.cuda.synchronize()
    torch.cuda.empty_cache()


@pytest.fixture(params=KERNELS)
def kernels(request: pytest.FixtureRequest, needs_cuda: None) -> str:
    """Each backend with kernels for this device, in turn."""
    name: str = request.param
    reason = unsupported_reason(name)
    if reason is not None:
        if os.environ.get("LAMP_KERNELS_TEST_DEVICE") == "cuda":
            pytest.fail(f"{name} does not support this device: {reason}")
        pytest.skip(reason)
    return name
