"""Shared by the tests of the training program: python/ on the path, and tiny data."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from packages import optional

if TYPE_CHECKING:
    import numpy as np
else:
    np = optional("numpy")
images = optional("PIL.Image")

PYTHON_FOLDER = Path(__file__).resolve().parents[2] / "python"
sys.path.insert(0, str(PYTHON_FOLDER))

# The training program imports all of these.
NEEDED = ("filelock", "matplotlib", "numpy", "PIL", "scipy", "skimage", "sklearn", "tqdm")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]


class _WithoutPackages(pytest.Module):
    """A test file that cannot be imported here."""

    def collect(self) -> list[pytest.Item]:
        pytest.skip(f"not installed: {', '.join(MISSING)}; requirements-dev.txt lists them")


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    """Skip each file with a reason if importing it would fail."""
    if not MISSING:
        return None
    return _WithoutPackages.from_parent(parent, path=module_path)


torch.set_num_threads(1)  # bitwise comparisons need the same number of threads in every process


@pytest.fixture
def program() -> Path:
    return PYTHON_FOLDER / "train.py"


@pytest.fixture(scope="session")
def image_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A category in the layout of MVTec AD: 32x32 gray stripes with bright squares as defects."""
    root = tmp_path_factory.mktemp("stripes")
    rng = np.random.default_rng(0)
    columns = np.arange(32)

    def stripes() -> np.ndarray:
        phase, noise = rng.uniform(0, 6), rng.normal(0, 8, (32, 32))
        return (128 + 60 * np.sin(columns / 2 + phase) + noise).clip(0, 255).astype(np.uint8)

    def write(array: np.ndarray, *parts: str) -> None:
        path = root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        images.fromarray(array).save(path)

    for index in range(20):
        write(stripes(), "train", "good", f"{index:02}.png")
    for index in range(4):
        write(stripes(), "test", "good", f"{index:02}.png")
        for kind, side in (("dot", 4), ("block", 10)):
            image, mask = stripes(), np.zeros((32, 32), np.uint8)
            top, left = rng.integers(0, 32 - side, 2)
            image[top : top + side, left : left + side] = 255
            mask[top : top + side, left : left + side] = 255
            write(image, "test", kind, f"{index:02}.png")
            write(mask, "ground_truth", kind, f"{index:02}_mask.png")
    return root


@pytest.fixture(scope="session")
def trained_run(image_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with one loss, mse, trained on `image_root`. Tests must not change it."""
    from uad.cli import train, train_run

    folder = tmp_path_factory.mktemp("runs") / "stripes"
    arguments = [
        *("--data", "folder", "--root", str(image_root), "--size", "32", "--lr", "0.01"),
        *("--epochs", "20", "--batch-size", "10", "--width", "4", "--latent", "2"),
        *("--false-positive-rate", "0.2", "--loss", "mse", "--device", "cpu"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_run, "write_report", lambda folder: None)  # no test looks at it
        assert train.main([*arguments, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def options(image_root: Path, tmp_path: Path) -> list[str]:
    """A run of train.py that takes seconds. Options that follow override these."""
    return [
        *("--data", "folder", "--root", str(image_root), "--size", "32"),
        *("--epochs", "2", "--batch-size", "8", "--width", "4", "--latent", "2"),
        *("--device", "cpu", "--threads", "1", "--out", str(tmp_path / "run")),
    ]


@pytest.fixture
def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the report in tests about something else."""
    monkeypatch.setattr("uad.cli.train_run.write_report", lambda folder: None)
