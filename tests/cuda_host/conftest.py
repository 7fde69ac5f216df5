"""The paths of helper modules, the shared cache of object files, and the CUDA headers."""

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
    """Flags for NVIDIA's headers; skips if g++ or the headers are missing."""
    try:
        return host_build.cuda_flags()
    except host_build.NotFoundError as error:
        pytest.skip(str(error))
