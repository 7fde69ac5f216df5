"""Shared by all tests: where test helpers lie, a fixed state, and every backend in its turn."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from lamp_kernels import backends, reference

sys.path.insert(0, str(Path(__file__).resolve().parent))

# No deadline: a shared machine pauses. In CI the same examples each time: a red run is the
# change's own doing. `each_backend` holds for all examples of a test, so its scope does no harm.
hypothesis.settings.register_profile(
    "local",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.register_profile(
    "ci", hypothesis.settings.get_profile("local"), derandomize=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

# Where the tests make their tensors: bench/gpu_check.py runs them with "cuda". Nothing is set for
# the CPU, where PyTorch makes them anyway.
DEVICE = os.environ.get("LAMP_KERNELS_TEST_DEVICE") or "cpu"

# What has its turn as `each_backend`: all that serve that device, or those of them that are named.
NAMED = (os.environ.get("LAMP_KERNELS_TEST_BACKENDS") or ",".join(backends.available())).split(",")
BACKENDS = tuple(
    name
    for name in backends.available()
    if name in NAMED and backends.unsupported_reason(name, torch.empty(0, device=DEVICE)) is None
)

# What computes losses in the reference; what is left of it every backend uses on small tensors.
COMPUTING = ("elementwise_loss", "ssim_dissimilarity", "pointwise_loss")
MARKERS = (
    "reference_only: of `each_backend`, the reference alone: no other one promises this",
    "kernels_only: of `each_backend`, all but the reference, which would take long",
    "beside_reference: calls the reference by name, to compare with it",
    "cpu_only(reason): left out where the tests make their tensors on another device",
    "xdist_group(name): of pytest-xdist, with --dist loadgroup: one process runs all of a group",
)


def pytest_configure(config: pytest.Config) -> None:
    for line in MARKERS:
        config.addinivalue_line("markers", line)
    if unknown := [name for name in NAMED if name not in backends.BACKENDS]:
        raise pytest.UsageError(f"LAMP_KERNELS_TEST_BACKENDS names {unknown}, no such backend")
    # Convolutions of the tests' networks: TF32 would round an eager and a compiled one differently.
    torch.backends.cudnn.allow_tf32 = False
    if DEVICE != "cpu":
        torch.set_default_device(DEVICE)  # before the tests' modules, which make tensors too


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what `reference_only` and `kernels_only` say, instead of a skip for each."""
    for item in items if DEVICE != "cpu" else ():
        marker = item.get_closest_marker("cpu_only")
        if marker is not None:
            item.add_marker(pytest.mark.skip(reason=f"about the CPU only: {marker.args[0]}"))

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
    """Each test starts from one seed and leaves no global precision setting behind."""
    torch.manual_seed(0)
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(params=BACKENDS)
def each_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The default backend of a test, each in turn; while one computes, the reference cannot."""
    name: str = request.param
    monkeypatch.setattr(backends, "_from_environment", name)
    if name != "reference" and not request.node.get_closest_marker("beside_reference"):

        def refuse(*args: object, **kwargs: object) -> None:
            raise AssertionError(f"the reference computed in the place of {name}")

        for function in COMPUTING:
            monkeypatch.setattr(reference, function, refuse)
    return name
