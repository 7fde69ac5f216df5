"""The self-check's known values match other packages, and wrong values make it fail."""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from packages import optional

import lamp_kernels
from lamp_kernels import __main__ as program
from lamp_kernels import backends, functional, self_check

kornia = optional("kornia")
skimage_metrics = optional("skimage.metrics")


@pytest.mark.cpu_only("scikit-image takes arrays, not tensors")
def test_known_values_match_other_packages():
    image, other = self_check.pattern()
    valid = skimage_metrics.structural_similarity(
        image[0, 0].numpy(),
        other[0, 0].numpy(),
        data_range=1.0,
        gaussian_weights=True,
        use_sample_covariance=False,
    )
    same = kornia.metrics.ssim(image, other, 11, padding="same").mean()
    assert self_check.SSIM_OF_PATTERN["valid"] == pytest.approx(valid, rel=1e-12)
    assert self_check.SSIM_OF_PATTERN["reflect"] == pytest.approx(same.item(), rel=1e-9)


def test_program_prints_the_report_and_passes(capsys):
    assert program.main([]) == 0
    output = capsys.readouterr().out
    assert "backends:" in output
    assert "losses of cpu tensors are computed by" in output
    assert "all checks passed" in output


@pytest.mark.cpu_only("without NumPy, tensors on another device cannot be compared")
def test_program_does_not_print_the_warning_about_missing_numpy(tmp_path):
    """PyTorch raises it at import time, and the report would look as if something had failed."""
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError(\"No module named 'numpy'\")")
    path = os.pathsep.join([str(tmp_path), str(Path(lamp_kernels.__file__).parents[1])])
    run = partial(
        subprocess.run,
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    report = run([sys.executable, "-m", "lamp_kernels"])
    assert report.returncode == 0
    assert report.stderr == ""
    other = "import lamp_kernels, torch; torch.tensor([1.0])"
    assert "Failed to initialize NumPy" in run([sys.executable, "-c", other]).stderr


@pytest.mark.parametrize("name", ["native", "cuda"])
def test_program_fails_if_the_environment_requests_an_unavailable_backend(
    monkeypatch, capsys, name
):
    if name in backends.available():
        pytest.skip(f"{name} is available here")
    monkeypatch.setattr(backends, "_from_environment", name)
    assert program.main([]) == 1
    assert "raises: LAMP_KERNELS_BACKEND" in capsys.readouterr().out


def test_only_backends_that_serve_a_device_are_checked(monkeypatch):
    """For example, no native check on a GPU when the CUDA kernels are missing."""
    reasons = {"native": "no", "triton": "no"}
    monkeypatch.setattr(backends, "unsupported_reason", lambda name, *a, **k: reasons.get(name))
    checked = {check.name.partition(" on ")[0] for check in self_check.run()}
    assert checked == {"reference"}


def test_program_has_help(capsys):
    with pytest.raises(SystemExit, match="0"):
        program.main(["--help"])
    assert "usage: python -m lamp_kernels" in capsys.readouterr().out


def test_program_fails_if_a_value_is_wrong(monkeypatch, capsys):
    right = functional.ssim
    monkeypatch.setattr(functional, "ssim", lambda *a, **k: 0.999 * right(*a, **k))
    assert program.main([]) == 1
    output = capsys.readouterr().out
    assert "FAILED, expected 0.8581078" in output
    assert re.search(r"\n[1-9]\d* of \d+ checks failed\n", output)
