"""Shared by all tests: the helper path, a reproducible state, and a fixture over all backends."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from lamp_kernels import backends, reference

sys.path.insert(0, str(Path(__file__).resolve().parent))

# No deadline: a shared machine may pause. CI uses the same examples every time, so that a failure
# is caused by the change under test. `each_backend` is the same for all examples of a test, so its
# function scope is harmless.
hypothesis.settings.register_profile(
    "local",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.register_profile(
    "ci", hypothesis.settings.get_profile("local"), derandomize=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

# The device on which the tests create their tensors: bench/gpu_check.py runs them with "cuda". For
# the CPU nothing needs to be set, because it is PyTorch's default.
DEVICE = os.environ.get("LAMP_KERNELS_TEST_DEVICE") or "cpu"

# Whether to run the tests that `make test` and CI leave out for their time.
THOROUGH = bool(os.environ.get("LAMP_KERNELS_THOROUGH"))

# The backends that `each_backend` iterates over: all that support the device, or the named ones.
NAMED = (os.environ.get("LAMP_KERNELS_TEST_BACKENDS") or ",".join(backends.available())).split(",")
BACKENDS = tuple(
    name
    for name in backends.available()
    if name in NAMED and backends.unsupported_reason(name, torch.empty(0, device=DEVICE)) is None
)

# The reference's functions that compute losses. Every backend uses its remaining functions on small
# tensors.
COMPUTING = (
    "elementwise_loss",
    "ssim_dissimilarity",
    "pointwise_loss",
    "gms_dissimilarity",
    "cosine_dissimilarity",
)
MARKERS = (
    "reference_only: run `each_backend` with the reference alone; no other backend promises this",
    "kernels_only: run `each_backend` without the reference, which would take too long",
    "beside_reference: the test calls the reference by name, to compare with it",
    "cpu_only(reason): skip when the tests create their tensors on another device",
    "thorough(reason): skip unless `make thorough` runs the tests",
    "xdist_group(name): from pytest-xdist with --dist loadgroup: one process runs the whole group",
)


def pytest_configure(config: pytest.Config) -> None:
    for line in MARKERS:
        config.addinivalue_line("markers", line)
    if unknown := [name for name in NAMED if name not in backends.BACKENDS]:
        raise pytest.UsageError(f"LAMP_KERNELS_TEST_BACKENDS names unknown backends: {unknown}")
    # In the convolutions of the tests' networks, TF32 would make eager and compiled results differ.
    torch.backends.cudnn.allow_tf32 = False
    if DEVICE != "cpu":
        torch.set_default_device(DEVICE)  # before the test modules, which also create tensors


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests by `reference_only` and `kernels_only`, rather than skip them one by one."""
    for item in items:
        marker = item.get_closest_marker("cpu_only")
        if marker is not None and DEVICE != "cpu":
            item.add_marker(pytest.mark.skip(reason=f"CPU only: {marker.args[0]}"))
        marker = item.get_closest_marker("thorough")
        if marker is not None and not THOROUGH:
            item.add_marker(pytest.mark.skip(reason=f"left to `make thorough`: {marker.args[0]}"))

    def unwanted(item: pytest.Item) -> bool:
        callspec = getattr(item, "callspec", None)
        if callspec is None or "each_backend" not in callspec.params:
            return False
        on_reference = callspec.params["each_backend"] == "reference"
        marker = "kernels_only" if on_reference else "reference_only"
        return item.get_closest_marker(marker) is not None

    left_out = [item for item in items if unwanted(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not unwanted(item)]


@pytest.fixture(autouse=True)
def default_state() -> Iterator[None]:
    """Start each test from the same seed, and restore the global precision setting afterwards."""
    torch.manual_seed(0)
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(params=BACKENDS)
def each_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make each backend the default in turn, and fail if the reference computes in its place."""
    name: str = request.param
    monkeypatch.setattr(backends, "_from_environment", name)
    if name != "reference" and not request.node.get_closest_marker("beside_reference"):

        def refuse(*args: object, **kwargs: object) -> None:
            raise AssertionError(f"the reference computed in place of {name}")

        for function in COMPUTING:
            monkeypatch.setattr(reference, function, refuse)
    return name
