"""Where the tests of this folder find what builds their programs."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "cpu")]

import host_build  # noqa: E402


@pytest.fixture(scope="session")
def cuda_flags() -> list[str]:
    """What makes g++ find NVIDIA's headers; without them, or g++, there is nothing to test."""
    try:
        return host_build.cuda_flags()
    except host_build.NotFoundError as error:
        pytest.skip(str(error))
