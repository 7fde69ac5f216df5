"""Where the tests of this folder find what builds their programs, and what they compile once."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "cpu")]

import host_build  # noqa: E402
import kernel_driver  # noqa: E402 - found by the path set above


@pytest.fixture(scope="session", autouse=True)
def shared_objects(tmp_path_factory: pytest.TempPathFactory) -> None:
    kernel_driver.share(tmp_path_factory)


@pytest.fixture(scope="session")
def cuda_flags() -> list[str]:
    """What makes g++ find NVIDIA's headers; without them, or g++, there is nothing to test."""
    try:
        return host_build.cuda_flags()
    except host_build.NotFoundError as error:
        pytest.skip(str(error))
