"""bench/gpu_report.py with a made-up run and without one; bench/gpu_bundle.py's sweep."""

import json
import sys

import gpu_bundle
import gpu_report
import pytest
from suite import results

ROW = {"shape": [8, 3, 256, 256], "dtype": "float32", "border": "reflect", "cache": "cold"}


@pytest.fixture
def readme(tmp_path, monkeypatch):
    path = tmp_path / "README.md"
    path.write_text(f"before\n{gpu_report.BEGIN}\nold\n{gpu_report.END}\nafter\n")
    given = ["gpu_report.py", "--results", str(tmp_path / "results"), "--root", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", given)
    (tmp_path / "results").mkdir()
    return path


def test_without_a_run_nothing_changes(readme, capsys):
    (readme.parent / "results" / "cpu.json").write_text('{"date": "2026", "speed": []}')
    before = readme.read_text()
    gpu_report.main()
    assert "no GPU results" in capsys.readouterr().out
    assert readme.read_text() == before


def test_the_table_of_a_run(readme):
    run = {
        "date": "2026-01-02T03:04:05+00:00",
        "phases": [],
        "environment": {
            "devices": [{"name": "A card"}],
            "nvidia_smi": "index, name, driver_version\n0, A card, 580.1",
            "packages": {"torch": "2.11.0", "triton": "3.6.0"},
            "cuda_of_torch": "13.0",
        },
        "timing": {
            "how": "CUDA events",
            "speed": [
                {**ROW, "contestant": "ours", "pass": "forward + backward", "p50": 5e-5},
                {**ROW, "contestant": "ours", "pass": "forward", "p50": 2e-5},
                {**ROW, "contestant": "ours", "pass": "forward", "p50": 1.0, "cache": "warm"},
                {**ROW, "contestant": "peer", "pass": "forward + backward", "skipped": "no"},
            ],
        },
    }
    (readme.parent / "results" / "card.json").write_text(json.dumps(run))
    gpu_report.main()
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    for words in ("A card, 2026-01-02, driver 580.1", "| ours | reflect | 0.050 (0.020) |"):
        assert words in text
    assert "peer" not in text
    assert (readme.parent / "docs" / "gpu-speed.png").stat().st_size > 1000


def test_the_cpu_tables_ignore_gpu_runs(tmp_path):
    (tmp_path / "card.json").write_text('{"schema": 2, "date": "2026", "phases": []}')
    with pytest.raises(FileNotFoundError, match="no results"):
        results.every(tmp_path)
    (tmp_path / "cpu.json").write_text(json.dumps({"schema": results.SCHEMA, "date": "2026"}))
    assert len(results.every(tmp_path)) == 1


def test_the_sweep_is_built_for_every_target(tmp_path, monkeypatch):
    fake = tmp_path / "bin" / "nvcc"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/said\n')
    fake.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    gpu_bundle.sweep(tmp_path, "8.0;9.0+PTX", tmp_path / "made_up.cu")
    said = (tmp_path / "said").read_text()
    assert "arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90" in said
    assert "made_up.cu" in said
    assert said.strip().endswith("sweep")
    fake.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(SystemExit, match="exit status 3"):
        gpu_bundle.sweep(tmp_path, "9.0", tmp_path / "made_up.cu")
