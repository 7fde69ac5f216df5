"""Shared by all tests: where test helpers lie, and a fixed number of threads."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

# No deadline: a shared machine pauses. In CI the same examples each time: a red run is the
# change's own doing.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(autouse=True)
def default_state() -> Iterator[None]:
    """Each test starts from one seed and leaves no global precision setting behind."""
    torch.manual_seed(0)
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)
