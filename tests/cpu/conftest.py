"""The path of this folder's helper module, and the shared cache of object files."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import kernel_driver


@pytest.fixture(scope="session", autouse=True)
def shared_objects(tmp_path_factory):
    kernel_driver.share(tmp_path_factory)
